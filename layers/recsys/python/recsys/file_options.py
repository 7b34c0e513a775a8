"""Options of a file of interactions, such as the names of the columns, the format and the mode.

Each option has the same name as a parameter of the HTTP routes, as a member of a sidecar file and as an option of the
command line.
"""

from __future__ import annotations

import codecs
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Final, Self

from recsys.errors import InvalidRequest

DELIMITERS: Final = {"comma": ",", "semicolon": ";", "tab": "\t", "pipe": "|"}
DECIMALS: Final = {"point": ".", "comma": ","}
TIME_FORMATS: Final = ("iso", "day-first", "month-first", "yyyymmdd", "unix", "excel")
MAX_LISTED: Final = 1000
MAX_LISTED_BYTES: Final = 32 * 1024
"""Largest total size of the texts of a list, in bytes. Excluded items are stored in the row of their key, and DynamoDB
limits a row to 400 KB."""


class Mode(StrEnum):
    """The ways in which a new file changes the interactions of a key."""

    REPLACE = "replace"
    """The model is trained on this file alone."""
    APPEND = "append"
    """The file is added to the interactions of the current version."""


OPTION_TEXTS: Final = {
    "user": "Column with the user id.",
    "item": "Column with the item id.",
    "time": "Column with the time. `-` trains without times.",
    "score": "Column with the score. `-` ignores scores.",
    "delimiter": "`comma`, `semicolon`, `tab` or `pipe`. Default: detected.",
    "charset": "Charset of the file, such as `windows-1252`. Default: the charset that a byte order mark at the start "
    "of the file indicates (UTF-8, UTF-16 or UTF-32), or UTF-8 without such a mark.",
    "decimal": "`point` or `comma`. Default: detected.",
    "time_format": "`iso`, `unix`, `day-first`, `month-first`, `yyyymmdd` or `excel`. Default: detected.",
    "min_score": "Rows with a smaller score are skipped.",
    "exclude_items": "Item ids whose rows are skipped, separated by commas. The list is stored with the model "
    "and applies to later files of the key until the option is set again. An empty value clears the list.",
    "event": "Column with the kind of event. Used only with `events`.",
    "events": "Kinds of events whose rows are used, separated by commas, such as `add_to_cart,purchase`. Default: all.",
    "force": "`true` publishes the new version even if it compares badly with the current one.",
    "mode": "`replace` trains on this file alone. `append` adds the file to the data of the current version. Default: "
    "`replace`.",
}
"""Descriptions of the options of a file, by name."""
_MAX_TEXT: Final = 512
_COLUMN_OPTIONS: Final = ("user", "item", "time", "score", "event")


@dataclass(frozen=True, slots=True)
class FileOptions:
    """Options for reading a file and for publishing the version that is trained on it.

    A column, a delimiter, a decimal mark or a time format that is None is detected. If the detection fails, reading the
    file raises an error.

    Parameters
    ----------
    user, item, time, score
        Names of the columns, as in the header.
    delimiter
        A key of `DELIMITERS`.
    charset
        Charset of the file, such as `windows-1252`. Default: the charset that a byte order mark indicates, or UTF-8.
    decimal
        A key of `DECIMALS`.
    time_format
        A member of `TIME_FORMATS`.
    min_score
        Smallest score that is used. Rows with a smaller score are skipped.
    exclude_items
        Item ids, such as `POSTAGE`, whose rows are skipped. None means the list that is stored with the key. An
        empty list clears the stored list.
    event
        Name of the column with the kind of event. The column is used only if `events` is set.
    events
        Kinds of events whose rows are used. None, or an empty list, means all.
    force
        Whether the new version is published even if it compares badly with the current one.
    mode
        A member of `Mode`; None means `Mode.REPLACE`.

    Examples
    --------
    >>> FileOptions.of({"user": "Customer No", "min_score": "4"}).to_json()
    {'user': 'Customer No', 'min_score': 4.0}
    """

    user: str | None = None
    item: str | None = None
    time: str | None = None
    score: str | None = None
    delimiter: str | None = None
    charset: str | None = None
    decimal: str | None = None
    time_format: str | None = None
    min_score: float | None = None
    exclude_items: tuple[str, ...] | None = None
    event: str | None = None
    events: tuple[str, ...] | None = None
    force: bool = False
    mode: str | None = None

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """Check the options that a caller sent as text or as JSON values, and return them.

        Parameters
        ----------
        values
            Options by name. None is the same as a missing option. `exclude_items` and `events` are lists or
            comma-separated texts.

        Raises
        ------
        InvalidRequest
            An option is unknown or has an invalid value.
        """
        names = [field.name for field in fields(cls)]
        unknown = [name for name in values if name not in names]
        if unknown:
            raise _invalid(f"Unknown option {unknown[0][:80]!r}. Expected one of: {', '.join(names)}.")
        given = {name: value for name, value in values.items() if value is not None}
        return cls(**{name: _checked(name, value) for name, value in given.items()})

    @classmethod
    def from_text(cls, text: bytes) -> Self:
        """Parse a sidecar file, which contains the options of a file in the inbox as a JSON object.

        Raises
        ------
        InvalidRequest
            The text is not a JSON object, or an option is unknown or has an invalid value.
        """
        try:
            values = json.loads(text)
        except ValueError as error:  # bad JSON, or text that is not UTF-8
            raise _invalid(f"Expected a JSON object in the sidecar file. Received invalid JSON: {error}.") from error
        if not isinstance(values, dict):
            raise _invalid(f"Expected a JSON object in the sidecar file. Received: {type(values).__name__}.")
        return cls.of(values)

    def to_json(self) -> dict[str, Any]:
        """Return the options that are set, as a JSON object."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in values.items()
            if value is not None and value is not False
        }


def _checked(name: str, value: Any) -> Any:
    if name in ("exclude_items", "events"):
        return _text_list(name, value)
    if name == "min_score":
        return _number(name, value)
    if name == "force":
        return _flag(name, value)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_TEXT:
        raise _invalid(f"Expected {name} as text of 1 to {_MAX_TEXT} characters. Received: {str(value)[:80]!r}.")
    if name in _COLUMN_OPTIONS:
        return value
    if name == "charset":
        return _charset(value)
    choices = {"delimiter": DELIMITERS, "decimal": DECIMALS, "time_format": TIME_FORMATS, "mode": tuple(Mode)}[name]
    if value not in choices:
        raise _invalid(f"Expected {name} to be one of {', '.join(choices)}. Received: {value[:80]!r}.")
    return value


def _charset(value: str) -> str:
    try:
        "".encode(value)  # unlike codecs.lookup, rejects transformations such as base64 and rot13
        name = codecs.lookup(value).name
    except (LookupError, ValueError):
        name = "undefined"
    if name in ("idna", "punycode", "undefined", "unicode_escape", "raw_unicode_escape"):
        raise _invalid(f"Expected charset to be an encoding such as windows-1252 or utf-16. Received: {value[:80]!r}.")
    return name


def _number(name: str, value: Any) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise _invalid(f"Expected {name} to be a finite number. Received: {str(value)[:80]!r}.")
    return number


def _flag(name: str, value: Any) -> bool:
    flags = {"true": True, "false": False, True: True, False: False}
    if not isinstance(value, str | bool) or value not in flags:
        raise _invalid(f"Expected {name} to be true or false. Received: {str(value)[:80]!r}.")
    return flags[value]


def _text_list(name: str, value: Any) -> tuple[str, ...]:
    texts = value.split(",") if isinstance(value, str) and value else value or []
    if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text for text in texts):
        raise _invalid(
            f"Expected {name} as non-empty strings, in a list or separated by commas. Received: {str(value)[:80]!r}."
        )
    if len(texts) > MAX_LISTED:
        raise _invalid(f"Expected at most {MAX_LISTED} values of {name}. Received: {len(texts)}.")
    try:
        n_bytes = sum(len(text.encode()) for text in texts)
    except UnicodeEncodeError as error:  # JSON can express a lone surrogate
        raise _invalid(f"Expected {name} in Unicode. Received an incomplete surrogate pair.") from error
    if n_bytes > MAX_LISTED_BYTES:
        raise _invalid(f"Expected {name} of at most {MAX_LISTED_BYTES:,} bytes in all. Received: {n_bytes:,}.")
    return tuple(texts)


def _invalid(detail: str) -> InvalidRequest:
    return InvalidRequest(
        detail,
        code="invalid-option",
        hint='The page "Data format" of the documentation lists the options and their values.',
    )
