"""Generate the OpenAPI document of the functions `api` and `recommend`.

`python -m recsys_local.openapi` writes the document to `recsys/openapi.json`, and the function `api` serves this file.
`api` cannot generate the document itself, because half of the routes belong to `recommend`.
"""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, cast

from fastapi import FastAPI

import recsys
import recsys_api.app
import recsys_recommend.app
from recsys.objects.store import ObjectStore
from recsys.registry.registry import Registry
from recsys.registry.table import Table
from recsys.settings import Settings
from recsys_recommend.response_schemas import RESPONSE_MODELS

PATH: Final = Path(recsys.__file__).parent / "openapi.json"

_DESCRIPTION: Final = """\
A recommendation model as a service: upload a CSV of interactions, receive an API key, and request recommendations.

Send the API key in the `X-API-Key` header. Each key owns one model, which is retrained when new data arrives.

Errors are problem documents ([RFC 9457](https://www.rfc-editor.org/rfc/rfc9457)) with the media type
`application/problem+json`. `type` identifies the error, and `hint` says how to fix it. Include `request_id`, which is
also in the `X-Request-Id` header of each response, when you report a problem.
"""

_TAGS: Final = [
    {"name": "Training", "description": "Upload interactions, train a model and follow the training job."},
    {"name": "Recommendations", "description": "Request ranked items from the key's current model."},
    {
        "name": "Items",
        "description": "Keep a catalogue of the items, with titles, categories, prices and availability.",
    },
    {
        "name": "Models",
        "description": "List the published and held versions of the key's model, pin versions, and roll back or "
        "forward.",
    },
    {"name": "Users", "description": "Erase the data of a user."},
    {"name": "Keys", "description": "Inspect, rotate, revoke, claim and audit API keys."},
    {"name": "Health", "description": "Check the state of the service. These routes need no API key."},
]

_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "A problem document (RFC 9457). Some routes add further members.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "Identifier of the error, `urn:recsys:problem:<code>`."},
        "title": {"type": "string", "description": "Summary of the error, the same for each occurrence."},
        "status": {"type": "integer", "description": "HTTP status of the response."},
        "detail": {"type": "string", "description": "Explanation of this occurrence."},
        "request_id": {"type": "string", "description": "Id of the request, as in the service's log."},
        "hint": {"type": "string", "description": "How to fix the error."},
        "errors": {
            "type": "array",
            "description": "The errors in the parts of the input, if the request failed because of them.",
            "items": {
                "type": "object",
                "properties": {
                    "line": {
                        "type": "integer",
                        "description": "Line of the file, counted from 1. In a Parquet file or a JSON array, the "
                        "number of the row or element.",
                    },
                    "column": {"type": "string", "description": "Name of the column."},
                    "pointer": {"type": "string", "description": "JSON pointer into the request body (RFC 6901)."},
                    "code": {"type": "string", "description": "Identifier of the error."},
                    "detail": {"type": "string", "description": "Explanation of the error."},
                },
                "required": ["code", "detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "request_id"],
}


def document() -> dict[str, Any]:
    """Return the OpenAPI document with every route of the functions `api` and `recommend`."""
    app = FastAPI(
        title="recsys",
        version=version("recsys"),
        summary="A recommendation model as a service.",
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        generate_unique_id_function=lambda route: route.name,  # client generators derive method names from it
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    # The routes are described and never called, so they need no storage.
    no_registry, no_store = Registry(cast("Table", None)), cast("ObjectStore", None)
    for create_router in (recsys_api.app.create_router, recsys_recommend.app.create_router):
        app.include_router(create_router(no_registry, no_store, Settings()))
    generated: dict[str, Any] = app.openapi()
    _add_response_models(generated)
    _add_problems(generated)
    return generated


def _add_response_models(document: dict[str, Any]) -> None:
    """Add the response bodies of the function `recommend`, whose routes do not declare them."""
    schemas = document["components"]["schemas"]
    for (method, path), model in RESPONSE_MODELS.items():
        schema = model.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
        content = document["paths"][path][method]["responses"]["200"]["content"]
        content["application/json"] = {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}


def _add_problems(document: dict[str, Any]) -> None:
    """Replace the schema of FastAPI's validation errors by the schema of the problem documents."""
    schemas = document["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    for operation in [operation for path in document["paths"].values() for operation in path.values()]:
        if "HTTPValidationError" in json.dumps(operation["responses"].get("422", {})):
            del operation["responses"]["422"]


def text() -> str:
    """Return the OpenAPI document as formatted JSON, which is the content of `openapi.json`."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), "utf-8")
