"""Routes for the API documentation, which consists of the OpenAPI document, Swagger UI and ReDoc."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from typing import Final

from fastapi import APIRouter, Request, Response
from starlette.exceptions import HTTPException

from recsys_api import static_files
from recsys_api.routes.file_response import FOREVER, REVALIDATE, file_response
from recsys_api.static_files import DOCS_ASSETS, REDOC, SWAGGER_UI

# The policy forbids inline scripts. It permits inline styles and `data:` images, because Swagger UI and ReDoc insert
# style elements and show images that are part of their style sheets.
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
        return file_response(request, static_files.openapi(), cache_control=REVALIDATE)

    @router.get("/docs")
    async def swagger_ui(request: Request) -> Response:
        return file_response(request, static_files.page(SWAGGER_UI), cache_control=REVALIDATE, policy=_PAGE_POLICY)

    @router.get("/redoc")
    async def redoc(request: Request) -> Response:
        return file_response(request, static_files.page(REDOC), cache_control=REVALIDATE, policy=_PAGE_POLICY)

    @router.get("/docs/assets/{version}/{name}")
    async def asset(request: Request, version: str, name: str) -> Response:
        if name not in DOCS_ASSETS or version != static_files.asset(name).version:
            raise HTTPException(404)
        return file_response(request, static_files.asset(name), cache_control=FOREVER)

    return router
