"""Compute the remaining requests and the storage of a key, for `GET /v1/usage`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, Field

from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.rate_limits import Buckets, RateLimit
from recsys.registry.registry import Registry

KeyLimits = Sequence[tuple[RateLimit, Buckets]]
"""The rate limits that apply to each key. Each limit is paired with the buckets in which requests are counted."""


class LimitBody(BaseModel):
    """A rate limit of the key."""

    name: Annotated[str, Field(description="`trainings` or `recommendations`, as in the header `RateLimit`.")]
    limit: Annotated[int, Field(description="Requests per day (`trainings`) or per minute (`recommendations`).")]
    remaining: Annotated[int, Field(description="Number of requests that are left.")]
    reset_s: Annotated[
        int,
        Field(
            description="Seconds until the whole limit is available again or, if no request is left, until the next "
            "request is accepted."
        ),
    ]


class UsageBody(BaseModel):
    """Limits and storage of an API key."""

    key_id: Annotated[str, Field(description="Public id of the API key.")]
    limits: Annotated[list[LimitBody], Field(description="Limits that apply to the key. Disabled limits are omitted.")]
    versions: Annotated[int, Field(description="Number of stored model versions, including held versions.")]
    stored_bytes: Annotated[int, Field(description="Size of the key's model files in bytes.")]


def usage_of(key_id: str, limits: KeyLimits, registry: Registry, store: ObjectStore) -> UsageBody:
    """Return the rate limits and the storage of a key. The call does not count as a request.

    Raises
    ------
    Unavailable
        The registry or the object store did not respond.
    """
    states = [(limit, buckets.take(limit, key_id, 0)) for limit, buckets in limits]
    return UsageBody(
        key_id=key_id,
        limits=[
            LimitBody(name=limit.name, limit=limit.quota, remaining=quota.remaining, reset_s=quota.reset_s)
            for limit, quota in states
        ],
        versions=len(registry.list_versions(key_id)),
        stored_bytes=sum(info.size_bytes for info in store.list(f"{layout.MODELS}{key_id}/")),
    )
