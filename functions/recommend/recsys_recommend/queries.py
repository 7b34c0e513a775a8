"""Define the queries to a model as immutable values, and build the bodies of the responses.

The bodies are plain dictionaries. A response can have 1,000 items, and to validate the items with Pydantic would take
longer than to compute them.
"""

from __future__ import annotations

import json
from collections.abc import Container, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from recsys.errors import FieldError, InvalidRequest
from recsys.model import recommender
from recsys.model.recommender import Recommendations, ServingModel
from recsys_recommend.item_options import DEFAULT, ItemOptions, constraints_of, describe_items
from recsys_recommend.schemas import MAX_BATCH_ITEMS, BatchEntry, BatchRequest, ListParameters, RecommendationRequest

if TYPE_CHECKING:  # the import would lengthen the cold start of a key without a catalogue
    from recsys_recommend.filtering.bound import BoundCatalogue


class ModelQuery(Protocol):
    """A query whose response can be cached."""

    def run(self, model: ServingModel, catalogue: BoundCatalogue | None) -> dict[str, Any]:
        """Return the body of the response. `catalogue` is the catalogue of the key, or None if the key has none."""

    def cache_fields(self) -> tuple[Any, ...]:
        """Return all values that the response depends on besides the model, in a form that JSON can represent."""


class UserQuery(NamedTuple):
    """A query for recommendations for a user or a basket; see `recsys.model.recommender.recommend`."""

    user_id: str | None
    recent_items: Sequence[str]
    n: int
    exclude_seen: bool
    exclude_items: Sequence[str]
    candidates: Sequence[str] | None
    options: ItemOptions = DEFAULT
    is_erased: bool = False
    """Whether the user was erased and is therefore treated as unknown."""

    @classmethod
    def of(cls, body: RecommendationRequest) -> UserQuery:
        """Create the query that a request describes.

        Raises
        ------
        InvalidRequest
            The request has neither a user nor recent items.
        """
        _check_subject(body, at="")
        options = ItemOptions(
            body.fields,
            body.filter,
            body.max_per,
            body.diversity,
            body.include_unavailable,
            body.explain,
            body.exploration,
        )
        return cls(
            body.user_id, body.recent_items, body.n, body.exclude_seen, body.exclude_items, body.candidates, options
        )

    @classmethod
    def of_entry(cls, entry: BatchEntry, defaults: BatchRequest) -> UserQuery:
        """Create the query for one request in a batch.

        Options of the request take precedence over options of the batch.
        """
        return cls(
            entry.user_id,
            entry.recent_items,
            defaults.n if entry.n is None else entry.n,
            defaults.exclude_seen if entry.exclude_seen is None else entry.exclude_seen,
            defaults.exclude_items if entry.exclude_items is None else entry.exclude_items,
            defaults.candidates if entry.candidates is None else entry.candidates,
            ItemOptions(
                defaults.fields if entry.fields is None else entry.fields,
                defaults.filter if entry.filter is None else entry.filter,
                defaults.max_per if entry.max_per is None else entry.max_per,
                defaults.diversity if entry.diversity is None else entry.diversity,
                defaults.include_unavailable if entry.include_unavailable is None else entry.include_unavailable,
                defaults.explain if entry.explain is None else entry.explain,
                defaults.exploration if entry.exploration is None else entry.exploration,
            ),
        )

    def run(self, model: ServingModel, catalogue: BoundCatalogue | None) -> dict[str, Any]:
        """Compute the recommendations, and return them in the format of `RecommendationsBody`.

        Raises
        ------
        NoCatalogue
            The options need a catalogue, and the key has none.
        InvalidRequest
            The options do not fit the catalogue.
        """
        user_id = None if self.is_erased else self.user_id
        recommendations = recommender.recommend(
            model,
            user_id,
            n=self.n,
            recent_items=self.recent_items,
            exclude_seen=self.exclude_seen,
            exclude_items=self.exclude_items,
            candidates=self.candidates,
            constraints=constraints_of(self.options, catalogue),
        )
        history = recommender.history_of(model, user_id, self.recent_items)[1] if self.options.explain else None
        items = describe_items(model, recommendations.items, self.options, catalogue, history)
        return _recommendations(recommendations, items) | {"user_id": self.user_id}

    def cache_fields(self) -> tuple[Any, ...]:
        """Return the values of all fields, because the response depends on each field.

        Options are left out if all of them have their default values.
        """
        choice = (self.n, self.exclude_seen, self.exclude_items, self.candidates)
        fields = (self.user_id, self.is_erased, self.recent_items, *choice)
        return fields if self.options == DEFAULT else (*fields, *self.options.cache_fields())

    def hiding(self, erased_users: Container[str] | None) -> UserQuery:
        """Return the query, with `is_erased` set to true if `erased_users` contains the user."""
        if erased_users is None or self.user_id is None or self.user_id not in erased_users:
            return self
        return self._replace(is_erased=True)

    @property
    def is_default(self) -> bool:
        """Whether the query has a user, and default values for all options except `n`."""
        default = UserQuery(self.user_id, [], self.n, exclude_seen=True, exclude_items=[], candidates=None)
        return self.user_id is not None and self == default


class BatchQuery(NamedTuple):
    """A batch of at least one query for recommendations."""

    queries: list[UserQuery]

    @classmethod
    def of(cls, body: BatchRequest) -> BatchQuery:
        """Create the batch that a request describes.

        Raises
        ------
        InvalidRequest
            A request in the batch has neither a user nor recent items, or the batch requests too many items in total.
        """
        for index, entry in enumerate(body.requests):
            _check_subject(entry, at=f"/requests/{index}")
        queries = [UserQuery.of_entry(entry, body) for entry in body.requests]
        n_items = sum(query.n for query in queries)
        if n_items > MAX_BATCH_ITEMS:
            detail = (
                f"Expected a batch that requests at most {MAX_BATCH_ITEMS:,} items in total, which is the sum of all "
                f"n. Received: {n_items:,}."
            )
            raise InvalidRequest(
                detail,
                hint="Reduce n, or send several batches.",
                errors=[FieldError("too_many_items", detail, pointer="/requests")],
            )
        return cls(queries)

    def hiding(self, erased_users: Container[str] | None) -> BatchQuery:
        """Return the batch, with `is_erased` set to true in the queries of users in `erased_users`."""
        return self if erased_users is None else BatchQuery([query.hiding(erased_users) for query in self.queries])

    def run(self, model: ServingModel, catalogue: BoundCatalogue | None) -> dict[str, Any]:
        """Compute the recommendations of the batch, and return them in the format of `BatchBody`.

        If possible, all queries are computed together, which is faster than one at a time. This requires that all
        queries have a user, default options and the same `n`, that all items are available, and that no new items are
        ranked.
        """
        from recsys.model import batch_ranking  # noqa: PLC0415  # 7 ms of a cold start that few requests need

        n = self.queries[0].n
        is_plain = catalogue is None or (
            catalogue.unavailable is None and (catalogue.new_items is None or catalogue.exploration == 0)
        )
        if is_plain and all(query.is_default and query.n == n for query in self.queries):
            user_ids = [query.user_id for query in self.queries if query.user_id is not None]
            results = [
                _recommendations(each, describe_items(model, each.items, DEFAULT, None))
                for each in batch_ranking.recommend_all(model, user_ids, n=n)
            ]
        else:
            results = [query.run(model, catalogue) for query in self.queries]
        return {"model_version": model.version, "results": results}


class SimilarItemsQuery(NamedTuple):
    """A query for items similar to an item; see `recsys.model.recommender.similar`."""

    item_id: str
    n: int
    exclude_items: Sequence[str]
    options: ItemOptions = DEFAULT

    @classmethod
    def of(cls, item_id: str, parameters: ListParameters) -> SimilarItemsQuery:
        """Create the query for an item id and the query parameters of a request."""
        return cls(item_id, parameters.n, parameters.exclude_items, _options(parameters))

    def run(self, model: ServingModel, catalogue: BoundCatalogue | None) -> dict[str, Any]:
        """Compute the similar items, and return them in the format of `SimilarBody`.

        Raises
        ------
        ItemNotFound
            The model does not contain the item.
        NoCatalogue
            The options need a catalogue, and the key has none.
        InvalidRequest
            The options do not fit the catalogue.
        """
        constraints = constraints_of(self.options, catalogue)
        items = recommender.similar(
            model, self.item_id, n=self.n, exclude_items=self.exclude_items, constraints=constraints
        )
        bodies = describe_items(model, items, self.options, catalogue)
        return {"item_id": self.item_id, "model_version": model.version, "items": bodies}

    def cache_fields(self) -> tuple[Any, ...]:
        """Return the values of all fields, because the response depends on each field."""
        return (self.item_id, self.n, self.exclude_items, *self.options.cache_fields())


class PopularQuery(NamedTuple):
    """A query for the most popular items; see `recsys.model.recommender.popular`."""

    n: int
    exclude_items: Sequence[str]
    options: ItemOptions = DEFAULT

    @classmethod
    def of(cls, parameters: ListParameters) -> PopularQuery:
        """Create the query for the query parameters of a request."""
        return cls(parameters.n, parameters.exclude_items, _options(parameters))

    def run(self, model: ServingModel, catalogue: BoundCatalogue | None) -> dict[str, Any]:
        """Compute the most popular items, and return them in the format of `PopularBody`.

        Raises
        ------
        NoCatalogue
            The options need a catalogue, and the key has none.
        InvalidRequest
            The options do not fit the catalogue.
        """
        constraints = constraints_of(self.options, catalogue)
        found = recommender.popular(model, n=self.n, exclude_items=self.exclude_items, constraints=constraints)
        bodies = describe_items(model, found.items, self.options, catalogue)
        return {"model_version": found.model_version, "items": bodies}

    def cache_fields(self) -> tuple[Any, ...]:
        """Return the values of all fields, because the response depends on each field."""
        return (self.n, self.exclude_items, *self.options.cache_fields())


def _options(parameters: ListParameters) -> ItemOptions:
    limits = {column: int(most) for column, _, most in (text.rpartition(":") for text in parameters.max_per)}
    return ItemOptions(
        parameters.fields,
        parameters.filter,
        limits,
        parameters.diversity,
        parameters.include_unavailable,
        exploration=parameters.exploration,
    )


def to_json(body: dict[str, Any]) -> bytes:
    """Encode a response body as compact UTF-8 JSON."""
    return json.dumps(body, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()


def _check_subject(request: RecommendationRequest | BatchEntry, *, at: str) -> None:
    """Raise `InvalidRequest` if the request has neither a user nor recent items.

    `at` is the JSON pointer to the request in the body, which is empty if the body is the request.
    """
    if request.user_id is None and not request.recent_items:
        detail = "Expected a user_id, or recent_items for a basket without a user. Received neither."
        raise InvalidRequest(
            f"{at} {detail}".strip(),
            hint="For recommendations without a user, use GET /v1/popular.",
            errors=[FieldError("missing", detail, pointer=f"{at}/user_id")],
        )


def _recommendations(recommendations: Recommendations, items: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "user_id": recommendations.user_id,
        "strategy": recommendations.strategy.value,
        "model_version": recommendations.model_version,
        "items": items,
    }
