"""MkDocs hook that ends the build when a page would load a script, style sheet, font or image from another host."""

from __future__ import annotations

import re
from typing import Any, Final

from mkdocs.exceptions import PluginError

_LOADED_FROM_ELSEWHERE: Final = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*\bsrc=[\"']?(?:https?:)?//[^\"'>\s]+"
    r"|<link\b(?=[^>]*\brel=[\"']?(?:stylesheet|preload|preconnect|icon))[^>]*\bhref=[\"']?(?:https?:)?//[^\"'>\s]+"
)


def on_post_page(output: str, *, page: Any, **_: Any) -> str:
    """Return the page unchanged if it loads nothing from another host."""
    found = _LOADED_FROM_ELSEWHERE.search(output)
    if found:
        raise PluginError(f"{page.file.src_path} loads from another host: {found[0]}")
    return output
