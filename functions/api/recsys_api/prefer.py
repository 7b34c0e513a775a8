"""The `Prefer` header (RFC 7240): how long a caller wants to wait for the outcome."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

_NAME: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_QUOTED: Final = r'"(?:[^"\\]|\\.)*"'
_WORD: Final = rf"(?:{_NAME}|{_QUOTED})"
# A preference, its value, and parameters of its own, which no preference that is known here has.
_PREFERENCE: Final = re.compile(
    rf"\s*(?P<name>{_NAME})(?:\s*=\s*(?P<value>{_WORD}))?(?:\s*;\s*(?:{_NAME}(?:\s*=\s*{_WORD})?)?)*\s*(?:,|$)"
)
_MAX_LENGTH: Final = 1000
_MAX_DIGITS: Final = 9


def wait_s(headers: Sequence[str]) -> int | None:
    """Seconds of `wait=N` in the request's `Prefer` headers; None where there is none that can be understood.

    Names are compared without case, the first `wait` counts, a value may be quoted. What cannot be understood is
    passed over, as RFC 7240 §2 wants.
    """
    text = ", ".join(headers)
    if len(text) > _MAX_LENGTH:
        return None
    for match in _PREFERENCE.finditer(text):
        if match["name"].lower() == "wait":
            digits = (match["value"] or "").strip('"')
            return int(digits) if digits.isdecimal() and digits.isascii() and len(digits) <= _MAX_DIGITS else None
    return None
