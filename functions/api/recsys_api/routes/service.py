"""Routes about the service itself: is it well, and what can it do."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.resources import files
from typing import Final

import anyio
import anyio.to_thread
from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html

from recsys.errors import KeyNotFound, ObjectNotFound, Unavailable
from recsys.http.problems import documented
from recsys.objects.store import ObjectStore
from recsys.registry.registry import Registry
from recsys_api.schemas import HealthBody

_READY_TIMEOUT_S: Final = 3.0
_PROBE: Final = "readiness"


def create_service_router(registry: Registry, store: ObjectStore) -> APIRouter:
    """`/health/…`, `/openapi.json`, `/docs`."""
    router = APIRouter(tags=["service"])

    @router.get("/health/live")
    async def live() -> HealthBody:
        """The process answers."""
        return HealthBody(status="live")

    @router.get("/health/ready", responses=documented(503))
    async def ready() -> HealthBody:
        """The registry and the object store answer too."""
        await _finish_in_time(lambda: look_up_nothing(registry, store))
        return HealthBody(status="ready")

    @router.get("/openapi.json", include_in_schema=False)
    async def openapi() -> Response:
        return Response(_openapi_document(), media_type="application/json")

    @router.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        # Relative, so that it is right behind any prefix.
        return get_swagger_ui_html(openapi_url="openapi.json", title="recsys")

    return router


def look_up_nothing(registry: Registry, store: ObjectStore) -> None:
    """Ask both stores for what is not there. Raises `Unavailable` when one does not answer."""
    with suppress(KeyNotFound):
        registry.get_key(_PROBE)
    with suppress(ObjectNotFound):
        store.info(f"uploads/{_PROBE}")


async def _finish_in_time(check: Callable[[], None]) -> None:
    try:
        with anyio.fail_after(_READY_TIMEOUT_S):
            await anyio.to_thread.run_sync(check, abandon_on_cancel=True)
    except TimeoutError as error:
        raise Unavailable(f"A store did not answer within {_READY_TIMEOUT_S:.0f} seconds.") from error


@cache
def _openapi_document() -> bytes:
    """Both functions' routes; `python -m recsys_local.openapi` writes the file."""
    return files("recsys").joinpath("openapi.json").read_bytes()
