"""Routes that change the item catalogue of a key. The function `recommend` contains the routes that read it."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse

from recsys.clock import Clock
from recsys.file_options import OPTION_TEXTS
from recsys.http.middleware import request_context
from recsys.http.problems import documented, respond
from recsys.objects.store import ObjectStore
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobState
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api.catalogue import CatalogueMode, CatalogueUpdates
from recsys_api.key_schemas import KEY_REVOKED
from recsys_api.routes.waiting import waited
from recsys_api.schemas import JobBody
from recsys_api.uploads import RAW_TYPES, received

ITEM_TYPES: Final = ("application/json", "application/jsonl", "application/x-ndjson", *RAW_TYPES)
_FILE: Final = {
    "type": "string",
    "format": "binary",
    "minLength": 1,
    "description": "The items: CSV, JSON Lines, a JSON array of objects, or Parquet.",
}
_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "description": "Items with the column `item_id` and columns for attributes. The file can be compressed with "
        "gzip, zstd or zip. Its format is detected.",
        "content": {
            "multipart/form-data": {
                "schema": {"type": "object", "properties": {"file": _FILE}, "required": ["file"]},
            },
            **{media_type: {"schema": _FILE} for media_type in ITEM_TYPES},
        },
    }
}
_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"model": JobBody, "description": "The job succeeded or was superseded during the wait."},
    **documented(
        *(401, 403, 413, 415, 422, 503),
        descriptions={422: "The request is not valid, or the job failed during the wait. See `errors`."},
    ),
}
_Prefer = Annotated[
    str | None,
    Header(
        alias="Prefer",
        description="`wait=N` delays the response for up to N seconds, until the job has finished (RFC 7240). The "
        "server can shorten the wait; `Preference-Applied` states the limit that was used.",
    ),
]


def _item_options(
    item: Annotated[str | None, Query(description=OPTION_TEXTS["item"])] = None,
    delimiter: Annotated[str | None, Query(description=OPTION_TEXTS["delimiter"])] = None,
    charset: Annotated[str | None, Query(description=OPTION_TEXTS["charset"])] = None,
) -> dict[str, str]:
    """Return the options in the query string by name, without checking their values (see `FileOptions.of`)."""
    return {name: value for name, value in locals().items() if value is not None}


def create_item_router(
    registry: Registry,
    store: ObjectStore,
    settings: Settings,
    *,
    training_key: Callable[..., KeyRecord],
    current_key: Callable[..., KeyRecord],
    clock: Clock,
) -> APIRouter:
    """Create the router for `PUT`, `PATCH` and `DELETE /v1/items`.

    `DELETE` uses `current_key`, which rejects scoped keys and the previous secret of a rotated key. The other methods
    use `training_key`.
    """
    router = APIRouter(tags=["Items"])
    updates = CatalogueUpdates(registry, store, settings, clock)

    async def update(request: Request, key: KeyRecord, options: dict[str, str], mode: CatalogueMode) -> Response:
        max_bytes = settings.max_request_bytes
        async with received(request, max_bytes=max_bytes, query_options=options, raw_types=ITEM_TYPES) as file:
            job = await run_in_threadpool(updates.accept, file, key=key, mode=mode)
        job, headers = await waited(request, registry, job, max_wait_s=settings.max_wait_s)
        return _respond(request, job, headers)

    @router.put(
        "/v1/items",
        summary="Replace the item catalogue",
        status_code=202,
        response_model=JobBody,
        response_description="The update was queued. `Location` is the address of its job.",
        responses=_RESPONSES,
        openapi_extra=_BODY,
    )
    async def replace_items(
        request: Request,
        key: Annotated[KeyRecord, Depends(training_key)],
        options: Annotated[dict[str, str], Depends(_item_options)],
        _prefer: _Prefer = None,
    ) -> Response:
        """Upload the catalogue of the items, with titles, categories, prices, availability and any further columns.

        The new catalogue replaces the whole previous one within seconds. Until then, the previous one is used. The
        model is not retrained.
        """
        return await update(request, key, options, CatalogueMode.REPLACE)

    @router.patch(
        "/v1/items",
        summary="Update the item catalogue",
        status_code=202,
        response_model=JobBody,
        response_description="The update was queued. `Location` is the address of its job.",
        responses=_RESPONSES,
        openapi_extra=_BODY,
    )
    async def update_items(
        request: Request,
        key: Annotated[KeyRecord, Depends(training_key)],
        options: Annotated[dict[str, str], Depends(_item_options)],
        _prefer: _Prefer = None,
    ) -> Response:
        """Add items to the catalogue, or change some attributes of some items, such as prices and availability.

        Items and attributes that the file does not mention remain unchanged. In a CSV, a blank field leaves the
        attribute unchanged. In JSON, `null` deletes the attribute.
        """
        return await update(request, key, options, CatalogueMode.MERGE)

    @router.delete(
        "/v1/items",
        summary="Delete the item catalogue",
        status_code=204,
        response_description="The catalogue was deleted, or the key had none.",
        responses=documented(401, 403, 404, 503, descriptions={404: KEY_REVOKED}),
    )
    def delete_items(key: Annotated[KeyRecord, Depends(current_key)]) -> Response:
        """Delete the catalogue. Recommendations then contain no attributes, and can contain unavailable items again."""
        registry.delete_catalogue(key.key_id)
        return Response(status_code=204)

    return router


def _respond(request: Request, job: Job, headers: dict[str, str]) -> Response:
    """Build the response, with status 202 if the job is not final, and otherwise with the outcome of the job."""
    headers |= {"Location": f"/v1/jobs/{job.job_id}"}
    if job.state is JobState.FAILED and job.problem is not None:
        members = {"job_id": job.job_id, "report": job.report}
        return respond(request_context(request.scope), job.problem, 422, headers=headers, members=members)
    if not job.state.is_final:
        headers |= {"Retry-After": "1"}
    return JSONResponse(JobBody.of(job).model_dump(), 200 if job.state.is_final else 202, headers)
