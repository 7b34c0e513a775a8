"""Numbers in JSON: 10.0 is accepted as an integer, because some languages write every number with a fraction."""

from __future__ import annotations


def whole_number(value: object) -> object:
    """Convert a float without a fraction to an integer, as JSON Schema defines integers.

    This is needed because Pydantic's strict mode rejects such a float. Other values are returned unchanged, and
    Pydantic checks them.

    >>> whole_number(10.0), whole_number(10.5), whole_number("10")
    (10, 10.5, '10')
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value
