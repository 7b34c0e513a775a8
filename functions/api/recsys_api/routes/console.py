"""Routes for the console, which is a web page that uses this API, and for the redirect from `/` to the console."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from functools import cache
from typing import Final
from urllib.parse import urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from recsys.objects.store import ObjectStore
from recsys_api import static_files
from recsys_api.routes.file_response import FOREVER, REVALIDATE, file_response
from recsys_api.static_files import CONSOLE, CONSOLE_ASSETS

# The policy forbids inline scripts and inline styles. It permits pictures from every HTTPS host, because the shops host
# the pictures of their items, and uploads to the object store, because large files are sent there directly. Scripts may
# not write HTML (Trusted Types), because injected HTML could read the API key in the page's memory.
_POLICY: Final = (
    "default-src 'self'; img-src 'self' https:; connect-src 'self'{upload_origin}; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
)
_PROBED_NAME: Final = "uploads/console"
"""Name of an object that never exists. The upload form for this name contains the origin that receives uploads."""


def create_console_router(store: ObjectStore) -> APIRouter:
    """Create the router for `/console` and its assets, and for `/`, which redirects browsers to the console."""
    router = APIRouter(include_in_schema=False)

    @cache
    def policy() -> str:
        url = urlsplit(store.upload_form(_PROBED_NAME, max_bytes=1, valid_s=1).url)
        return _POLICY.format(upload_origin=f" {url.scheme}://{url.netloc}" if url.netloc else "")

    @router.get("/")
    async def root(request: Request) -> Response:
        # Other clients get the same response as for a path without a route.
        if "text/html" not in request.headers.get("accept", ""):
            raise HTTPException(404)
        # The target is relative, so that it works behind any path prefix.
        return RedirectResponse("console", 303, headers={"Vary": "Accept"})

    @router.get("/console")
    def console(request: Request) -> Response:
        return file_response(request, static_files.page(CONSOLE), cache_control=REVALIDATE, policy=policy())

    @router.get("/console/assets/{version}/{name}")
    async def asset(request: Request, version: str, name: str) -> Response:
        if name not in CONSOLE_ASSETS or version != static_files.asset(name).version:
            raise HTTPException(404)
        return file_response(request, static_files.asset(name), cache_control=FOREVER)

    return router
