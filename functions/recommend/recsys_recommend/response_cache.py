"""Answers that may be asked for again: as many as fit into the memory set aside, the least recently used go first."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Final

from cachetools import LRUCache

from recsys_recommend.model_cache import LoadedModel, ModelName
from recsys_recommend.queries import ModelQuery, to_json

_OVERHEAD_BYTES: Final = 300
"""What an entry takes beside its answer: the digest, two objects and its places in the cache."""


class ResponseCache:
    """Answers by model and query.

    A cache_key is a digest of all that an answer depends on, the key and the version among it, so that another key's or
    another version's answer is never met.

    Parameters
    ----------
    max_bytes
        Memory for all of them; 0 keeps none. A larger answer is not kept.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._answers: LRUCache[bytes, bytes] = LRUCache(max_bytes, getsizeof=_size_bytes)

    def answer(self, loaded: LoadedModel, query: ModelQuery) -> bytes:
        """The model's answer as JSON, found or made."""
        cache_key = _cache_key(loaded.name, query)
        answer = self._answers.get(cache_key)
        if answer is None:
            answer = to_json(query.answer(loaded.model))
            if _size_bytes(answer) <= self._answers.maxsize:
                self._answers[cache_key] = answer
        return answer


def _cache_key(name: ModelName, query: ModelQuery) -> bytes:
    asked = [getattr(query, field.name) for field in fields(query)]
    whole = [name.key_id, name.version, name.manifest_sha256, type(query).__name__, *asked]
    return hashlib.sha256(json.dumps(whole).encode()).digest()


def _size_bytes(answer: bytes) -> int:
    return len(answer) + _OVERHEAD_BYTES
