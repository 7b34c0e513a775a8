"""What the routes give, for the OpenAPI document alone.

`recsys_recommend.queries` makes the bodies; a cold start does not wait for models that nothing is checked by.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from pydantic import BaseModel

from recsys.model.recommender import Strategy


class RecommendedItem(BaseModel):
    """One item: rank from 1, score from 0 to 1."""

    item_id: str
    rank: int
    score: float


class RecommendationsBody(BaseModel):
    """Items, best first; fewer than asked for only when no more are left.

    `strategy` is `personal` for a user of the training data, `session` for anybody else with `recent_items` that the
    model knows, and `popular` where nothing is known.
    """

    user_id: str | None
    strategy: Strategy
    model_version: str
    items: list[RecommendedItem]


class BatchBody(BaseModel):
    """One answer for each query, in their order, all from one version of the model."""

    model_version: str
    results: list[RecommendationsBody]


class SimilarBody(BaseModel):
    """What goes with an item, best first: what somebody who had it alone would be recommended."""

    item_id: str
    model_version: str
    items: list[RecommendedItem]


class PopularBody(BaseModel):
    """What most users had; `score` is their share."""

    model_version: str
    items: list[RecommendedItem]


BODIES: Final[Mapping[tuple[str, str], type[BaseModel]]] = {
    ("post", "/v1/recommendations"): RecommendationsBody,
    ("post", "/v1/recommendations/batch"): BatchBody,
    ("get", "/v1/items/{item_id}/similar"): SimilarBody,
    ("get", "/v1/popular"): PopularBody,
}
"""The body of each route's 200, by method and path."""
