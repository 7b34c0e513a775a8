"""Keep item catalogues in memory, up to a size limit, and evict the least recently used first."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable
from typing import Any, Final, NamedTuple, TypeVar

import numpy as np
from cachetools import LRUCache, TTLCache
from numpy.typing import NDArray

from recsys.catalogue.catalogue import CATALOGUE_HINT, Catalogue, read_catalogue
from recsys.catalogue.content import ContentModel
from recsys.errors import ArtifactDamaged, ObjectNotFound, RecsysError, Unavailable
from recsys.keys.authentication import ModelName
from recsys.model.array_file import view_npz
from recsys.model.artifact import read_content
from recsys.model.new_items import NewItems
from recsys.objects import layout
from recsys.objects.store import ObjectReader
from recsys.registry.key_record import KeyRecord
from recsys_recommend.filtering.bound import BoundCatalogue
from recsys_recommend.model_cache import LoadedModel

T = TypeVar("T")
_logger: Final = logging.getLogger("recsys.catalogues")
_RETRY_S: Final = 10.0  # as in model_cache
_MAX_FAILURES: Final = 1000


_PARSER: Final = "parser"


class CatalogueName(NamedTuple):
    """The identity of one version of a key's catalogue, and the digest of the version's file."""

    key_id: str
    version: str
    sha256: str


def catalogue_name(key: KeyRecord) -> CatalogueName | None:
    """Return the name of the catalogue of a key, or None if the key has no catalogue."""
    if key.catalogue_version is None or key.catalogue_sha256 is None:
        return None
    return CatalogueName(key.key_id, key.catalogue_version, key.catalogue_sha256)


class _Bound(NamedTuple):
    name: CatalogueName
    catalogue: BoundCatalogue


class CatalogueCache:
    """A cache that loads catalogues on demand and keeps them in memory.

    Instances are not thread-safe, so use each instance from one event loop only. While a new version of a catalogue
    loads, the previous version is used if it is in memory, so that no request waits for the new version.

    Parameters
    ----------
    store
        Object store with the catalogues. It is read in a thread.
    max_bytes
        Memory for all catalogues together, in bytes. Copies with the rows in the order of a model's items can take the
        same amount in addition. A catalogue larger than `max_bytes` is loaded for each request and not kept.
    exploration
        Largest share of new items in a list, in [0, 1], for requests that do not state a share.
    count_metric
        Function that is called with `CatalogueLoaded` or `CatalogueFailed` after each attempt to load a catalogue.
    """

    def __init__(
        self, store: ObjectReader, *, max_bytes: int, exploration: float, count_metric: Callable[[str], None]
    ) -> None:
        self._store = store
        self._exploration = exploration
        self._count_metric = count_metric
        self._catalogues: LRUCache[CatalogueName, Catalogue] = LRUCache(
            max_bytes, getsizeof=lambda catalogue: catalogue.size_bytes
        )
        self._bound: LRUCache[Hashable, _Bound] = LRUCache(
            max_bytes, getsizeof=lambda bound: bound.catalogue.size_bytes
        )
        self._tasks: dict[Hashable, asyncio.Task[Any]] = {}
        self._failures: TTLCache[CatalogueName, RecsysError] = TTLCache(_MAX_FAILURES, _RETRY_S)

    async def get(self, name: CatalogueName) -> Catalogue:
        """Return a catalogue, from memory if possible.

        Raises
        ------
        ArtifactDamaged
            The file is missing or does not match its digest.
        Unavailable
            The object store did not respond.
        """
        found = self._catalogues.get(name)
        if found is not None:
            return found
        return await self._once(name, lambda: self._load(name))

    async def bound(self, name: CatalogueName, loaded: LoadedModel) -> BoundCatalogue:
        """Return a catalogue with its items in the order of a model's items, followed by the new items.

        While a new version of the catalogue loads, the previous version is returned if it is in memory.

        Raises
        ------
        ArtifactDamaged, Unavailable
            For the same reasons as in `get`. If the previous version is in memory, nothing is raised.
        """
        previous = self._bound.get(loaded.name)
        if previous is not None and previous.name == name:
            return previous.catalogue
        task = self._start((loaded.name, name), self._bind(name, loaded))
        if previous is not None:
            return previous.catalogue
        return await asyncio.shield(task)

    async def _bind(self, name: CatalogueName, loaded: LoadedModel) -> BoundCatalogue:
        catalogue = await self.get(name)
        bound = await asyncio.to_thread(self._bind_to_model, name.version, catalogue, loaded)
        if bound.size_bytes <= self._bound.maxsize:
            self._bound[loaded.name] = _Bound(name, bound)
        self._start(_PARSER, asyncio.to_thread(_prepare_parser))
        return bound

    def _bind_to_model(self, version: str, catalogue: Catalogue, loaded: LoadedModel) -> BoundCatalogue:
        model = loaded.model

        def embed(catalogue: Catalogue, rows: NDArray[np.int64]) -> NewItems | None:
            try:
                content = self._content(catalogue, loaded.name)
                return None if content is None else content.new_items(catalogue, rows, model.network)
            except (ArtifactDamaged, ObjectNotFound, KeyError, ValueError) as error:
                # The model and the catalogue can be used without new items.
                fields = {"key_id": loaded.name.key_id, "model_version": loaded.name.version}
                _logger.error("The content part of a model cannot be used: %s", error, extra=fields)
                return None

        return BoundCatalogue(version, catalogue, model.items, exploration=self._exploration, embed=embed)

    def _content(self, catalogue: Catalogue, name: ModelName) -> ContentModel | None:
        """Return the content part of a model version, or None if there is none.

        The content part computes the embeddings of new items. The content part in the catalogue is used if it was
        fitted for this version. Otherwise, the content part in the files of the version is used.
        """
        fitted = catalogue.content
        if fitted is not None and fitted.model_version == name.version:
            return ContentModel.of(fitted.arrays)
        prefix = layout.model_prefix(name.key_id, name.version)
        content = read_content(lambda file: self._store.read(prefix + file), manifest_sha256=name.manifest_sha256)
        return None if content is None else ContentModel.of(view_npz(content))

    async def _once(self, name: CatalogueName, load: Callable[[], Catalogue]) -> Catalogue:
        if name in self._failures:
            raise self._failures[name]

        async def load_and_keep() -> Catalogue:
            try:
                catalogue = await asyncio.to_thread(load)
            except (ArtifactDamaged, Unavailable) as error:
                self._failures[name] = error
                self._count_metric("CatalogueFailed")
                _logger.error("A catalogue cannot be loaded: %s", error.detail, extra={"key_id": name.key_id})
                raise
            self._count_metric("CatalogueLoaded")
            if catalogue.size_bytes <= self._catalogues.maxsize:
                self._catalogues[name] = catalogue
            return catalogue

        return await asyncio.shield(self._start(name, load_and_keep()))

    def _start(self, key: Hashable, work: Any) -> asyncio.Task[Any]:
        """Return the running task with this key, or start a task with `work` if none is running."""
        task = self._tasks.get(key)
        if task is not None:
            work.close()
            return task
        task = self._tasks[key] = asyncio.create_task(work)
        task.add_done_callback(lambda ended: self._end(key, ended))
        return task

    def _end(self, key: Hashable, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(key, None)
        if not task.cancelled():
            task.exception()  # retrieved here, because asyncio would log an exception that no request has retrieved

    def _load(self, name: CatalogueName) -> Catalogue:
        path = layout.catalogue_prefix(name.key_id, name.version) + layout.CATALOGUE_FILE
        try:
            content = self._store.read(path)
        except ObjectNotFound as error:
            raise ArtifactDamaged("The file of the item catalogue is missing.", hint=CATALOGUE_HINT) from error
        return read_catalogue(content, sha256=name.sha256)


def _prepare_parser() -> None:
    """Import the parser of filters in the background. The first filter would otherwise wait 0.1 s for this import."""
    from recsys_recommend.filtering import expression  # noqa: PLC0415  # see above

    expression.parse("available")
