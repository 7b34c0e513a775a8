"""Provide the pages of the console and of the API documentation, with the scripts and style sheets that they load.

The files are stored in `static/`, and large files are compressed. `infra/deployment/docs_assets.py` writes the files of
Swagger UI and ReDoc, and `infra/deployment/console_assets.py` writes those of the console. The pages work without
access to the internet, because the package contains all their files.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

SWAGGER_UI: Final = "swagger-ui.html"
REDOC: Final = "redoc.html"
CONSOLE: Final = "console.html"
DOCS_ASSETS: Final = (
    "swagger-ui-bundle.js",
    "swagger-ui.css",
    "redoc.standalone.js",
    "start-swagger-ui.js",
    "page.css",
)
CONSOLE_ASSETS: Final = ("console.js", "console.css", "console.svg")
_FOLDERS: Final[Mapping[str, str]] = {
    **dict.fromkeys(DOCS_ASSETS, "docs/assets"),
    **dict.fromkeys(CONSOLE_ASSETS, "console/assets"),
}
"""Path below which each asset is served."""
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    "js": "text/javascript",
    "css": "text/css",
    "html": "text/html",
    "svg": "image/svg+xml",
}
_VERSION_LENGTH: Final = 12


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A static file of the API documentation or of the console.

    Parameters
    ----------
    content
        The file, uncompressed.
    media_type
        Media type of the file, without the charset.
    compressed
        The file compressed with gzip, or None if it is too small to be stored compressed.
    """

    content: bytes
    media_type: str
    compressed: bytes | None = None

    @property
    def version(self) -> str:
        """First 12 hex digits of the content's SHA-256. They are part of the file's ETag and of an asset's URL."""
        return hashlib.sha256(self.content).hexdigest()[:_VERSION_LENGTH]


@cache
def asset(name: str) -> StaticFile:
    """Return the static file with this name, which must be in `DOCS_ASSETS` or `CONSOLE_ASSETS`."""
    stored = _folder().joinpath(f"{name}.gz")
    media_type = _MEDIA_TYPES[name.rpartition(".")[2]]
    if stored.is_file():
        compressed = stored.read_bytes()
        return StaticFile(gzip.decompress(compressed), media_type, compressed)
    return StaticFile(_folder().joinpath(name).read_bytes(), media_type)


@cache
def page(name: str) -> StaticFile:
    """Return the HTML page with this name, which must be `SWAGGER_UI`, `REDOC` or `CONSOLE`.

    In the page, the URL of each asset contains the asset's version. The URLs are relative, so that the page works
    behind any path prefix.
    """
    text = _folder().joinpath(name).read_text("utf-8")
    for asset_name, folder in _FOLDERS.items():
        if f'"{asset_name}"' in text:
            text = text.replace(f'"{asset_name}"', f'"{folder}/{asset(asset_name).version}/{asset_name}"')
    return StaticFile(text.encode(), _MEDIA_TYPES["html"])


@cache
def openapi() -> StaticFile:
    """Return the OpenAPI document of both functions, which `python -m recsys_local.openapi` generates."""
    return StaticFile(files("recsys").joinpath("openapi.json").read_bytes(), "application/json")


def _folder() -> Traversable:
    return files("recsys_api").joinpath("static")
