"""What can be asked of a model, as values; and the answer to each, as JSON.

An answer is plain values put into JSON here: with 1,000 items, checking our own answer would cost the most of all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from recsys.errors import FieldError, InvalidRequest
from recsys.model import recommender
from recsys.model.recommender import RankedItem, Recommendations, ServingModel
from recsys_recommend.schemas import MAX_BATCH_ITEMS, BatchEntry, BatchRequest, ListQuery, RecommendationRequest


class ModelQuery(Protocol):
    """Something that a model answers: a dataclass of all that the answer depends on."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def answer(self, model: ServingModel) -> dict[str, Any]:
        """The answer's body."""


@dataclass(frozen=True, slots=True)
class UserQuery:
    """What to recommend to a user, or to a basket; see `recommender.recommend`."""

    user_id: str | None
    recent_items: Sequence[str]
    n: int
    exclude_seen: bool
    exclude_items: Sequence[str]
    candidates: Sequence[str] | None

    @classmethod
    def of(cls, body: RecommendationRequest) -> UserQuery:
        """The query of a request.

        Raises
        ------
        InvalidRequest
            It names neither a user nor items.
        """
        _check_somebody(body, at="")
        return cls(body.user_id, body.recent_items, body.n, body.exclude_seen, body.exclude_items, body.candidates)

    def answer(self, model: ServingModel) -> dict[str, Any]:
        """`RecommendationsBody`."""
        found = recommender.recommend(
            model,
            self.user_id,
            n=self.n,
            recent_items=self.recent_items,
            exclude_seen=self.exclude_seen,
            exclude_items=self.exclude_items,
            candidates=self.candidates,
        )
        return _recommendations(found)

    @property
    def is_plain(self) -> bool:
        """Whether it names a user and nothing else but `n`."""
        plain = UserQuery(self.user_id, [], self.n, exclude_seen=True, exclude_items=[], candidates=None)
        return self.user_id is not None and self == plain


@dataclass(frozen=True, slots=True)
class BatchQuery:
    """What to recommend to each of many."""

    each: list[UserQuery]

    @classmethod
    def of(cls, body: BatchRequest) -> BatchQuery:
        """The queries of a batch.

        Raises
        ------
        InvalidRequest
            An entry names neither a user nor items, or they ask for too many items together.
        """
        for place, entry in enumerate(body.requests):
            _check_somebody(entry, at=f"/requests/{place}")
        each = [_with_defaults(entry, body) for entry in body.requests]
        n_items = sum(query.n for query in each)
        if n_items > MAX_BATCH_ITEMS:
            detail = f"A batch takes {MAX_BATCH_ITEMS:,} items in all, the sum of every n. Received: {n_items:,}."
            raise InvalidRequest(
                detail,
                hint="Ask for fewer items each, or send several batches.",
                errors=[FieldError("too_many_items", detail, pointer="/requests")],
            )
        return cls(each)

    def answer(self, model: ServingModel) -> dict[str, Any]:
        """`BatchBody`; users alone are multiplied all together."""
        from recsys.model import batch_ranking  # noqa: PLC0415  # 7 ms of a cold start that few requests need

        first = self.each[0]
        if all(query.is_plain and query.n == first.n for query in self.each):
            user_ids = [query.user_id for query in self.each if query.user_id is not None]
            results = [_recommendations(found) for found in batch_ranking.recommend_all(model, user_ids, n=first.n)]
        else:
            results = [query.answer(model) for query in self.each]
        return {"model_version": model.version, "results": results}


@dataclass(frozen=True, slots=True)
class SimilarItemsQuery:
    """What goes with an item; see `recommender.similar`."""

    item_id: str
    n: int
    exclude_items: Sequence[str]

    @classmethod
    def of(cls, item_id: str, query: ListQuery) -> SimilarItemsQuery:
        """The query of a request."""
        return cls(item_id, query.n, query.exclude_items)

    def answer(self, model: ServingModel) -> dict[str, Any]:
        """`SimilarBody`. Raises `ItemNotFound`."""
        items = recommender.similar(model, self.item_id, n=self.n, exclude_items=self.exclude_items)
        return {"item_id": self.item_id, "model_version": model.version, "items": _items(items)}


@dataclass(frozen=True, slots=True)
class PopularQuery:
    """What most users had; see `recommender.popular`."""

    n: int
    exclude_items: Sequence[str]

    @classmethod
    def of(cls, query: ListQuery) -> PopularQuery:
        """The query of a request."""
        return cls(query.n, query.exclude_items)

    def answer(self, model: ServingModel) -> dict[str, Any]:
        """`PopularBody`."""
        found = recommender.popular(model, n=self.n, exclude_items=self.exclude_items)
        return {"model_version": found.model_version, "items": _items(found.items)}


def to_json(body: dict[str, Any]) -> bytes:
    """`body` as it is sent."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _check_somebody(asked: RecommendationRequest | BatchEntry, *, at: str) -> None:
    if asked.user_id is None and not asked.recent_items:
        detail = "Expected a user_id, or recent_items for a basket without a user. Received neither."
        raise InvalidRequest(
            f"{at} {detail}".strip(),
            hint="GET /v1/popular gives what most users had, for nobody in particular.",
            errors=[FieldError("missing", detail, pointer=f"{at}/user_id")],
        )


def _with_defaults(entry: BatchEntry, batch: BatchRequest) -> UserQuery:
    return UserQuery(
        entry.user_id,
        entry.recent_items,
        batch.n if entry.n is None else entry.n,
        batch.exclude_seen if entry.exclude_seen is None else entry.exclude_seen,
        batch.exclude_items if entry.exclude_items is None else entry.exclude_items,
        batch.candidates if entry.candidates is None else entry.candidates,
    )


def _recommendations(found: Recommendations) -> dict[str, Any]:
    return {
        "user_id": found.user_id,
        "strategy": found.strategy.value,
        "model_version": found.model_version,
        "items": _items(found.items),
    }


def _items(items: Sequence[RankedItem]) -> list[dict[str, Any]]:
    return [{"item_id": item.item_id, "rank": item.rank, "score": item.score} for item in items]
