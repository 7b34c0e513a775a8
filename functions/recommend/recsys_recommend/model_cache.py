"""Keep loaded models in memory, up to a size limit, and evict the least recently used first."""

from __future__ import annotations

import asyncio
import copy
import logging
import math
import os
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from cachetools import LRUCache, TTLCache

from recsys.errors import ArtifactDamaged, RecsysError, Unavailable
from recsys.keys.authentication import ModelName
from recsys.model.recommender import ServingModel

_logger: Final = logging.getLogger("recsys.models")
_RETRY_S: Final = 10.0  # pause before a version that could not be loaded is tried again; not tuned
_MAX_FAILURES: Final = 1000
_PARALLEL_LOADS: Final = os.cpu_count() or 1
"""Largest number of models that load at the same time. Each load verifies a file on all cores. More parallel loads
would therefore not be faster, but would need more memory and threads."""


RecordDetail = Callable[[str, float], None]
"""Function that is called with the name and the value of a metric that is not measured on AWS by default."""


class LoadedModel(NamedTuple):
    """A model in memory, together with its name."""

    name: ModelName
    model: ServingModel


class _Loading(NamedTuple):
    task: asyncio.Task[LoadedModel]
    since_s: float


class ModelCache:
    """A cache that loads models on demand and keeps them in memory.

    Instances are not thread-safe, so use each instance from one event loop only. While the current version of a model
    loads, the previous version serves requests for up to `stale_while_loading_s` seconds if it is in memory.

    Parameters
    ----------
    load
        Function that reads a model. It is called in a thread, and raises `ArtifactDamaged` or `Unavailable` if the
        model cannot be read.
    max_bytes
        Memory for all models together, in bytes, as counted by `ServingModel.size_bytes`. A larger model is loaded for
        each request and not kept.
    stale_while_loading_s
        Longest time for which the previous version serves requests while the current one loads, in seconds. After this
        time, requests wait until the current version is loaded. A server needs no limit. Lambda needs one, because the
        loading thread is frozen between two requests and makes progress only while a request waits.
    count_metric
        Function that is called with `ModelLoaded` or `ModelFailed` after each attempt to load a model.
    record_detail
        Function that is called with `ModelCacheHit` or `ModelCacheMiss` and 1 for each request, and with
        `ModelCacheBytes` and the number of bytes in use after each load.
    timer
        Function that returns monotonic seconds; replaced in tests.
    """

    def __init__(
        self,
        load: Callable[[ModelName], ServingModel],
        *,
        max_bytes: int,
        stale_while_loading_s: float = math.inf,
        count_metric: Callable[[str], None] = lambda _: None,
        record_detail: RecordDetail = lambda _name, _value: None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._stale_while_loading_s = stale_while_loading_s
        self._count_metric = count_metric
        self._record_detail = record_detail
        self._timer = timer
        self._by_key: LRUCache[str, LoadedModel] = LRUCache(max_bytes, getsizeof=lambda loaded: loaded.model.size_bytes)
        self._loading: dict[ModelName, _Loading] = {}
        self._load_slots = asyncio.Semaphore(_PARALLEL_LOADS)
        self._failures: TTLCache[ModelName, RecsysError] = TTLCache(_MAX_FAILURES, _RETRY_S, timer)

    async def get(self, name: ModelName) -> LoadedModel:
        """Return a version of a model, or the previous version while the requested version cannot be used.

        The requested version cannot be used while it loads, or if it cannot be read. Concurrent calls share one load. A
        failed load is retried after 10 seconds at the earliest.

        Parameters
        ----------
        name
            Name of the key's current version.

        Returns
        -------
        LoadedModel
            The requested version, or the version of the same key that was loaded last. The attribute `name` of the
            result states which version it is.

        Raises
        ------
        ArtifactDamaged
            The model's files are damaged, and no other version of the key is in memory.
        Unavailable
            The object store did not respond, and no other version of the key is in memory.

        Examples
        --------
        >>> from types import SimpleNamespace
        >>> cache = ModelCache(lambda name: SimpleNamespace(size_bytes=100), max_bytes=1000)
        >>> asyncio.run(cache.get(ModelName("shop", "job.1", "digest"))).name.version
        'job.1'
        """
        previous = self._by_key.get(name.key_id)
        if previous is not None and previous.name == name:
            self._record_detail("ModelCacheHit", 1)
            return previous
        self._record_detail("ModelCacheMiss", 1)
        if name in self._failures:
            return _previous_or_raise(previous, self._failures[name])
        loading = self._start_loading(name)
        if previous is not None and self._timer() - loading.since_s < self._stale_while_loading_s:
            return previous
        try:
            # Shielded, because a client that disconnects must not cancel the load for the other waiting requests.
            return await asyncio.shield(loading.task)
        except (ArtifactDamaged, Unavailable) as error:
            return _previous_or_raise(previous, error)

    def _start_loading(self, name: ModelName) -> _Loading:
        """Start loading a model unless it is already being loaded, and return the load in progress."""
        loading = self._loading.get(name)
        if loading is None:
            task = asyncio.create_task(self._load_and_keep(name))
            loading = self._loading[name] = _Loading(task, self._timer())
            task.add_done_callback(lambda ended: self._end_loading(name, ended))
        return loading

    def _end_loading(self, name: ModelName, task: asyncio.Task[LoadedModel]) -> None:
        self._loading.pop(name, None)
        if not task.cancelled() and isinstance(error := task.exception(), RecsysError):
            self._failures[name] = error

    async def _load_and_keep(self, name: ModelName) -> LoadedModel:
        try:
            async with self._load_slots:
                started = time.perf_counter()
                model = await asyncio.to_thread(self._load, name)
        except (ArtifactDamaged, Unavailable) as error:
            self._count_metric("ModelFailed")
            fields = {"key_id": name.key_id, "model_version": name.version}
            _logger.error("A model cannot be loaded: %s", error.detail, extra=fields)
            raise
        self._count_metric("ModelLoaded")
        _logger.info(
            "A model was loaded",
            extra={
                "key_id": name.key_id,
                "model_version": name.version,
                "size_bytes": model.size_bytes,
                "load_ms": round((time.perf_counter() - started) * 1000, 1),
            },
        )
        loaded = LoadedModel(name, model)
        if model.size_bytes <= self._max_bytes:
            self._by_key[name.key_id] = loaded
            self._record_detail("ModelCacheBytes", self._by_key.currsize)
        return loaded


def _previous_or_raise(previous: LoadedModel | None, error: RecsysError) -> LoadedModel:
    if previous is None:
        # Many requests raise the same stored error. A copy is raised, because each raise appends frames to a traceback.
        raise copy.copy(error) from error.__cause__
    return previous
