"""The cache of loaded models: one load however many ask, a size that is kept to, and what a failed load leaves."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import ArtifactDamaged, RecsysError, Unavailable
from recsys.model.pruned_search import Bounds
from recsys.model.recommender import ServingModel
from recsys.model.vocabulary import Vocabulary
from recsys_recommend.model_cache import LoadedModel, ModelCache, ModelName
from tests.unit.http_fakes import Now, small_network

MODEL = ServingModel(
    version="",
    users=Vocabulary.of([]),
    items=Vocabulary.of([]),
    network=small_network(),
    bounds=Bounds.of(small_network()),
    seen_starts=np.zeros(1, dtype=np.int64),
    seen_items=np.zeros(0, dtype=np.int32),
    popularity=np.zeros(0, dtype=np.float32),
    size_bytes=10,
)


class Shelf:
    """Where models are read from; notes what was read."""

    def __init__(self, size_bytes: int = 10) -> None:
        self.read: list[str] = []
        self.size_bytes = size_bytes
        self.failures: dict[str, RecsysError] = {}
        self.open = threading.Event()
        self.open.set()

    def load(self, name: ModelName) -> ServingModel:
        self.read.append(name.version)
        assert self.open.wait(10)
        if name.version in self.failures:
            raise self.failures[name.version]
        return replace(MODEL, version=name.version, size_bytes=self.size_bytes)


def name(key_id: str, version: str = "1", digest: str = "d") -> ModelName:
    return ModelName(key_id, f"{key_id}.{version}", digest)


def in_turn(cache: ModelCache, *names: ModelName) -> list[str]:
    """The versions that answer, asked for one after the other."""

    async def run() -> list[str]:
        versions = []
        for name in names:
            versions.append((await cache.get(name)).model.version)
            await until_nothing_is_loaded(cache)
        return versions

    return asyncio.run(run())


async def until_nothing_is_loaded(cache: ModelCache) -> None:
    """Let what was started in the background come to its end."""
    while cache._loading:
        await asyncio.sleep(0.001)


def test_a_model_is_loaded_once_for_fifty_requests_at_once() -> None:
    shelf = Shelf()
    cache = ModelCache(shelf.load, max_bytes=100)
    shelf.open.clear()

    async def run() -> list[LoadedModel]:
        waiting = [asyncio.create_task(cache.get(name("a"))) for _ in range(50)]
        await asyncio.sleep(0.05)
        shelf.open.set()
        return await asyncio.gather(*waiting)

    models = asyncio.run(run())

    assert len(models) == 50
    assert shelf.read == ["a.1"]


def test_other_requests_go_on_while_a_model_is_loaded() -> None:
    shelf = Shelf()
    cache = ModelCache(shelf.load, max_bytes=100)

    async def run() -> str:
        await cache.get(name("ready"))
        shelf.open.clear()
        slow = asyncio.create_task(cache.get(name("slow")))
        await asyncio.sleep(0.01)
        version = (await cache.get(name("ready"))).model.version
        assert not slow.done()
        shelf.open.set()
        await slow
        return version

    assert asyncio.run(run()) == "ready.1"


def test_a_client_that_hangs_up_does_not_take_the_model_from_the_others() -> None:
    shelf = Shelf()
    cache = ModelCache(shelf.load, max_bytes=100)
    shelf.open.clear()

    async def run() -> str:
        first = asyncio.create_task(cache.get(name("a")))
        second = asyncio.create_task(cache.get(name("a")))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        shelf.open.set()
        return (await second).model.version

    assert asyncio.run(run()) == "a.1"
    assert shelf.read == ["a.1"]


def test_the_least_recently_used_model_goes_first() -> None:
    shelf = Shelf(size_bytes=40)
    cache = ModelCache(shelf.load, max_bytes=100)

    in_turn(cache, name("a"), name("b"), name("a"), name("c"), name("a"), name("b"))

    assert shelf.read == ["a.1", "b.1", "c.1", "b.1"]


def test_models_that_fit_exactly_are_kept() -> None:
    shelf = Shelf(size_bytes=50)
    cache = ModelCache(shelf.load, max_bytes=100)

    in_turn(cache, name("a"), name("b"), name("a"), name("b"))

    assert shelf.read == ["a.1", "b.1"]


def test_a_model_larger_than_the_cache_answers_and_is_not_kept() -> None:
    shelf = Shelf(size_bytes=101)
    cache = ModelCache(shelf.load, max_bytes=100)

    assert in_turn(cache, name("a"), name("a")) == ["a.1", "a.1"]
    assert shelf.read == ["a.1", "a.1"]


def test_a_new_version_takes_the_place_of_the_old_one() -> None:
    shelf = Shelf(size_bytes=60)
    cache = ModelCache(shelf.load, max_bytes=100)

    assert in_turn(cache, name("a", "1"), name("a", "2"), name("a", "2")) == ["a.1", "a.1", "a.2"]
    assert shelf.read == ["a.1", "a.2"]


def test_while_a_new_version_is_loaded_the_one_before_answers_at_once() -> None:
    shelf = Shelf()
    cache = ModelCache(shelf.load, max_bytes=100)

    async def run() -> list[str]:
        await cache.get(name("a", "1"))
        shelf.open.clear()
        meanwhile = [(await cache.get(name("a", "2"))).name.version for _ in range(3)]
        shelf.open.set()
        await until_nothing_is_loaded(cache)
        return [*meanwhile, (await cache.get(name("a", "2"))).name.version]

    assert asyncio.run(run()) == ["a.1", "a.1", "a.1", "a.2"]
    assert shelf.read == ["a.1", "a.2"]


def test_after_a_while_a_request_waits_for_the_new_version() -> None:
    """On Lambda, which freezes the loading between two requests."""
    shelf, now = Shelf(), Now()
    cache = ModelCache(shelf.load, max_bytes=100, patience_s=2.0, timer=now.timer)

    async def run() -> tuple[str, str]:
        await cache.get(name("a", "1"))
        shelf.open.clear()
        now.move(0.5)
        await cache.get(name("a", "2"))
        now.move(1.9)
        before = await cache.get(name("a", "2"))
        now.move(0.1)
        waiting = asyncio.create_task(cache.get(name("a", "2")))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        shelf.open.set()
        return before.name.version, (await waiting).name.version

    assert asyncio.run(run()) == ("a.1", "a.2")


def test_after_a_while_a_version_that_cannot_be_read_still_leaves_the_one_before() -> None:
    shelf = Shelf()
    shelf.failures["a.2"] = ArtifactDamaged("bits flipped")
    cache = ModelCache(shelf.load, max_bytes=100, patience_s=0.0)

    assert in_turn(cache, name("a", "1"), name("a", "2"), name("a", "2")) == ["a.1", "a.1", "a.1"]
    assert shelf.read == ["a.1", "a.2"]


def test_the_same_version_with_another_digest_is_another_model() -> None:
    shelf = Shelf()

    in_turn(ModelCache(shelf.load, max_bytes=100), name("a", digest="x"), name("a", digest="y"))

    assert shelf.read == ["a.1", "a.1"]


@pytest.mark.parametrize("error", [ArtifactDamaged("bits flipped"), Unavailable("off")])
def test_a_version_that_cannot_be_read_leaves_the_one_before(error: RecsysError) -> None:
    shelf = Shelf()
    shelf.failures["a.2"] = error
    counted: list[str] = []
    cache = ModelCache(shelf.load, max_bytes=100, count=counted.append)

    assert in_turn(cache, name("a", "1"), name("a", "2")) == ["a.1", "a.1"]
    assert counted == ["ModelLoaded", "ModelFailed"]


@pytest.mark.parametrize("error", [ArtifactDamaged("bits flipped"), Unavailable("off")])
def test_without_one_before_the_error_comes_through(error: RecsysError) -> None:
    shelf = Shelf()
    shelf.failures["a.1"] = error
    cache = ModelCache(shelf.load, max_bytes=100)

    for _ in range(2):
        with pytest.raises(type(error), match=str(error)):
            in_turn(cache, name("a"))


def test_the_model_of_another_key_never_stands_in() -> None:
    shelf = Shelf()
    shelf.failures["b.1"] = ArtifactDamaged("bits flipped")
    cache = ModelCache(shelf.load, max_bytes=100)
    in_turn(cache, name("a"))

    with pytest.raises(ArtifactDamaged):
        in_turn(cache, name("b"))


def test_a_version_that_failed_is_tried_again_after_a_while_and_not_before() -> None:
    shelf, now = Shelf(), Now()
    shelf.failures["a.2"] = ArtifactDamaged("bits flipped")
    cache = ModelCache(shelf.load, max_bytes=100, timer=now.timer)
    in_turn(cache, name("a", "1"), name("a", "2"), name("a", "2"))
    assert shelf.read == ["a.1", "a.2"]

    shelf.failures.clear()
    now.move(10)

    assert in_turn(cache, name("a", "2"), name("a", "2")) == ["a.1", "a.2"]
    assert shelf.read == ["a.1", "a.2", "a.2"]


def test_what_nobody_expected_is_not_hidden_and_not_remembered() -> None:
    calls: list[int] = []

    def load(_: ModelName) -> ServingModel:
        calls.append(1)
        raise ZeroDivisionError

    cache = ModelCache(load, max_bytes=100)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            in_turn(cache, name("a"))
    assert len(calls) == 2
