"""Define the response bodies of the routes, for the OpenAPI document only.

The function `recommend` does not import this module, because Pydantic models lengthen a cold start. Instead,
`recsys_recommend.queries` builds the bodies as dictionaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, Field

from recsys.model.recommender import Strategy

_ModelVersion = Annotated[str, Field(description="Version of the model that computed the response.")]


class ReasonBody(BaseModel):
    """An item of the history that contributes to a recommendation."""

    item_id: Annotated[str, Field(description="Id of the item in the history.")]
    contribution: Annotated[
        float, Field(description="Contribution to the linear part of the recommended item's logit; always positive.")
    ]
    title: Annotated[str | None, Field(description="Title of the item. Present only if the catalogue has titles.")] = (
        None
    )


class RecommendedItem(BaseModel):
    """An item of a ranked list."""

    item_id: Annotated[str, Field(description="The item's id, exactly as in the training data.")]
    rank: Annotated[int, Field(ge=1, description="Position in the list, counted from 1.")]
    score: Annotated[float, Field(ge=0, le=1, description="The model's score for the item.")]
    attributes: Annotated[
        dict[str, Any] | None,
        Field(
            description="The attributes that `fields` requests; null for an attribute without a value. Present only "
            "with `fields`."
        ),
    ] = None
    reasons: Annotated[
        list[ReasonBody] | None,
        Field(
            description="The items of the history that contribute most to the score, at most three. Present only with "
            "`explain`."
        ),
    ] = None


class RecommendationsBody(BaseModel):
    """Recommendations for a user or a basket."""

    user_id: Annotated[str | None, Field(description="Id of the requested user; null for a basket.")]
    strategy: Annotated[
        Strategy,
        Field(
            description="Source of the list: `personal` for a user in the training data; `session` for an unknown user "
            "or a basket, if the model contains at least one of the `recent_items`; `popular` otherwise."
        ),
    ]
    model_version: _ModelVersion
    items: Annotated[
        list[RecommendedItem],
        Field(description="The items, best first. The list is shorter than `n` only if no more items are eligible."),
    ]


class BatchBody(BaseModel):
    """The results of a batch."""

    model_version: _ModelVersion
    results: Annotated[list[RecommendationsBody], Field(description="One result per request, in the same order.")]


class SimilarBody(BaseModel):
    """Items similar to an item."""

    item_id: Annotated[str, Field(description="Id of the requested item.")]
    model_version: _ModelVersion
    items: Annotated[list[RecommendedItem], Field(description="The items, best first, without the requested item.")]


class PopularBody(BaseModel):
    """The most popular items."""

    model_version: _ModelVersion
    items: Annotated[
        list[RecommendedItem],
        Field(description="The items, most popular first. `score` is the share of users who interacted with the item."),
    ]


class CatalogueItem(BaseModel):
    """An item of the catalogue."""

    item_id: Annotated[str, Field(description="The item's id.")]
    attributes: Annotated[
        dict[str, Any],
        Field(description="The item's attributes, keyed by column name; null for an attribute without a value."),
    ]


class CatalogueColumn(BaseModel):
    """A column of the catalogue."""

    name: Annotated[str, Field(description="Name of the column.")]
    kind: Annotated[str, Field(description="`number`, `boolean`, `text` or `tags`.")]


class CatalogueBody(BaseModel):
    """A page of the item catalogue."""

    catalogue_version: Annotated[str, Field(description="Version of the catalogue.")]
    total: Annotated[int, Field(description="Number of items in the catalogue.")]
    columns: Annotated[list[CatalogueColumn], Field(description="The columns.")]
    items: Annotated[list[CatalogueItem], Field(description="The items, in the order in which they were first sent.")]
    next: Annotated[str | None, Field(description="Value of `cursor` for the next page; null on the last page.")]


RESPONSE_MODELS: Final[Mapping[tuple[str, str], type[BaseModel]]] = {
    ("post", "/v1/recommendations"): RecommendationsBody,
    ("post", "/v1/recommendations/batch"): BatchBody,
    ("get", "/v1/items/{item_id}/similar"): SimilarBody,
    ("get", "/v1/popular"): PopularBody,
    ("get", "/v1/items"): CatalogueBody,
    ("get", "/v1/items/{item_id}"): CatalogueItem,
}
"""The model of the body of each route's 200 response, by method and path."""
