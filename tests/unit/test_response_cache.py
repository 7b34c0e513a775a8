"""The response cache: entries are found by everything they depend on, and are bounded in bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest

from recsys.catalogue.catalogue import EMPTY
from recsys.keys.authentication import ModelName
from recsys.model.recommender import ServingModel
from recsys.model.vocabulary import Vocabulary
from recsys_recommend.filtering.bound import BoundCatalogue
from recsys_recommend.item_options import ItemOptions
from recsys_recommend.model_cache import LoadedModel
from recsys_recommend.queries import PopularQuery, SimilarItemsQuery, UserQuery
from recsys_recommend.response_cache import ResponseCache

NAME = ModelName("key", "job.1", "digest")
MIB = 2**20

RUNS: list[Any] = []


@dataclass(frozen=True)
class CountingQuery:
    """A query whose response is the number of queries that were run so far."""

    value: Any
    size: int = 0

    def run(self, model: ServingModel, catalogue: BoundCatalogue | None) -> dict[str, Any]:
        RUNS.append(self.value)
        return {"run": len(RUNS), "padding": "x" * self.size}

    def cache_fields(self) -> tuple[Any, ...]:
        return (self.value, self.size)


def run(cache: ResponseCache, value: Any, name: ModelName = NAME, size: int = 0) -> int:
    loaded = LoadedModel(name, cast("ServingModel", None))
    return int(json.loads(cache.get(loaded, CountingQuery(value, size=size)))["run"])


def test_repeated_query_is_computed_once() -> None:
    cache = ResponseCache(max_bytes=MIB)
    assert run(cache, "a") == run(cache, "a") != run(cache, "b")


def test_responses_are_separate_per_key_version_and_digest() -> None:
    cache = ResponseCache(max_bytes=MIB)
    names = [NAME, *(NAME._replace(**{field: "other"}) for field in ModelName._fields)]
    assert len({run(cache, "a", name) for name in names}) == 4


def test_queries_that_look_alike_are_distinguished() -> None:
    cache = ResponseCache(max_bytes=MIB)
    alike = [["a", "b"], ["a,b"], ['a", "b'], ["ab"], [["a"], "b"], "a", ["a"], None, [None], 1, "1", True, []]
    assert len({run(cache, value) for value in alike}) == len(alike)


@pytest.mark.parametrize(
    ("query", "changes"),
    [
        (
            UserQuery("u1", ["A"], 10, exclude_seen=True, exclude_items=[], candidates=None),
            {
                "user_id": "u2",
                "recent_items": ["B"],
                "n": 9,
                "exclude_seen": False,
                "exclude_items": ["A"],
                "candidates": [],
                "options": ItemOptions(fields=["title"]),
                "is_erased": True,
            },
        ),
        (
            SimilarItemsQuery("A", 10, []),
            {"item_id": "B", "n": 9, "exclude_items": ["A"], "options": ItemOptions(filter="available")},
        ),
        (PopularQuery(10, []), {"n": 9, "exclude_items": ["A"], "options": ItemOptions(diversity=0.5)}),
    ],
    ids=["user", "similar", "popular"],
)
def test_cache_fields_cover_every_field_of_a_query(query: Any, changes: Mapping[str, Any]) -> None:
    assert set(changes) == set(query._fields)
    for name, value in changes.items():
        assert query._replace(**{name: value}).cache_fields() != query.cache_fields(), name


def test_cache_fields_cover_every_option() -> None:
    changes = {
        "fields": ["title"],
        "filter": "available",
        "max_per": {"category": 2},
        "diversity": 0.5,
        "include_unavailable": True,
        "explain": True,
        "exploration": 0.0,
    }
    assert set(changes) == set(ItemOptions._fields)
    changed = [ItemOptions()._replace(**{name: value}).cache_fields() for name, value in changes.items()]
    assert len({json.dumps(each) for each in [ItemOptions().cache_fields(), *changed]}) == 8


def test_responses_are_separate_per_version_of_the_catalogue() -> None:
    cache = ResponseCache(max_bytes=MIB)
    loaded = LoadedModel(NAME, cast("ServingModel", None))
    catalogues = [None, *(BoundCatalogue(version, EMPTY, Vocabulary.of([])) for version in ("items.1", "items.2"))]
    assert len({cache.get(loaded, CountingQuery("a"), catalogue) for catalogue in catalogues}) == 3


def test_least_recently_used_response_is_evicted_first() -> None:
    cache = ResponseCache(max_bytes=4000)
    first, second = run(cache, "a", size=1000), run(cache, "b", size=1000)
    assert run(cache, "a", size=1000) == first
    run(cache, "c", size=1000)
    run(cache, "d", size=1000)
    assert run(cache, "b", size=1000) != second
    assert cache._responses.currsize <= 4000


def test_response_larger_than_the_cache_is_returned_and_not_kept() -> None:
    cache = ResponseCache(max_bytes=1000)
    assert run(cache, "a", size=1000) != run(cache, "a", size=1000)


def test_size_zero_disables_the_cache() -> None:
    cache = ResponseCache(max_bytes=0)
    assert run(cache, "a") != run(cache, "a")
