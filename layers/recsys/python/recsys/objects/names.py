"""Validate object names. All adapters apply the same rule, so that every valid name works in every store."""

from __future__ import annotations

import re
from typing import Final

from recsys.errors import InvalidRequest

RESERVED: Final = ".tmp"
"""Reserved first part of a name. The directory adapter keeps unfinished files in this folder."""

_MAX_NAME_BYTES: Final = 1024  # S3's limit
_MAX_PART_BYTES: Final = 255  # the limit of most file systems
_FORBIDDEN: Final = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]")


def checked_name(name: str) -> str:
    """Return `name` if it is a valid object name.

    Parameters
    ----------
    name
        A relative path with forward slashes, with at most 1,024 bytes and at most 255 bytes per part.

    Returns
    -------
    str
        `name`, unchanged.

    Raises
    ------
    InvalidRequest
        The name is empty, too long or absolute, contains an empty part, `.` or `..`, starts with `.tmp`, or
        contains a character that some store cannot keep (backslash, control character, lone surrogate).

    Examples
    --------
    >>> checked_name("inbox/shop.csv")
    'inbox/shop.csv'
    """
    parts = name.split("/")
    if _FORBIDDEN.search(name):
        raise _invalid(name, "must not contain a backslash, a control character or a lone surrogate")
    if any(part in ("", ".", "..") for part in parts) or parts[0] == RESERVED:
        raise _invalid(name, f'must be a relative path without empty parts, "." or "..", outside {RESERVED}/')
    if len(name.encode()) > _MAX_NAME_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise _invalid(name, f"must have at most {_MAX_NAME_BYTES} bytes, and each part at most {_MAX_PART_BYTES}")
    return name


def checked_prefix(prefix: str) -> str:
    """Return `prefix` if valid object names can start with it. An empty prefix is valid.

    Raises
    ------
    InvalidRequest
        The part of the prefix before its last slash is not a valid object name.
    """
    folder, slash, _ = prefix.rpartition("/")
    if slash:
        checked_name(folder)
    return prefix


def _invalid(name: str, rule: str) -> InvalidRequest:
    return InvalidRequest(
        f"The object name {rule}. Received: {name[:100]!a}.",
        code="invalid-object-name",
        hint="Use a name like inbox/shop.csv.",
    )
