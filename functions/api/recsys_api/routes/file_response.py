"""Responses that consist of a static file, for the documentation and the console."""

from __future__ import annotations

from typing import Final

from fastapi import Request, Response

from recsys_api.static_files import StaticFile

REVALIDATE: Final = "no-cache"
"""`Cache-Control` of a file whose URL stays the same. A cache must check before each use that its copy is current."""

FOREVER: Final = "public, max-age=31536000, immutable"
"""`Cache-Control` of a file whose URL contains its version. Such a response never changes."""


def file_response(request: Request, file: StaticFile, *, cache_control: str, policy: str | None = None) -> Response:
    """Respond with a file, or with 304 if the client's copy is current.

    If a compressed copy of the file is stored and the client accepts gzip, the compressed copy is sent.

    Parameters
    ----------
    request
        The request. Its headers `Accept-Encoding` and `If-None-Match` are respected.
    file
        The file to send.
    cache_control
        `REVALIDATE` or `FOREVER`.
    policy
        Content Security Policy of a page, or None for an asset.
    """
    is_compressed = file.compressed is not None and "gzip" in request.headers.get("accept-encoding", "")
    # Two encodings of one file need two strong ETags.
    etag = f'"{file.version}{"-gzip" if is_compressed else ""}"'
    headers = {"Cache-Control": cache_control, "ETag": etag}
    if file.compressed is not None:
        headers["Vary"] = "Accept-Encoding"
    if policy is not None:
        headers["Content-Security-Policy"] = policy
    if etag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    if is_compressed:
        headers["Content-Encoding"] = "gzip"
    return Response(file.compressed if is_compressed else file.content, media_type=file.media_type, headers=headers)
