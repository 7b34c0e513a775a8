"""Routes for the API documentation: the OpenAPI document, Swagger UI and ReDoc."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from recsys_api import static_files
from recsys_api.static_files import ASSET_NAMES, REDOC, SWAGGER_UI, StaticFile

_REVALIDATE: Final = "no-cache"  # may be stored, but is only used after the ETag was compared
_FOREVER: Final = "public, max-age=31536000, immutable"  # the URL of an asset changes with its content
# No inline scripts. Both pages insert style elements, and show images that are part of their style sheets.
_PAGE_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def create_docs_router() -> APIRouter:
    """Create the router for `/openapi.json`, `/docs`, `/redoc` and their assets."""
    router = APIRouter(include_in_schema=False)

    @router.get("/openapi.json")
    async def openapi(request: Request) -> Response:
        return _respond(request, static_files.openapi(), cache_control=_REVALIDATE)

    @router.get("/docs")
    async def swagger_ui(request: Request) -> Response:
        return _respond(request, static_files.page(SWAGGER_UI), cache_control=_REVALIDATE, policy=_PAGE_POLICY)

    @router.get("/redoc")
    async def redoc(request: Request) -> Response:
        return _respond(request, static_files.page(REDOC), cache_control=_REVALIDATE, policy=_PAGE_POLICY)

    @router.get("/docs/assets/{version}/{name}")
    async def asset(request: Request, version: str, name: str) -> Response:
        if name not in ASSET_NAMES or version != static_files.asset(name).version:
            raise HTTPException(404)
        return _respond(request, static_files.asset(name), cache_control=_FOREVER)

    return router


def _respond(request: Request, file: StaticFile, *, cache_control: str, policy: str | None = None) -> Response:
    """Respond with a file, compressed if the client accepts it, or with 304 if the client's copy is current."""
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
