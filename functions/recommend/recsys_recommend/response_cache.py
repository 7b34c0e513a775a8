"""Keep responses in memory, up to a size limit, and evict the least recently used first."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Final

from cachetools import LRUCache

from recsys.keys.authentication import ModelName
from recsys_recommend.model_cache import LoadedModel, RecordDetail
from recsys_recommend.queries import ModelQuery, to_json

if TYPE_CHECKING:  # the import would lengthen the cold start of a key without a catalogue
    from recsys_recommend.filtering.bound import BoundCatalogue

_OVERHEAD_BYTES: Final = 300
"""Estimated memory of an entry in addition to the response, for the digest, two object headers and the cache's links.
"""


class ResponseCache:
    """A cache that computes responses to queries and keeps them in memory for repeated queries.

    A response is stored under a digest of the query, the id of the API key, and the versions of the model and the
    catalogue. Therefore a response is never served to another key, or after the model or the catalogue has changed.

    Parameters
    ----------
    max_bytes
        Memory for all responses together, in bytes; 0 disables the cache. A larger response is not kept.
    record_detail
        Function that is called with `ResponseCacheHit` or `ResponseCacheMiss` and 1 for each request, and with
        `ResponseCacheBytes` and the number of bytes in use after each new entry.
    """

    def __init__(self, *, max_bytes: int, record_detail: RecordDetail = lambda _name, _value: None) -> None:
        self._record_detail = record_detail
        self._responses: LRUCache[bytes, bytes] = LRUCache(max_bytes, getsizeof=_size_bytes)

    def get(self, loaded: LoadedModel, query: ModelQuery, catalogue: BoundCatalogue | None = None) -> bytes:
        """Return the response to `query` as UTF-8 JSON, from the cache or newly computed."""
        cache_key = _cache_key(loaded.name, query, None if catalogue is None else catalogue.version)
        response = self._responses.get(cache_key)
        if response is not None:
            self._record_detail("ResponseCacheHit", 1)
            return response
        self._record_detail("ResponseCacheMiss", 1)
        response = to_json(query.run(loaded.model, catalogue))
        if _size_bytes(response) <= self._responses.maxsize:
            self._responses[cache_key] = response
            self._record_detail("ResponseCacheBytes", self._responses.currsize)
        return response


def _cache_key(name: ModelName, query: ModelQuery, catalogue_version: str | None) -> bytes:
    inputs = [*name, catalogue_version, type(query).__name__, *query.cache_fields()]
    return hashlib.sha256(json.dumps(inputs).encode()).digest()


def _size_bytes(response: bytes) -> int:
    return len(response) + _OVERHEAD_BYTES
