"""Which names an object may have: one rule for every adapter, so that what works here works there."""

from __future__ import annotations

import re
from typing import Final

from recsys.errors import InvalidRequest

RESERVED: Final = ".tmp"
"""First part that no name may have: where the directory adapter keeps what is being written."""

_MAX_NAME_BYTES: Final = 1024  # S3's limit
_MAX_PART_BYTES: Final = 255  # the limit of most file systems
_FORBIDDEN: Final = re.compile(r"[\\\x00-\x1f\x7f\ud800-\udfff]")


def checked_name(name: str) -> str:
    """`name`, when it is one: a relative path with forward slashes that stays below its root.

    Raises
    ------
    InvalidRequest
        It is empty, too long or absolute, has an empty part, `.` or `..`, or a character that some store cannot keep
        (backslash, control characters, half a surrogate pair).
    """
    parts = name.split("/")
    if _FORBIDDEN.search(name):
        raise _invalid(name, "has a character that cannot be part of a name")
    if any(part in ("", ".", "..") for part in parts) or parts[0] == RESERVED:
        raise _invalid(name, "is not a relative path of plain parts")
    if len(name.encode()) > _MAX_NAME_BYTES or any(len(part.encode()) > _MAX_PART_BYTES for part in parts):
        raise _invalid(name, f"is longer than {_MAX_NAME_BYTES} bytes, or a part of it than {_MAX_PART_BYTES}")
    return name


def checked_prefix(prefix: str) -> str:
    """`prefix`, when names can start with it: empty, or its folders as `checked_name` wants them.

    Raises
    ------
    InvalidRequest
        No name can start with it.
    """
    folder, slash, _ = prefix.rpartition("/")
    if slash:
        checked_name(folder)
    return prefix


def _invalid(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(
        f"The object name {why}. Received: {name[:100]!a}.",
        code="invalid-object-name",
        hint="Use a name like inbox/shop.csv.",
    )
