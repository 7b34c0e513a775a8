"""Check web origins, such as `https://shop.example`, and parse the setting that lists the permitted origins."""

from __future__ import annotations

import re
from typing import Final

from recsys.settings import InvalidSetting

ORIGIN_PATTERN: Final = r"^https?://[a-z0-9_-]+(\.[a-z0-9_-]+)*(:[0-9]{1,5})?$"
"""An origin as browsers send it, with a scheme, a host in lower-case ASCII, and a port unless it is the default port.
"""

MAX_ORIGIN_LENGTH: Final = 255
_DEFAULT_PORT: Final = re.compile(r"^http:.*:80$|^https:.*:443$")


def is_origin(text: str) -> bool:
    """Return whether `text` is an origin exactly as browsers send it.

    >>> is_origin("https://shop.example"), is_origin("http://localhost:3000")
    (True, True)
    >>> is_origin("https://shop.example/"), is_origin("https://shop.example:443"), is_origin("*")
    (False, False, False)
    """
    fits = len(text) <= MAX_ORIGIN_LENGTH and re.fullmatch(ORIGIN_PATTERN, text) is not None
    return fits and not _DEFAULT_PORT.match(text)


def parse_origins(setting: str) -> frozenset[str]:
    """Return the origins that the setting `RECSYS_CORS_ORIGINS` lists. Commas separate the origins.

    Raises
    ------
    InvalidSetting
        An entry is not an origin.

    Examples
    --------
    >>> sorted(parse_origins("https://shop.example, http://localhost:3000"))
    ['http://localhost:3000', 'https://shop.example']
    """
    origins = [entry.strip() for entry in setting.split(",") if entry.strip()]
    for origin in origins:
        if not is_origin(origin):
            raise InvalidSetting(
                "RECSYS_CORS_ORIGINS must list origins, such as https://shop.example, separated by commas. "
                f"Received: {origin!r}."
            )
    return frozenset(origins)
