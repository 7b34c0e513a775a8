"""Both functions' routes in one app, and the address that upload forms of the directory store point to."""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes.
import asyncio

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.types import ASGIApp, Receive, Scope, Send

import recsys_api.app
import recsys_recommend.app
from recsys.errors import InvalidRequest, JobNotFound, Unavailable
from recsys.http import problems
from recsys.http.middleware import MULTIPART_FRAMING_BYTES, request_context
from recsys.objects import layout
from recsys.objects.layout import Upload
from recsys.objects.store import ObjectStore
from recsys.registry.records import JobState
from recsys.registry.registry import Registry
from recsys.settings import Settings


def create_app(registry: Registry, store: ObjectStore, settings: Settings) -> FastAPI:
    """The whole service as one ASGI app."""
    app = FastAPI(title="recsys", openapi_url=None, docs_url=None, redoc_url=None)
    problems.install(app)
    app.include_router(recsys_api.app.create_router(registry, store, settings))
    app.include_router(recsys_recommend.app.create_router(registry, store, settings))
    app.include_router(_create_upload_router(registry, store, settings))
    return app


def answer_on_shutdown(app: ASGIApp) -> ASGIApp:
    """`app`, where a request that the server cancels because it ends is answered, not logged as a failure."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            context = request_context(scope)
            if context.status is None:
                ending = Unavailable("The service is ending.", hint="Send the request again when it runs again.")
                await problems.respond(context, ending.to_problem(), 503)(scope, receive, send)

    return wrapped


def _create_upload_router(registry: Registry, store: ObjectStore, settings: Settings) -> APIRouter:
    """`POST /local/uploads`: what S3 does with a presigned POST. Whoever knows a queued job's id may send its file."""
    router = APIRouter()

    @router.post("/local/uploads", status_code=204, include_in_schema=False)
    async def upload(request: Request) -> Response:
        context = request_context(request.scope)
        context.max_body_bytes = settings.max_upload_bytes + MULTIPART_FRAMING_BYTES
        async with request.form(max_files=1, max_fields=1, max_part_size=1024) as form:
            name, file = form.get("name"), form.get("file")
            if not isinstance(name, str) or not isinstance(file, UploadFile):
                raise InvalidRequest(
                    "Expected the form's field name, then a file named file.",
                    hint="Send every member of `fields` as POST /v1/uploads returned them, then file=@orders.csv.",
                )
            await run_in_threadpool(_check_announced, registry, name)
            await run_in_threadpool(store.create, name, file.file)
        return Response(status_code=204)

    return router


def _check_announced(registry: Registry, name: str) -> None:
    unannounced = JobNotFound("No job waits for this file.", hint="POST /v1/uploads announces one.")
    source = layout.parse_source(name)
    if not isinstance(source, Upload):
        raise unannounced
    try:
        job = registry.get_job(source.job_id)
    except JobNotFound:
        raise unannounced from None
    if job.object_name != name or job.state is not JobState.QUEUED:
        raise unannounced
