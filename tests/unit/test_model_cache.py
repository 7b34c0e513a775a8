"""The model cache: concurrent requests share a load, memory is bounded, and failed loads are handled."""

from __future__ import annotations

import asyncio
import threading
import traceback
from dataclasses import replace

import numpy as np
import pytest

from recsys.errors import ArtifactDamaged, FieldError, RecsysError, Unavailable
from recsys.keys.authentication import ModelName
from recsys.model.pruned_search import Bounds
from recsys.model.recommender import ServingModel
from recsys.model.vocabulary import Vocabulary
from recsys_recommend import model_cache
from recsys_recommend.model_cache import LoadedModel, ModelCache
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


class Source:
    """A source of models that records which ones were read."""

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


def served_in_turn(cache: ModelCache, *names: ModelName) -> list[str]:
    """Request models one after the other, and return the versions that were served."""

    async def run() -> list[str]:
        versions = []
        for name in names:
            versions.append((await cache.get(name)).model.version)
            await wait_for_loads(cache)
        return versions

    return asyncio.run(run())


async def wait_for_loads(cache: ModelCache) -> None:
    """Wait until background loads have ended."""
    while cache._loading:
        await asyncio.sleep(0.001)


def test_no_more_models_load_at_the_same_time_than_there_are_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_cache, "_PARALLEL_LOADS", 2)
    source = Source()
    source.open.clear()
    cache = ModelCache(source.load, max_bytes=1000)

    async def run() -> list[LoadedModel]:
        requests = [asyncio.create_task(cache.get(name(key_id))) for key_id in "abcde"]
        await asyncio.sleep(0.1)
        assert sorted(source.read) == ["a.1", "b.1"]
        source.open.set()
        return await asyncio.gather(*requests)

    assert [loaded.model.version for loaded in asyncio.run(run())] == ["a.1", "b.1", "c.1", "d.1", "e.1"]


def test_concurrent_requests_share_one_load() -> None:
    source = Source()
    cache = ModelCache(source.load, max_bytes=100)
    source.open.clear()

    async def run() -> list[LoadedModel]:
        waiting = [asyncio.create_task(cache.get(name("a"))) for _ in range(50)]
        await asyncio.sleep(0.05)
        source.open.set()
        return await asyncio.gather(*waiting)

    models = asyncio.run(run())

    assert len(models) == 50
    assert source.read == ["a.1"]


def test_loading_does_not_block_other_models() -> None:
    source = Source()
    cache = ModelCache(source.load, max_bytes=100)

    async def run() -> str:
        await cache.get(name("ready"))
        source.open.clear()
        slow = asyncio.create_task(cache.get(name("slow")))
        await asyncio.sleep(0.01)
        version = (await cache.get(name("ready"))).model.version
        assert not slow.done()
        source.open.set()
        await slow
        return version

    assert asyncio.run(run()) == "ready.1"


def test_cancelled_request_does_not_cancel_the_load_for_others() -> None:
    source = Source()
    cache = ModelCache(source.load, max_bytes=100)
    source.open.clear()

    async def run() -> str:
        first = asyncio.create_task(cache.get(name("a")))
        second = asyncio.create_task(cache.get(name("a")))
        await asyncio.sleep(0.01)
        first.cancel()
        await asyncio.sleep(0)
        source.open.set()
        return (await second).model.version

    assert asyncio.run(run()) == "a.1"
    assert source.read == ["a.1"]


def test_least_recently_used_model_is_evicted_first() -> None:
    source = Source(size_bytes=40)
    cache = ModelCache(source.load, max_bytes=100)

    served_in_turn(cache, name("a"), name("b"), name("a"), name("c"), name("a"), name("b"))

    assert source.read == ["a.1", "b.1", "c.1", "b.1"]


def test_models_that_fit_exactly_are_kept() -> None:
    source = Source(size_bytes=50)
    cache = ModelCache(source.load, max_bytes=100)

    served_in_turn(cache, name("a"), name("b"), name("a"), name("b"))

    assert source.read == ["a.1", "b.1"]


def test_model_larger_than_the_cache_serves_and_is_not_kept() -> None:
    source = Source(size_bytes=101)
    cache = ModelCache(source.load, max_bytes=100)

    assert served_in_turn(cache, name("a"), name("a")) == ["a.1", "a.1"]
    assert source.read == ["a.1", "a.1"]


def test_new_version_replaces_the_previous_one() -> None:
    source = Source(size_bytes=60)
    cache = ModelCache(source.load, max_bytes=100)

    assert served_in_turn(cache, name("a", "1"), name("a", "2"), name("a", "2")) == ["a.1", "a.1", "a.2"]
    assert source.read == ["a.1", "a.2"]


def test_previous_version_serves_while_the_current_one_loads() -> None:
    source = Source()
    cache = ModelCache(source.load, max_bytes=100)

    async def run() -> list[str]:
        await cache.get(name("a", "1"))
        source.open.clear()
        meanwhile = [(await cache.get(name("a", "2"))).name.version for _ in range(3)]
        source.open.set()
        await wait_for_loads(cache)
        return [*meanwhile, (await cache.get(name("a", "2"))).name.version]

    assert asyncio.run(run()) == ["a.1", "a.1", "a.1", "a.2"]
    assert source.read == ["a.1", "a.2"]


def test_request_waits_for_a_version_that_has_been_loading_for_too_long() -> None:
    """Lambda freezes the loading thread between two requests."""
    source, now = Source(), Now()
    cache = ModelCache(source.load, max_bytes=100, stale_while_loading_s=2.0, timer=now.timer)

    async def run() -> tuple[str, str]:
        await cache.get(name("a", "1"))
        source.open.clear()
        now.move(0.5)
        await cache.get(name("a", "2"))
        now.move(1.9)
        previous = await cache.get(name("a", "2"))
        now.move(0.1)
        waiting = asyncio.create_task(cache.get(name("a", "2")))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        source.open.set()
        return previous.name.version, (await waiting).name.version

    assert asyncio.run(run()) == ("a.1", "a.2")


def test_previous_version_serves_after_waiting_for_a_load_that_failed() -> None:
    source = Source()
    source.failures["a.2"] = ArtifactDamaged("bits flipped")
    cache = ModelCache(source.load, max_bytes=100, stale_while_loading_s=0.0)

    assert served_in_turn(cache, name("a", "1"), name("a", "2"), name("a", "2")) == ["a.1", "a.1", "a.1"]
    assert source.read == ["a.1", "a.2"]


def test_version_with_another_digest_is_another_model() -> None:
    source = Source()

    served_in_turn(ModelCache(source.load, max_bytes=100), name("a", digest="x"), name("a", digest="y"))

    assert source.read == ["a.1", "a.1"]


@pytest.mark.parametrize("error", [ArtifactDamaged("bits flipped"), Unavailable("off")])
def test_previous_version_serves_if_the_current_one_cannot_be_loaded(error: RecsysError) -> None:
    source = Source()
    source.failures["a.2"] = error
    counted: list[str] = []
    cache = ModelCache(source.load, max_bytes=100, count_metric=counted.append)

    assert served_in_turn(cache, name("a", "1"), name("a", "2")) == ["a.1", "a.1"]
    assert counted == ["ModelLoaded", "ModelFailed"]


@pytest.mark.parametrize("error", [ArtifactDamaged("bits flipped"), Unavailable("off")])
def test_failed_load_raises_without_a_previous_version(error: RecsysError) -> None:
    source = Source()
    source.failures["a.1"] = error
    cache = ModelCache(source.load, max_bytes=100)

    for _ in range(2):
        with pytest.raises(type(error), match=str(error)):
            served_in_turn(cache, name("a"))


def test_failed_load_raises_the_complete_error_each_time() -> None:
    """A stored error is raised by many requests; its traceback must not grow with each of them."""
    source = Source()
    findings = [FieldError("sha256", "serving.npz differs")]
    source.failures["a.1"] = ArtifactDamaged("bits flipped", hint="Restore it.", errors=findings, retry_after_s=7)
    source.failures["a.1"].__cause__ = OSError("disk")
    cache = ModelCache(source.load, max_bytes=100)
    depths = []

    for _ in range(4):
        with pytest.raises(ArtifactDamaged) as caught:
            served_in_turn(cache, name("a"))
        error = caught.value
        assert (error.detail, error.hint, error.retry_after_s) == ("bits flipped", "Restore it.", 7)
        assert error.errors == tuple(findings)
        assert isinstance(error.__cause__, OSError)
        depths.append(len(list(traceback.walk_tb(source.failures["a.1"].__traceback__))))

    assert source.read == ["a.1"]
    assert depths[1] == depths[-1]


def test_model_of_another_key_never_serves() -> None:
    source = Source()
    source.failures["b.1"] = ArtifactDamaged("bits flipped")
    cache = ModelCache(source.load, max_bytes=100)
    served_in_turn(cache, name("a"))

    with pytest.raises(ArtifactDamaged):
        served_in_turn(cache, name("b"))


def test_failed_load_is_retried_after_a_pause() -> None:
    source, now = Source(), Now()
    source.failures["a.2"] = ArtifactDamaged("bits flipped")
    cache = ModelCache(source.load, max_bytes=100, timer=now.timer)
    served_in_turn(cache, name("a", "1"), name("a", "2"), name("a", "2"))
    assert source.read == ["a.1", "a.2"]

    source.failures.clear()
    now.move(10)

    assert served_in_turn(cache, name("a", "2"), name("a", "2")) == ["a.1", "a.2"]
    assert source.read == ["a.1", "a.2", "a.2"]


def test_unexpected_error_is_raised_and_not_cached() -> None:
    calls: list[int] = []

    def load(_: ModelName) -> ServingModel:
        calls.append(1)
        raise ZeroDivisionError

    cache = ModelCache(load, max_bytes=100)

    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            served_in_turn(cache, name("a"))
    assert len(calls) == 2
