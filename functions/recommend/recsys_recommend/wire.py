"""What the routes take and give, as JSON. Requests are strict: no unknown members, no numbers for ids."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from recsys.ranking import Strategy

MAX_N = 1000
MAX_EXCLUDED = 10_000


class RecommendationRequest(BaseModel):
    """Which user, how many items, and which ones not."""

    model_config = ConfigDict(extra="forbid", strict=True)

    user_id: Annotated[str, Field(min_length=1, description="The id as it stands in the CSV, byte for byte.")]
    n: Annotated[int, Field(ge=1, le=MAX_N)] = 10
    exclude_seen: Annotated[bool, Field(description="Leave out what the user had in the training data.")] = True
    exclude_items: Annotated[list[str], Field(max_length=MAX_EXCLUDED, description="Leave these out too.")] = []


class RecommendedItem(BaseModel):
    """One item: rank from 1, score from 0 to 1."""

    item_id: str
    rank: int
    score: float


class RecommendationsBody(BaseModel):
    """Items, best first; fewer than asked for only when no more are left.

    `strategy` is `personal` for a user of the training data, and `popular` for everybody else.
    """

    user_id: str
    strategy: Strategy
    model_version: str
    items: list[RecommendedItem]
