"""Routes about a key and the versions of its model."""

# No `from __future__ import annotations`: FastAPI reads the annotations of routes, which name what is local here.
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Response

from recsys.clock import Clock
from recsys.http.problems import documented
from recsys.registry.records import KeyRecord
from recsys.registry.registry import Registry
from recsys_api import keys
from recsys_api.schemas import ActivatedBody, ClaimRequest, KeyBody, KeyIssued, ModelsBody, RotateRequest


def create_key_router(
    registry: Registry,
    *,
    key_of: Callable[..., KeyRecord],
    current_key_of: Callable[..., KeyRecord],
    clock: Clock,
) -> APIRouter:
    """`/v1/key…` and `/v1/models…`; what changes a key for good takes `current_key_of`, not a rotated-out key."""
    router = APIRouter()
    add_model_routes(router, registry, key_of, current_key_of)

    @router.get("/v1/key", tags=["keys"], responses=documented(401, 503))
    def describe_key(key: Annotated[KeyRecord, Depends(key_of)]) -> KeyBody:
        """What is known of this key, without its secret."""
        return KeyBody.of(key, now=clock())

    @router.post("/v1/key/rotate", tags=["keys"], responses=documented(401, 404, 413, 422, 503))
    def rotate_key(
        response: Response, key: Annotated[KeyRecord, Depends(current_key_of)], body: RotateRequest | None = None
    ) -> KeyIssued:
        """A new key for the same model; the one before works on for a while."""
        response.headers["Cache-Control"] = "no-store"
        api_key = keys.rotate(registry, key, overlap_s=(body or RotateRequest()).overlap_s)
        return KeyIssued(key_id=api_key.key_id, api_key=str(api_key))

    @router.delete("/v1/key", tags=["keys"], status_code=204, responses=documented(401, 404, 503))
    def revoke_key(key: Annotated[KeyRecord, Depends(current_key_of)]) -> None:
        """Make this key invalid for good."""
        registry.revoke_key(key.key_id)

    @router.post("/v1/key/claim", tags=["keys"], status_code=201, responses=documented(410, 413, 422, 503))
    def claim_key(response: Response, body: ClaimRequest) -> KeyIssued:
        """The key of a file that was dropped, for the token in its receipt; works once."""
        response.headers["Cache-Control"] = "no-store"
        api_key = keys.claim(registry, body.claim_token)
        return KeyIssued(key_id=api_key.key_id, api_key=str(api_key))

    return router


def add_model_routes(
    router: APIRouter,
    registry: Registry,
    key_of: Callable[..., KeyRecord],
    current_key_of: Callable[..., KeyRecord],
) -> None:
    """Add `GET /v1/models` and `POST /v1/models/{version}/activate`."""

    @router.get("/v1/models", tags=["models"], responses=documented(401, 503))
    def list_models(key: Annotated[KeyRecord, Depends(key_of)]) -> ModelsBody:
        """Every published version with its metrics, newest first, and which one answers."""
        return ModelsBody.of(key, registry.list_versions(key.key_id))

    @router.post("/v1/models/{version}/activate", tags=["models"], responses=documented(401, 404, 503))
    def activate_model(version: str, key: Annotated[KeyRecord, Depends(current_key_of)]) -> ActivatedBody:
        """Make a version the one that answers: roll back, or forward again."""
        changed = keys.activate(registry, key, version)
        return ActivatedBody(key_id=changed.key_id, current_version=changed.current_version)
