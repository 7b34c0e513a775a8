"""Create the FastAPI app of the function `api`, which has every route that the function `recommend` lacks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from fastapi import APIRouter, FastAPI

from recsys.clock import Clock, utc_now
from recsys.http import problems
from recsys.http.api_key_header import optional_key, required_key
from recsys.http.middleware import OnRequestEnd
from recsys.http.origins import parse_origins
from recsys.http.rate_limits import limited_key, limiter
from recsys.keys.authentication import Authenticator
from recsys.objects.store import ObjectStore
from recsys.registry import rate_limits
from recsys.registry.key_record import KeyRecord
from recsys.registry.rate_limits import Buckets, TableBuckets
from recsys.registry.registry import Registry
from recsys.registry.scoped_keys import Scope
from recsys.settings import Settings
from recsys_api.jobs import FindPosition
from recsys_api.routes.audit import create_audit_router
from recsys_api.routes.console import create_console_router
from recsys_api.routes.docs import create_docs_router
from recsys_api.routes.items import create_item_router
from recsys_api.routes.keys import create_key_router
from recsys_api.routes.models import create_model_router
from recsys_api.routes.scoped_keys import create_scoped_key_router
from recsys_api.routes.service import ReadinessCheck, create_service_router
from recsys_api.routes.training import create_training_router
from recsys_api.routes.usage import create_usage_router
from recsys_api.routes.users import create_user_router
from recsys_api.training import Training
from recsys_api.usage import KeyLimits


def create_app(
    registry: Registry,
    store: ObjectStore,
    settings: Settings,
    *,
    clock: Clock = utc_now,
    on_request_end: OnRequestEnd | None = None,
) -> FastAPI:
    """Create the complete app of the function `api`.

    Parameters
    ----------
    registry
        Registry of keys, jobs and model versions.
    store
        Object store of the uploads and the models.
    settings
        Limits and retention times.
    clock
        Function that returns the current time.
    on_request_end
        Function that is called with the `RequestContext` of each finished request, for example to record metrics.

    Returns
    -------
    FastAPI
        The ASGI app. `/docs` and `/openapi.json` describe both functions.

    Examples
    --------
    >>> import asyncio, httpx, tempfile
    >>> from pathlib import Path
    >>> from recsys.objects.files import FileObjectStore
    >>> from recsys.registry.sqlite import SqliteRegistry
    >>> folder = Path(tempfile.mkdtemp())
    >>> registry = SqliteRegistry(folder / "registry.sqlite3")
    >>> app = create_app(registry, FileObjectStore(folder), Settings())
    >>> async def train(content):
    ...     async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
    ...         return await client.post("/v1/train", files={"file": ("orders.csv", content)})
    >>> response = asyncio.run(train(b"user_id,item_id"))
    >>> response.status_code, response.json()["status"]
    (202, 'queued')
    >>> registry.close()
    """
    app = FastAPI(title="recsys", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app, on_request_end=on_request_end, origins=parse_origins(settings.cors_origins))
    app.include_router(create_router(registry, store, settings, clock=clock))
    return app


def create_router(
    registry: Registry,
    store: ObjectStore,
    settings: Settings,
    *,
    clock: Clock = utc_now,
    readiness_checks: Sequence[ReadinessCheck] = (),
    find_position: FindPosition = lambda _job_id: None,
    recommendation_buckets: Buckets | None = None,
) -> APIRouter:
    """Create a router with every route of the function.

    The app that includes the router must have been set up by `recsys.http.problems.install`.

    `/health/ready` calls `readiness_checks` before it checks the storage. `find_position` returns the position of a job
    in the queue. The default returns None, because messages in SQS have no position. `recommendation_buckets` are the
    rate-limit buckets in which the function `recommend` counts requests. By default, these buckets are in the registry.
    """
    # This authenticator has no cache, because a change to a key must be based on the current record.
    authenticator = Authenticator(registry, clock=clock)
    key, current_key = required_key(authenticator), required_key(authenticator, require_current=True)
    training_key = required_key(authenticator, scope=Scope.TRAIN)
    buckets = TableBuckets(registry.table, clock)
    limits = _limits_of_a_key(settings, buckets, recommendation_buckets or buckets)
    router = APIRouter()
    for part in (
        create_training_router(
            registry,
            Training(registry, store, settings, clock),
            settings,
            required_key=training_key,
            optional_key=_training_key(authenticator, buckets, settings),
            find_position=find_position,
        ),
        create_item_router(registry, store, settings, training_key=training_key, current_key=current_key, clock=clock),
        create_model_router(registry, required_key=key, current_key=current_key),
        create_key_router(registry, required_key=key, current_key=current_key, clock=clock),
        create_scoped_key_router(registry, current_key=current_key, clock=clock),
        create_audit_router(registry, current_key=current_key),
        create_usage_router(registry, store, limits, required_key=key),
        create_user_router(registry, current_key=current_key),
        create_service_router(registry, store, readiness_checks),
        create_docs_router(),
        create_console_router(store),
    ):
        router.include_router(part)
    return router


def _training_key(
    authenticator: Authenticator, buckets: Buckets, settings: Settings
) -> Callable[..., KeyRecord | None]:
    """Return the FastAPI dependency that reads the optional key of a training request and applies the rate limits."""
    return limited_key(
        optional_key(authenticator, scope=Scope.TRAIN, allow_anonymous=settings.allow_anonymous_training),
        by_key=limiter(buckets, rate_limits.trainings, settings.trainings_per_day),
        by_address=limiter(buckets, rate_limits.anonymous_trainings, settings.anonymous_trainings_per_hour),
    )


def _limits_of_a_key(settings: Settings, buckets: Buckets, recommendation_buckets: Buckets) -> KeyLimits:
    limits = (
        (rate_limits.trainings, settings.trainings_per_day, buckets),
        (rate_limits.recommendations, settings.recommendations_per_minute, recommendation_buckets),
    )
    return [(create(quota), buckets_of_limit) for create, quota, buckets_of_limit in limits if quota]
