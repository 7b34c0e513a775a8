"""Remove secrets from text that is logged or sent."""

from __future__ import annotations

import re
from typing import Final

_SECRET: Final = re.compile(r"[prt]k_[0-9A-Za-z]+_(?:[0-9A-Za-z]+_)?[0-9A-Za-z]{6,}|ct_[0-9A-Za-z_-]{6,}")


def redacted(text: str) -> str:
    """Replace everything that looks like an API key or a claim token with `(secret)`.

    >>> redacted("no such key: rk_abc_0123456789")
    'no such key: (secret)'
    """
    return _SECRET.sub("(secret)", text)
