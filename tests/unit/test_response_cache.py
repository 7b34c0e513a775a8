"""The cache of answers: found by all that they depend on, bounded in bytes."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any, cast

from recsys.model.recommender import ServingModel
from recsys_recommend.model_cache import LoadedModel, ModelName
from recsys_recommend.response_cache import ResponseCache

NAME = ModelName("key", "job.1", "digest")
MIB = 2**20


@dataclass(frozen=True)
class Asked:
    """A query whose answer says how often one was made."""

    what: Any
    size: int = 0

    def answer(self, model: ServingModel) -> dict[str, Any]:
        MADE.append(self.what)
        return {"answer": len(MADE), "padding": "x" * self.size}


MADE: list[Any] = []


def ask(cache: ResponseCache, what: Any, name: ModelName = NAME, size: int = 0) -> int:
    loaded = LoadedModel(name, cast("ServingModel", None))
    return int(json.loads(cache.answer(loaded, Asked(what, size=size)))["answer"])


def test_the_same_question_is_answered_once() -> None:
    cache = ResponseCache(max_bytes=MIB)
    assert ask(cache, "a") == ask(cache, "a") != ask(cache, "b")


def test_another_key_another_version_and_another_digest_are_other_answers() -> None:
    cache = ResponseCache(max_bytes=MIB)
    names = [NAME, *(replace(NAME, **{member: "other"}) for member in ("key_id", "version", "manifest_sha256"))]
    assert len({ask(cache, "a", name) for name in names}) == 4


def test_questions_that_look_alike_are_told_apart() -> None:
    cache = ResponseCache(max_bytes=MIB)
    alike = [["a", "b"], ["a,b"], ['a", "b'], ["ab"], [["a"], "b"], "a", ["a"], None, [None], 1, "1", True, []]
    assert len({ask(cache, what) for what in alike}) == len(alike)


def test_the_least_recently_used_answer_goes_first_and_the_bound_holds() -> None:
    cache = ResponseCache(max_bytes=4000)
    first, second = ask(cache, "a", size=1000), ask(cache, "b", size=1000)
    assert ask(cache, "a", size=1000) == first
    ask(cache, "c", size=1000)
    ask(cache, "d", size=1000)
    assert ask(cache, "b", size=1000) != second
    assert cache._answers.currsize <= 4000


def test_an_answer_larger_than_the_cache_is_given_and_not_kept() -> None:
    cache = ResponseCache(max_bytes=1000)
    assert ask(cache, "a", size=1000) != ask(cache, "a", size=1000)


def test_no_memory_keeps_nothing() -> None:
    cache = ResponseCache(max_bytes=0)
    assert ask(cache, "a") != ask(cache, "a")
