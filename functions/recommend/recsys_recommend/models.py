"""Loaded models: as many as fit into the memory set aside, the least recently used go first."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from cachetools import LRUCache, TTLCache

from recsys.errors import ArtifactDamaged, RecsysError, Unavailable
from recsys.ranking import ServingModel

_logger: Final = logging.getLogger("recsys.models")
_RETRY_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class ModelName:
    """One version of one key's model, and the digest of its manifest that the registry trusts."""

    key_id: str
    version: str
    manifest_sha256: str


@dataclass(frozen=True, slots=True)
class _Loaded:
    name: ModelName
    model: ServingModel


class ModelCache:
    """Models by key, loaded when they are asked for. For the coroutines of one event loop.

    Parameters
    ----------
    load
        Reads a model; raises `ArtifactDamaged` or `Unavailable`. Runs in a thread.
    max_bytes
        Memory for all models together, as `ServingModel.size_bytes` counts it. A larger one is loaded for every
        request that needs it, and not kept.
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
        count: Callable[[str], None] = lambda _: None,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._load = load
        self._max_bytes = max_bytes
        self._count = count
        self._by_key: LRUCache[str, _Loaded] = LRUCache(max_bytes, getsizeof=lambda loaded: loaded.model.size_bytes)
        self._loading: dict[ModelName, asyncio.Task[ServingModel]] = {}
        # A version that cannot be read is not read again with every request.
        self._failed: TTLCache[ModelName, RecsysError] = TTLCache(1000, _RETRY_S, timer)

    async def get(self, name: ModelName) -> ServingModel:
        """The model of that name; while it cannot be read, the one of the same key that was loaded before.

        However many ask for it at once, it is read once.

        Raises
        ------
        ArtifactDamaged, Unavailable
            It cannot be read, and no other of the key is loaded.
        """
        loaded = self._by_key.get(name.key_id)
        if loaded is not None and loaded.name == name:
            return loaded.model
        try:
            return await self._read(name)
        except (ArtifactDamaged, Unavailable) as error:
            self._failed.setdefault(name, error)
            loaded = self._by_key.get(name.key_id)
            if loaded is None:
                raise
            return loaded.model

    async def _read(self, name: ModelName) -> ServingModel:
        failure = self._failed.get(name)
        if failure is not None:
            raise type(failure)(failure.detail)
        task = self._loading.get(name)
        if task is None:
            task = self._loading[name] = asyncio.create_task(self._load_and_keep(name))
            task.add_done_callback(lambda _: self._loading.pop(name, None))
        # Shielded: a client that hangs up must not take the model away from the others that wait for it.
        return await asyncio.shield(task)

    async def _load_and_keep(self, name: ModelName) -> ServingModel:
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
        if model.size_bytes <= self._max_bytes:
            self._by_key[name.key_id] = _Loaded(name, model)
        return model
