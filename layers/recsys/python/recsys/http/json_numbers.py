"""Accept 10.0 in JSON as an integer, because some languages write every number with a fraction."""

from __future__ import annotations


def whole_number(value: object) -> object:
    """Convert a float without a fraction to an integer, as JSON Schema defines integers.

    Pydantic's strict mode would reject such a float. All other values are returned unchanged, so that Pydantic checks
    them.

    >>> whole_number(10.0), whole_number(10.5), whole_number("10")
    (10, 10.5, '10')
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value
