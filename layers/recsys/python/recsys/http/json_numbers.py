"""Numbers in JSON, where 10.0 is an integer: some languages write every number with a fraction."""

from __future__ import annotations


def whole_number(value: object) -> object:
    """Convert a float without a fraction to an integer, as JSON Schema defines integers.

    Pydantic's strict mode rejects such a float. Other values are returned unchanged, for Pydantic to check.

    >>> whole_number(10.0), whole_number(10.5), whole_number("10")
    (10, 10.5, '10')
    """
    return int(value) if isinstance(value, float) and value.is_integer() else value
