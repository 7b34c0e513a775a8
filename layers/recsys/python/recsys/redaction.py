"""Text for a log or an answer, without the secrets that it may quote."""

from __future__ import annotations

import re
from typing import Final

_SECRET: Final = re.compile(r"rk_[0-9A-Za-z]+_[0-9A-Za-z]{6,}|ct_[0-9A-Za-z_-]{6,}")


def redacted(text: str) -> str:
    """`text` without what looks like an API key or a claim token."""
    return _SECRET.sub("(secret)", text)
