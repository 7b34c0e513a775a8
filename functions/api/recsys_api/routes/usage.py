"""Route for the limits and the storage of a key."""

# No `from __future__ import annotations`: FastAPI evaluates the routes' annotations, which name local variables.
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends

from recsys.http.problems import documented
from recsys.objects.store import ObjectStore
from recsys.registry.key_record import KeyRecord
from recsys.registry.registry import Registry
from recsys_api.usage import KeyLimits, UsageBody, usage_of


def create_usage_router(
    registry: Registry, store: ObjectStore, limits: KeyLimits, *, required_key: Callable[..., KeyRecord]
) -> APIRouter:
    """Create the router for `GET /v1/usage`."""
    router = APIRouter(tags=["Keys"])

    @router.get(
        "/v1/usage",
        summary="Retrieve the usage",
        response_description="The usage.",
        responses=documented(401, 403, 503),
    )
    def get_usage(key: Annotated[KeyRecord, Depends(required_key)]) -> UsageBody:
        """Return the rate limits of the key with their remaining requests, and the storage that the key's models use.

        This request itself is not rate-limited.
        """
        return usage_of(key.key_id, limits, registry, store)

    return router
