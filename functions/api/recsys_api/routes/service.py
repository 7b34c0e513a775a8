"""Routes for health checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import anyio
import anyio.to_thread
from fastapi import APIRouter

from recsys.errors import KeyNotFound, ObjectNotFound, Unavailable
from recsys.http.problems import documented
from recsys.objects.store import ObjectStore
from recsys.registry.registry import Registry
from recsys_api.schemas import HealthBody

_READY_TIMEOUT_S: Final = 3.0  # below 5 s, the default health check timeout of AWS load balancers
_PROBE: Final = "readiness"


ReadinessCheck = Callable[[], None]
"""Function that raises `NotReady`, with the reason, while the service should not receive requests."""


def create_service_router(
    registry: Registry, store: ObjectStore, readiness_checks: Sequence[ReadinessCheck] = ()
) -> APIRouter:
    """Create the router for `/health/…`."""
    router = APIRouter(tags=["Health"])

    @router.get("/health/live", summary="Check liveness", response_description="The process is running.")
    async def check_liveness() -> HealthBody:
        """Report that the process handles requests.

        No dependency is checked, so a failure means that the process must be restarted.
        """
        return HealthBody(status="live")

    @router.get(
        "/health/ready",
        summary="Check readiness",
        response_description="The service can handle requests.",
        responses=documented(503),
    )
    async def check_readiness() -> HealthBody:
        """Report whether the object store and the registry respond. Send no traffic while the status is 503."""
        await _finish_in_time(lambda: _check_all(registry, store, readiness_checks))
        return HealthBody(status="ready")

    return router


def _check_all(registry: Registry, store: ObjectStore, readiness_checks: Sequence[ReadinessCheck]) -> None:
    for check in readiness_checks:
        check()
    probe_storage(registry, store)


def probe_storage(registry: Registry, store: ObjectStore) -> None:
    """Check that the registry and the object store respond, by looking up a key and an object that do not exist.

    Raises
    ------
    Unavailable
        The registry or the object store did not respond.
    """
    with suppress(KeyNotFound):
        registry.get_key(_PROBE)
    with suppress(ObjectNotFound):
        store.info(f"uploads/{_PROBE}")


async def _finish_in_time(check: Callable[[], None]) -> None:
    try:
        with anyio.fail_after(_READY_TIMEOUT_S):
            await anyio.to_thread.run_sync(check, abandon_on_cancel=True)
    except TimeoutError as error:
        raise Unavailable(f"A storage backend did not respond within {_READY_TIMEOUT_S:.0f} seconds.") from error
