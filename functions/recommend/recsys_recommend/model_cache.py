"""Loaded models: as many as fit into the memory set aside, the least recently used go first."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache, TTLCache

from recsys.errors import ArtifactDamaged, RecsysError, Unavailable
from recsys.model.recommender import ServingModel

_logger: Final = logging.getLogger("recsys.models")
_RETRY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ModelName:
    """One version of one key's model, and the digest of its manifest that the registry trusts."""

    key_id: str
    version: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, and which one it is."""

    name: ModelName
    model: ServingModel


@dataclass(frozen=True, slots=True)
class _Loading:
    task: asyncio.Task[LoadedModel]
    since_s: float


class ModelCache:
    """Models by key, loaded when they are asked for. For the coroutines of one event loop.

    While another version is loaded, the one before answers: nobody waits for a version that can be seen to be coming.

    Parameters
    ----------
    load
        Reads a model; raises `ArtifactDamaged` or `Unavailable`. Runs in a thread.
    max_bytes
        Memory for all models together, as `ServingModel.size_bytes` counts it. A larger one is loaded for every
        request that needs it, and not kept.
    patience_s
        For how long the version before answers at most. A server's thread goes on by itself; Lambda's stands still
        between two requests, so there one of them has to wait when they are few.
    count
        Is told `ModelLoaded` and `ModelFailed`, for metrics.
    timer
        Seconds that only rise.
    """

    def __init__(
        self,
        load: Callable[[ModelName], ServingModel],
        *,
        max_bytes: int,
        patience_s: float = math.inf,
        count: Callable[[str], None] = lambda _: None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._patience_s = patience_s
        self._count = count
        self._timer = timer
        self._by_key: LRUCache[str, LoadedModel] = LRUCache(max_bytes, getsizeof=lambda loaded: loaded.model.size_bytes)
        self._loading: dict[ModelName, _Loading] = {}
        # A version that cannot be read is not read again with every request.
        self._failed: TTLCache[ModelName, RecsysError] = TTLCache(1000, _RETRY_S, timer)

    async def get(self, name: ModelName) -> LoadedModel:
        """The model of that name; while it is loaded, or cannot be, the one of the same key that was loaded before.

        However many ask for it at once, it is read once.

        Raises
        ------
        ArtifactDamaged, Unavailable
            It cannot be read, and no other of the key is loaded.
        """
        before = self._by_key.get(name.key_id)
        if before is not None and before.name == name:
            return before
        if name in self._failed:
            return _or_raise(before, self._failed[name])
        loading = self._start(name)
        if before is not None and self._timer() - loading.since_s < self._patience_s:
            return before
        try:
            # Shielded: a client that hangs up must not take the model away from the others that wait for it.
            return await asyncio.shield(loading.task)
        except (ArtifactDamaged, Unavailable) as error:
            return _or_raise(before, error)

    def _start(self, name: ModelName) -> _Loading:
        """The loading of that model, which may be under way."""
        loading = self._loading.get(name)
        if loading is None:
            task = asyncio.create_task(self._load_and_keep(name))
            loading = self._loading[name] = _Loading(task, self._timer())
            task.add_done_callback(lambda ended: self._end(name, ended))
        return loading

    def _end(self, name: ModelName, task: asyncio.Task[LoadedModel]) -> None:
        self._loading.pop(name, None)
        if not task.cancelled() and isinstance(error := task.exception(), RecsysError):
            self._failed[name] = error

    async def _load_and_keep(self, name: ModelName) -> LoadedModel:
        started = time.perf_counter()
        try:
            model = await asyncio.to_thread(self._load, name)
        except (ArtifactDamaged, Unavailable) as error:
            self._count("ModelFailed")
            where = {"key_id": name.key_id, "model_version": name.version}
            _logger.error("A model cannot be read: %s", error.detail, extra=where)
            raise
        self._count("ModelLoaded")
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
        return loaded


def _or_raise(before: LoadedModel | None, error: RecsysError) -> LoadedModel:
    if before is None:
        raise type(error)(error.detail, hint=error.hint)
    return before
