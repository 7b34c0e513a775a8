"""Parse the values of item attributes, and infer the kinds of columns that the service does not know.

Parsing is strict and does not guess. A line is bad if one of its values does not fit the column.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import date, datetime
from decimal import Decimal
from typing import Any, Final

from recsys.catalogue.columns import Kind
from recsys_train.data.fields import MAX_ID_BYTES

MAX_TEXT_BYTES: Final = 2048
"""Longest text or tag, in bytes. Browsers and shops accept URLs of about this length."""
MAX_TAGS: Final = 100
_TRUE: Final = frozenset({"true", "t", "yes", "y", "1", "in stock", "in_stock", "instock"})
_FALSE: Final = frozenset({"false", "f", "no", "n", "0", "out of stock", "out_of_stock", "outofstock"})
_NUMBER: Final = re.compile(r"[+-]?(\d+([.,]\d*)?|[.,]\d+)([eE][+-]?\d+)?")
_PADDED_NUMBER: Final = re.compile(r"[+-]?0\d")
"""A number with leading zeros, such as 007, is a code and not a quantity."""
_SEPARATORS: Final = ("|", ";", ",")


class UnusableValue(ValueError):
    """Raised when a value does not fit its column.

    The message completes a sentence that begins with the column's name.
    """


def parse_id(value: Any) -> str:
    """Return an item id as text. A text remains unchanged, and an integer is converted to decimal digits.

    Raises
    ------
    UnusableValue
        The id is missing, blank, too long or not Unicode, contains a line break or a NUL character, or has another
        type.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise UnusableValue("is missing" if value is None else "must be text or an integer")
    if not value.strip():
        raise UnusableValue("is blank")
    if not _is_unicode(value) or len(value.encode()) > MAX_ID_BYTES or any(char in value for char in "\0\r\n"):
        raise UnusableValue(
            f"must have at most {MAX_ID_BYTES} bytes of valid Unicode, without line breaks or NUL characters"
        )
    return value


def is_blank(value: Any) -> bool:
    """Return whether a value is null, NaN or blank text. An item with such a value lacks the attribute."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or (isinstance(value, float) and math.isnan(value))


def parse(kind: Kind, value: Any) -> Any:
    """Convert a value that is not blank to the type of its column, which is float, bool, str or list of str.

    Raises
    ------
    UnusableValue
        The value does not fit the kind of the column.
    """
    match kind:
        case Kind.NUMBER:
            return _number(value)
        case Kind.BOOLEAN:
            return _boolean(value)
        case Kind.TEXT:
            return _text(value)
        case Kind.TAGS:
            return _tags(value)


def infer_kind(values: Iterable[Any]) -> Kind:
    """Infer the kind of a column from its values, none of which may be blank. Values of different kinds yield text.

    Examples
    --------
    >>> infer_kind(["4.5", "3"]), infer_kind(["007", "8"]), infer_kind([["new"]]), infer_kind([True])
    (<Kind.NUMBER: 'number'>, <Kind.TEXT: 'text'>, <Kind.TAGS: 'tags'>, <Kind.BOOLEAN: 'boolean'>)
    """
    kinds = {_kind_of(value) for value in values}
    return kinds.pop() if len(kinds) == 1 else Kind.TEXT


def _kind_of(value: Any) -> Kind:
    if isinstance(value, bool):
        return Kind.BOOLEAN
    if isinstance(value, list):
        return Kind.TAGS
    if isinstance(value, int | float | Decimal):
        return Kind.NUMBER
    if isinstance(value, str):
        text = value.strip()
        if _NUMBER.fullmatch(text) and not _PADDED_NUMBER.match(text):
            return Kind.NUMBER
    return Kind.TEXT


def _number(value: Any) -> float:
    if isinstance(value, str) and _NUMBER.fullmatch(value.strip()):
        value = float(value.strip().replace(",", "."))
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if math.isfinite(number):
            return number
    raise UnusableValue(f"must be a number such as 12.50. Received: {str(value)[:80]!r}")


def _boolean(value: Any) -> bool:
    if isinstance(value, int | float):  # booleans, and numbers of pieces in stock
        return value > 0
    text = value.strip().lower() if isinstance(value, str) else ""
    if text in _TRUE or text in _FALSE:
        return text in _TRUE
    if _NUMBER.fullmatch(text):
        return float(text.replace(",", ".")) > 0
    raise UnusableValue(f"must be true or false. Received: {str(value)[:80]!r}")


def _text(value: Any) -> str:
    if isinstance(value, list | dict | bytes):
        raise UnusableValue(f"must be text or a number. Received: {type(value).__name__}")
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, datetime | date):
        value = value.isoformat()
    elif isinstance(value, float) and value.is_integer():
        value = int(value)
    text = str(value).strip()
    if not _is_unicode(text) or len(text.encode()) > MAX_TEXT_BYTES:
        raise UnusableValue(f"has more than {MAX_TEXT_BYTES} bytes, or is not Unicode text")
    return text


def _tags(value: Any) -> list[str]:
    if isinstance(value, str):
        separator = next((each for each in _SEPARATORS if each in value), ",")
        value = value.split(separator)
    if not isinstance(value, list):
        raise UnusableValue(f"must be a list of strings. Received: {type(value).__name__}")
    tags = list(dict.fromkeys(_text(each) for each in value if not is_blank(each)))
    if len(tags) > MAX_TAGS:
        raise UnusableValue(f"must have at most {MAX_TAGS} tags. Received: {len(tags)}")
    return tags


def _is_unicode(text: str) -> bool:
    """Return whether UTF-8 can encode a text. JSON can express a lone surrogate, which UTF-8 cannot encode."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
