"""The OpenAPI document of the whole service: `python -m recsys_local.openapi` writes `recsys/openapi.json`.

The function `api` serves the file. It cannot make it: half of the routes are the function `recommend`'s.
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
from recsys.settings import Settings
from recsys_recommend.bodies import BODIES

PATH: Final = Path(recsys.__file__).parent / "openapi.json"

_PROBLEM: Final[dict[str, Any]] = {
    "title": "Problem",
    "description": "What went wrong, and the mend (RFC 9457). Some routes add members.",
    "type": "object",
    "properties": {
        "type": {"type": "string", "description": "urn:recsys:problem:<code>"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "request_id": {"type": "string"},
        "hint": {"type": "string"},
        "errors": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "line": {"type": "integer", "description": "Line of the CSV; its header is line 1."},
                    "pointer": {"type": "string", "description": "JSON pointer into the request's body."},
                    "code": {"type": "string"},
                    "detail": {"type": "string"},
                },
                "required": ["code", "detail"],
            },
        },
    },
    "required": ["type", "title", "status", "detail", "request_id"],
}


def document() -> dict[str, Any]:
    """Every route of both functions."""
    app = FastAPI(
        title="recsys",
        version=version("recsys"),
        description="A recommendation model as a service: a CSV in, an API key out, NeuMF behind it.",
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    # Routes are described, never called.
    no_registry, no_store = cast("Registry", None), cast("ObjectStore", None)
    for create_router in (recsys_api.app.create_router, recsys_recommend.app.create_router):
        app.include_router(create_router(no_registry, no_store, Settings()))
    described: dict[str, Any] = app.openapi()
    _describe_bodies(described)
    _describe_problems(described)
    return described


def _describe_bodies(described: dict[str, Any]) -> None:
    """Say what the function `recommend` answers, whose routes do not."""
    schemas = described["components"]["schemas"]
    for (method, path), body in BODIES.items():
        schema = body.model_json_schema(ref_template="#/components/schemas/{model}", mode="serialization")
        schemas |= schema.pop("$defs", {}) | {body.__name__: schema}
        content = described["paths"][path][method]["responses"]["200"]["content"]
        content["application/json"] = {"schema": {"$ref": f"#/components/schemas/{body.__name__}"}}


def _describe_problems(described: dict[str, Any]) -> None:
    """Put our problem where the framework, by itself, says how it would answer a bad request."""
    schemas = described["components"]["schemas"]
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    schemas["Problem"] = _PROBLEM
    for operation in [operation for path in described["paths"].values() for operation in path.values()]:
        if "HTTPValidationError" in json.dumps(operation["responses"].get("422", {})):
            del operation["responses"]["422"]


def text() -> str:
    """The file's content."""
    return json.dumps(document(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PATH.write_text(text(), "utf-8")
