"""The ASGI app of the local service.

The app has the routes of the functions `api` and `recommend`, and routes for upload forms, metrics and sign-in links.
"""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes.
import asyncio
from collections.abc import Sequence
from typing import Final

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from prometheus_client import CollectorRegistry
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Receive, Scope, Send

import recsys_api.app
import recsys_recommend.app
from recsys.errors import InvalidRequest, JobNotFound, Unavailable
from recsys.http import problems
from recsys.http.middleware import MULTIPART_FRAMING_BYTES, request_context
from recsys.http.origins import parse_origins
from recsys.objects.sources import Upload, parse_source
from recsys.objects.store import ObjectStore
from recsys.registry.rate_limits import MemoryBuckets
from recsys.registry.records import JobState
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api.jobs import FindPosition
from recsys_api.routes.service import ReadinessCheck
from recsys_local.console import SignInLinks, create_sign_in_router
from recsys_local.metrics.exposition import create_metrics_router
from recsys_local.metrics.process_metrics import ProcessMetrics
from recsys_local.metrics.service_metrics import ServiceMetrics

_UPLOAD_PATHS: Final = frozenset({"/v1/train", "/v1/validate", "/v1/uploads", "/v1/items", "/local/uploads"})


def create_app(
    registry: Registry,
    store: ObjectStore,
    settings: Settings,
    *,
    readiness_checks: Sequence[ReadinessCheck] = (),
    check_space: ReadinessCheck = lambda: None,
    find_position: FindPosition = lambda _job_id: None,
    metrics: ServiceMetrics | None = None,
    sign_in_links: SignInLinks | None = None,
) -> FastAPI:
    """Return the app that serves every route of the local service.

    Parameters
    ----------
    registry, store
        The registry and the object store that the routes read and write.
    settings
        Settings of the service.
    readiness_checks
        Checks of `/health/ready` in addition to reading from the registry and the store.
    check_space
        Function that is called before an upload is read. It raises `NotReady` if the disk is almost full.
    find_position
        Function that returns the position of a job in the queue.
    metrics
        Metrics that are recorded while requests are handled. `GET /metrics` returns them if `metrics.is_route` is True.
    sign_in_links
        Sign-in links to the console. If None, the app has no route for sign-in links.
    """

    async def reject_upload_without_space(request: Request) -> None:
        if request.method in ("POST", "PUT", "PATCH") and request.url.path in _UPLOAD_PATHS:
            check_space()

    guarded = [Depends(reject_upload_without_space)]
    app = FastAPI(title="recsys", openapi_url=None, docs_url=None, redoc_url=None)
    process = metrics.process if metrics else ProcessMetrics(CollectorRegistry())
    origins = parse_origins(settings.cors_origins)
    problems.install(app, on_request_end=process.record_request, origins=origins)
    buckets = MemoryBuckets()
    api_router = recsys_api.app.create_router(
        registry,
        store,
        settings,
        readiness_checks=readiness_checks,
        find_position=find_position,
        recommendation_buckets=buckets,
    )
    app.include_router(api_router, dependencies=guarded)
    recommend_router = recsys_recommend.app.create_router(
        registry, store, settings, count_metric=process.count, record_detail=process.record_detail, buckets=buckets
    )
    app.include_router(recommend_router)
    if metrics and metrics.is_route:
        app.include_router(create_metrics_router(metrics.registry))
    app.include_router(_create_upload_router(registry, store, settings), dependencies=guarded)
    app.include_router(create_sign_in_router(sign_in_links))
    return app


def answer_on_shutdown(app: ASGIApp) -> ASGIApp:
    """Wrap an app so that requests cancelled at shutdown get status 503 and are not logged as failures."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            context = request_context(scope)
            if context.status is None:
                shutdown = Unavailable(
                    "The service is shutting down.", hint="Retry when the service has started again."
                )
                await problems.respond(context, shutdown.to_problem(), 503)(scope, receive, send)

    return wrapped


def _create_upload_router(registry: Registry, store: ObjectStore, settings: Settings) -> APIRouter:
    """Create the router for `POST /local/uploads`, which accepts the form that `POST /v1/uploads` returned.

    The route replaces the presigned POST of S3. The job id in the object name is the credential, because it cannot
    be guessed and is valid only while the job is queued.
    """
    router = APIRouter()

    @router.post("/local/uploads", status_code=204, include_in_schema=False)
    async def upload(request: Request) -> Response:
        context = request_context(request.scope)
        context.max_body_bytes = settings.max_upload_bytes + MULTIPART_FRAMING_BYTES
        async with request.form(max_files=1, max_fields=1, max_part_size=1024) as form:
            name, file = form.get("name"), form.get("file")
            if not isinstance(name, str) or not isinstance(file, UploadFile):
                raise InvalidRequest(
                    "Expected a form with the field `name`, followed by a file named `file`.",
                    hint="Send every member of `fields` as POST /v1/uploads returned it, then file=@orders.csv.",
                )
            await run_in_threadpool(_check_announced, registry, name)
            await run_in_threadpool(store.create, name, file.file)
        return Response(status_code=204)

    return router


def _check_announced(registry: Registry, name: str) -> None:
    """Raise `JobNotFound` if no queued job expects an object with this name."""
    unannounced = JobNotFound("No queued job expects this file.", hint="Create a job with POST /v1/uploads first.")
    source = parse_source(name)
    if not isinstance(source, Upload):
        raise unannounced
    try:
        job = registry.get_job(source.job_id)
    except JobNotFound:
        raise unannounced from None
    if job.object_name != name or job.state is not JobState.QUEUED:
        raise unannounced
