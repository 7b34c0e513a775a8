"""Routes that accept training data and report on training jobs."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from recsys.file_options import OPTION_TEXTS, FileOptions
from recsys.http.middleware import request_context
from recsys.http.problems import documented, respond
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose, JobState
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api import jobs
from recsys_api.routes.waiting import waited
from recsys_api.schemas import (
    FileValidated,
    JobAccepted,
    JobBody,
    ModelTrained,
    TrainingEnded,
    UploadOffered,
    UploadRequest,
)
from recsys_api.training import UPLOAD_VALID_S, Accepted, Training
from recsys_api.uploads import RAW_TYPES, received

_NO_STORE: Final = {"Cache-Control": "no-store"}  # a cache must not keep a response that contains a key
_RETRY_AFTER: Final = {"Retry-After": "2"}
_FILE: Final = {
    "type": "string",
    "format": "binary",
    "minLength": 1,
    "description": "The CSV or Parquet file.",
}
_KEY_IS_OPTIONAL: Final[dict[str, Any]] = {"security": [{}]}
_TRAIN_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "A CSV or Parquet file with a column for the user and one for the item, and optionally columns "
        "for the score and the time. The file can be compressed with gzip, zstd or zip. In a multipart form, options "
        "can be sent as additional parts.",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "file": _FILE,
                        **{name: {"type": "string", "description": text} for name, text in OPTION_TEXTS.items()},
                    },
                    "required": ["file"],
                    "additionalProperties": False,
                },
            },
            **{media_type: {"schema": _FILE} for media_type in RAW_TYPES},
        },
    }
}
_IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        json_schema_extra={"pattern": "^[!-~]{1,255}$"},  # checked by `Training`, whose error says how to fix the value
        description="Makes retries safe, because repeated requests with the same value, file and options share one "
        "job. The value has 1 to 255 visible ASCII characters, and at least 16 without an API key. A UUID is "
        "recommended.",
    ),
]
# This parameter only documents the header. The route reads the header itself, because a request can contain it several
# times.
_Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`wait=N` delays the response for up to N seconds, until the training has finished (RFC 7240). The "
        "server can shorten the wait; `Preference-Applied` states the limit that was used.",
    ),
]


def file_options(  # noqa: PLR0913, PLR0917  # one parameter per option, as in FileOptions
    user: Annotated[str | None, Query(description=OPTION_TEXTS["user"])] = None,
    item: Annotated[str | None, Query(description=OPTION_TEXTS["item"])] = None,
    time: Annotated[str | None, Query(description=OPTION_TEXTS["time"])] = None,
    score: Annotated[str | None, Query(description=OPTION_TEXTS["score"])] = None,
    delimiter: Annotated[str | None, Query(description=OPTION_TEXTS["delimiter"])] = None,
    charset: Annotated[str | None, Query(description=OPTION_TEXTS["charset"])] = None,
    decimal: Annotated[str | None, Query(description=OPTION_TEXTS["decimal"])] = None,
    time_format: Annotated[str | None, Query(description=OPTION_TEXTS["time_format"])] = None,
    min_score: Annotated[str | None, Query(description=OPTION_TEXTS["min_score"])] = None,
    exclude_items: Annotated[str | None, Query(description=OPTION_TEXTS["exclude_items"])] = None,
    event: Annotated[str | None, Query(description=OPTION_TEXTS["event"])] = None,
    events: Annotated[str | None, Query(description=OPTION_TEXTS["events"])] = None,
    force: Annotated[str | None, Query(description=OPTION_TEXTS["force"])] = None,
    mode: Annotated[str | None, Query(description=OPTION_TEXTS["mode"])] = None,
) -> dict[str, str]:
    """Return the options in the query string by name, without checking their values (see `FileOptions.of`)."""
    return {name: value for name, value in locals().items() if value is not None}


def create_training_router(
    registry: Registry,
    training: Training,
    settings: Settings,
    *,
    required_key: Callable[..., KeyRecord],
    optional_key: Callable[..., KeyRecord | None],
    find_position: jobs.FindPosition,
) -> APIRouter:
    """Create the router for `POST /v1/train`, `/v1/validate`, `/v1/uploads` and `GET /v1/jobs/{job_id}`."""
    router = APIRouter(tags=["Training"])

    async def accept_file(
        request: Request,
        key: KeyRecord | None,
        query_options: dict[str, str],
        idempotency_key: str | None,
        purpose: JobPurpose,
    ) -> Response:
        """Queue a job for the file in the body, and wait for the job if the `Prefer` header requests a wait."""
        async with received(request, max_bytes=settings.max_request_bytes, query_options=query_options) as file:
            accepted = await run_in_threadpool(
                training.accept, file, key=key, idempotency_key=idempotency_key, purpose=purpose
            )
        job, headers = await waited(request, registry, accepted.job, max_wait_s=settings.max_wait_s)
        return _outcome(request, Accepted(job, accepted.api_key), headers) if headers else _accepted(accepted, {})

    @router.post(
        "/v1/train",
        summary="Train a model",
        status_code=202,
        response_model=JobAccepted,
        response_description="The training was queued. `Location` is the address of its job.",
        responses={
            200: {
                "model": TrainingEnded,
                "description": "The training ended during the wait without a new current version. Either its version "
                "is held, or newer data superseded the training.",
            },
            201: {"model": ModelTrained, "description": "The training succeeded during the wait."},
            **documented(
                *(401, 403, 409, 413, 415, 422, 429, 503),
                descriptions={
                    409: "The key that this `Idempotency-Key` created has been rotated or revoked.",
                    413: "The file exceeds the limit of this route. Use `POST /v1/uploads` instead.",
                    422: "The request is not valid, or the training failed during the wait. See `errors`.",
                },
            ),
        },
        openapi_extra=_TRAIN_BODY | _KEY_IS_OPTIONAL,
    )
    async def train_model(
        request: Request,
        key: Annotated[KeyRecord | None, Depends(optional_key)],
        query_options: Annotated[dict[str, str], Depends(file_options)],
        idempotency_key: _IdempotencyKey = None,
        _prefer: _Prefer = None,
    ) -> Response:
        """Upload interactions and train a model on them.

        By default, the model is trained on this file alone. With `mode=append`, the file is added to the data of the
        current version. Interactions that this data already contains are not counted twice.

        Without an API key, the response contains a new key, which is shown only once. The new key can be used for
        recommendations as soon as its first model is published. With an API key, that key's model is retrained, and the
        current version serves requests until the new one is published.

        A version that compares badly with the current one is held, which means that it does not serve requests until it
        is activated. `force=true` publishes such a version at once.

        Training takes seconds to minutes. Poll the job at `Location`, or send `Prefer: wait=N`.
        """
        return await accept_file(request, key, query_options, idempotency_key, JobPurpose.TRAIN)

    @router.post(
        "/v1/validate",
        summary="Validate a file",
        status_code=202,
        response_model=JobAccepted,
        response_description="The validation was queued. `Location` is the address of its job.",
        responses={
            200: {"model": FileValidated, "description": "The validation ended during the wait."},
            **documented(
                *(401, 403, 409, 413, 415, 422, 429, 503),
                descriptions={
                    409: "The key that this `Idempotency-Key` created has been rotated or revoked.",
                    413: "The file exceeds the limit of this route. Use `POST /v1/uploads` instead.",
                    422: "The request is not valid, or no model can be trained on the file. See `errors`.",
                },
            ),
        },
        openapi_extra=_TRAIN_BODY | _KEY_IS_OPTIONAL,
    )
    async def validate_file(
        request: Request,
        key: Annotated[KeyRecord | None, Depends(optional_key)],
        query_options: Annotated[dict[str, str], Depends(file_options)],
        idempotency_key: _IdempotencyKey = None,
        _prefer: _Prefer = None,
    ) -> Response:
        """Check a file without training on it.

        The body, options and keys are the same as for `POST /v1/train`. The report of the job describes how the file
        was interpreted, which lines were skipped or are bad, what quality can be expected, and how to improve the
        data. No version is published.
        """
        return await accept_file(request, key, query_options, idempotency_key, JobPurpose.VALIDATE)

    @router.post(
        "/v1/uploads",
        summary="Create an upload form",
        status_code=201,
        response_model=UploadOffered,
        response_description="The form. `Location` is the address of its job.",
        responses=documented(401, 403, 413, 422, 429, 503),
        openapi_extra=_KEY_IS_OPTIONAL,
    )
    def create_upload_form(
        key: Annotated[KeyRecord | None, Depends(optional_key)], body: UploadRequest | None = None
    ) -> Response:
        """Create a form for uploading a large file directly to the object store.

        Send a multipart `POST` to `url` with all `fields` and then the file as the part `file`. The job starts when
        the upload is complete. As with `POST /v1/train`, a request without an API key creates a new key.
        """
        body = body or UploadRequest()
        options = FileOptions.of(body.model_dump(exclude={"gzip", "purpose"}))
        accepted, form = training.offer_upload(key=key, gzipped=body.gzip, options=options, purpose=body.purpose)
        offered = UploadOffered(
            **_members(accepted),
            url=form.url,
            fields=form.fields,
            max_bytes=settings.max_upload_bytes,
            expires_in_s=UPLOAD_VALID_S,
        )
        headers = {"Location": _location(accepted.job), **_NO_STORE}
        return JSONResponse(offered.model_dump(), 201, headers)

    @router.get(
        "/v1/jobs/{job_id}",
        summary="Retrieve a job",
        response_model=JobBody,
        response_description="The job. `Retry-After` is set until the status of the job is final.",
        responses=documented(
            401, 403, 404, 503, descriptions={404: "The job does not exist or belongs to another key."}
        ),
    )
    def get_job(
        job_id: Annotated[str, Path(description="`job_id` from the response to the request that created the job.")],
        key: Annotated[KeyRecord, Depends(required_key)],
    ) -> Response:
        """Return the status and the progress of a job.

        After the end of the job, the response also contains the metrics or the problem.
        """
        found = jobs.job_of_key(registry, key, job_id)
        queued = find_position(job_id) if found.state is JobState.QUEUED else None
        body = JobBody.of(found, position=queued.position, wait_s=queued.wait_s) if queued else JobBody.of(found)
        return JSONResponse(body.model_dump(), headers={} if found.state.is_final else _RETRY_AFTER)

    return router


def _outcome(request: Request, accepted: Accepted, headers: dict[str, str]) -> Response:
    """Build the response after a wait, with status 202 if the job is not final, and otherwise with its outcome."""
    job = accepted.job
    headers |= {"Location": _location(job), **_NO_STORE}
    match job.state:
        case JobState.SUCCEEDED if job.purpose is JobPurpose.VALIDATE:
            return JSONResponse(FileValidated(**_members(accepted), report=job.report).model_dump(), 200, headers)
        case JobState.SUCCEEDED:
            trained = ModelTrained(
                **_members(accepted), model_version=job.version, metrics=job.metrics, report=job.report
            )
            return JSONResponse(trained.model_dump(), 201, headers)
        case JobState.FAILED if job.problem is not None:
            # The response includes the new API key, because the client can use it to upload a corrected file.
            status = 500 if job.problem.code == "internal-error" else 422
            members = _members(accepted)
            del members["status"]  # the status of the job; in a problem document, `status` is the HTTP status
            return respond(request_context(request.scope), job.problem, status, headers=headers, members=members)
        case JobState.SUPERSEDED | JobState.HELD:
            ended = TrainingEnded(
                **_members(accepted),
                model_version=job.version,
                metrics=job.metrics,
                report=job.report,
                held_reasons=job.held_reasons or [],
                comparison=job.comparison,
            )
            return JSONResponse(ended.model_dump(), 200, headers)
        case _:
            return _accepted(accepted, headers)


def _accepted(accepted: Accepted, headers: dict[str, str]) -> Response:
    headers = {**headers, "Location": _location(accepted.job), **_RETRY_AFTER, **_NO_STORE}
    return JSONResponse(_members(accepted), 202, headers)


def _members(accepted: Accepted) -> dict[str, Any]:
    job = accepted.job
    return JobAccepted(
        job_id=job.job_id,
        purpose=job.purpose,
        key_id=job.key_id,
        api_key=str(accepted.api_key) if accepted.api_key else None,
        status=job.state,
        mode=job.mode,
        location=_location(job),
    ).model_dump()


def _location(job: Job) -> str:
    return f"/v1/jobs/{job.job_id}"
