"""What the routes take, as JSON. Requests are strict: no unknown members, no numbers for ids."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MAX_N = 1000
MAX_RECENT = 200
MAX_EXCLUDED = 10_000
MAX_CANDIDATES = 10_000
MAX_BATCH = 1000
MAX_BATCH_ITEMS = 20_000
"""Of all of a batch's answers together: Lambda's answers take 6 MB."""

UserId = Annotated[str, Field(min_length=1, description="The id as it stands in the CSV, byte for byte.")]
RecentItems = Annotated[
    list[str],
    Field(
        max_length=MAX_RECENT, description="What the user had since the model was trained, or a basket; oldest first."
    ),
]
Count = Annotated[int, Field(ge=1, le=MAX_N, description="How many items.")]
ExcludeSeen = Annotated[bool, Field(description="Leave out what the user had, `recent_items` included.")]
ExcludedItems = Annotated[list[str], Field(max_length=MAX_EXCLUDED, description="Leave these out too.")]
Candidates = Annotated[list[str], Field(max_length=MAX_CANDIDATES, description="Rank only these.")]


class RecommendationRequest(BaseModel):
    """Who asks (a user, a basket, or a user with what they had since), for how many items, and for which ones not."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: UserId | None = None
    recent_items: RecentItems = []
    n: Count = 10
    exclude_seen: ExcludeSeen = True
    exclude_items: ExcludedItems = []
    candidates: Candidates | None = None


class BatchEntry(BaseModel):
    """One query of a batch; what it leaves out is as the batch says."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: UserId | None = None
    recent_items: RecentItems = []
    n: Count | None = None
    exclude_seen: ExcludeSeen | None = None
    exclude_items: ExcludedItems | None = None
    candidates: Candidates | None = None


class BatchRequest(BaseModel):
    """Many queries at once, and what holds for each that does not say otherwise."""

    model_config = ConfigDict(extra="forbid", strict=True)

    requests: Annotated[list[BatchEntry], Field(min_length=1, max_length=MAX_BATCH)]
    n: Count = 10
    exclude_seen: ExcludeSeen = True
    exclude_items: ExcludedItems = []
    candidates: Candidates | None = None


class ListQuery(BaseModel):
    """How long a list that belongs to no user is, and what it leaves out."""

    model_config = ConfigDict(extra="forbid")

    n: Count = 10
    exclude_items: ExcludedItems = []
