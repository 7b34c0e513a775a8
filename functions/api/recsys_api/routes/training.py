"""Routes that take data and say what became of it."""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes, which name what is local here.
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from recsys.http.middleware import request_context
from recsys.http.problems import documented, respond
from recsys.registry.records import Job, JobState, KeyRecord
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api import jobs, prefer
from recsys_api.schemas import JobAccepted, JobBody, ModelTrained, UploadOffered, UploadRequest
from recsys_api.training import UPLOAD_VALID_S, Accepted, Training
from recsys_api.uploads import RAW_TYPES, received

NO_STORE: Final = {"Cache-Control": "no-store"}
"""For answers that hold a key."""

_RETRY_AFTER: Final = {"Retry-After": "2"}
_FILE: Final = {"type": "string", "format": "binary"}
_KEY_IS_OPTIONAL: Final[dict[str, Any]] = {"security": [{}]}
_TRAIN_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "A CSV with the columns user_id,item_id and, if there are any, interaction_score,timestamp; "
        "plain or gzip.",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": _FILE}, "required": ["file"]},
            },
            **{media_type: {"schema": _FILE} for media_type in RAW_TYPES},
        },
    }
}


def create_training_router(
    registry: Registry,
    training: Training,
    settings: Settings,
    *,
    key_of: Callable[..., KeyRecord],
    optional_key_of: Callable[..., KeyRecord | None],
) -> APIRouter:
    """`POST /v1/train`, `POST /v1/uploads`, `GET /v1/jobs/{job_id}`."""
    router = APIRouter(tags=["training"])

    @router.post(
        "/v1/train",
        status_code=202,
        response_model=JobAccepted,
        responses={
            200: {"model": JobAccepted, "description": "It ended within the wait, superseded by newer data."},
            201: {"model": ModelTrained, "description": "It succeeded within the wait."},
            **documented(401, 409, 413, 415, 422, 503),
        },
        openapi_extra=_TRAIN_BODY | _KEY_IS_OPTIONAL,
    )
    async def train(
        request: Request,
        key: Annotated[KeyRecord | None, Depends(optional_key_of)],
        idempotency_key: Annotated[str | None, Header(alias="Idempotency-Key")] = None,
        prefer_headers: Annotated[list[str] | None, Header(alias="Prefer")] = None,
    ) -> Response:
        """Train a model on a CSV. With a key, that key's model is trained again; without, a new key comes back."""
        async with received(request, max_bytes=settings.max_request_bytes) as file:
            accepted = await run_in_threadpool(training.accept, file, key=key, idempotency_key=idempotency_key)
        context = request_context(request.scope)
        context.key_id, context.job_id = accepted.job.key_id, accepted.job.job_id
        wait_s = prefer.wait_s(prefer_headers or ())
        if not wait_s:
            return _accepted(accepted, {})
        wait_s = min(wait_s, settings.max_wait_s)
        # Storing the file is part of the wait: API Gateway counts from the start of the request.
        job = await jobs.wait_until_final(registry, accepted.job, timeout_s=wait_s - context.elapsed_s)
        return _outcome(request, Accepted(job, accepted.api_key), {"Preference-Applied": f"wait={wait_s}"})

    @router.post(
        "/v1/uploads",
        status_code=201,
        response_model=UploadOffered,
        responses=documented(401, 413, 422, 503),
        openapi_extra=_KEY_IS_OPTIONAL,
    )
    def offer_upload(
        key: Annotated[KeyRecord | None, Depends(optional_key_of)], body: UploadRequest | None = None
    ) -> Response:
        """An address that takes a large CSV; training starts when the file is there."""
        accepted, form = training.offer_upload(key=key, gzipped=body.gzip if body else False)
        offered = UploadOffered(
            **_members(accepted),
            url=form.url,
            fields=form.fields,
            max_bytes=settings.max_upload_bytes,
            expires_in_s=UPLOAD_VALID_S,
        )
        headers = {"Location": _location(accepted.job), **NO_STORE}
        return JSONResponse(offered.model_dump(), 201, headers)

    @router.get("/v1/jobs/{job_id}", response_model=JobBody, responses=documented(401, 404, 503))
    def job(job_id: str, key: Annotated[KeyRecord, Depends(key_of)]) -> Response:
        """How far a training is, and what became of it."""
        found = jobs.job_of_key(registry, key, job_id)
        return JSONResponse(JobBody.of(found).model_dump(), headers={} if found.state.is_final else _RETRY_AFTER)

    return router


def _outcome(request: Request, accepted: Accepted, headers: dict[str, str]) -> Response:
    """The answer after a wait: what became of the job, or that it goes on."""
    job = accepted.job
    headers |= {"Location": _location(job), **NO_STORE}
    match job.state:
        case JobState.SUCCEEDED:
            trained = ModelTrained(
                **_members(accepted), model_version=job.version, metrics=job.metrics, report=job.report
            )
            return JSONResponse(trained.model_dump(), 201, headers)
        case JobState.FAILED if job.problem is not None:
            # The key is told all the same: it takes the next, better file.
            status = 500 if job.problem.code == "internal-error" else 422
            members = _members(accepted)
            del members["status"]  # of the job: here the word means the HTTP status
            return respond(request_context(request.scope), job.problem, status, headers=headers, members=members)
        case JobState.SUPERSEDED:
            return JSONResponse(_members(accepted), 200, headers)
        case _:
            return _accepted(accepted, headers)


def _accepted(accepted: Accepted, headers: dict[str, str]) -> Response:
    headers = {**headers, "Location": _location(accepted.job), **_RETRY_AFTER, **NO_STORE}
    return JSONResponse(_members(accepted), 202, headers)


def _members(accepted: Accepted) -> dict[str, Any]:
    job = accepted.job
    return JobAccepted(
        job_id=job.job_id,
        key_id=job.key_id,
        api_key=str(accepted.api_key) if accepted.api_key else None,
        status=job.state,
        location=_location(job),
    ).model_dump()


def _location(job: Job) -> str:
    return f"/v1/jobs/{job.job_id}"
