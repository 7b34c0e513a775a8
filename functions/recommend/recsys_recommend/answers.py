"""Answers that may be asked for again: as many as fit into the memory set aside, the least recently used go first."""

from __future__ import annotations

import hashlib
import json
from dataclasses import fields
from typing import Final

from cachetools import LRUCache

from recsys_recommend.models import LoadedModel, ModelName
from recsys_recommend.questions import Question, to_json

_OVERHEAD_BYTES: Final = 300
"""What an entry takes beside its answer: the digest, two objects and its places in the cache."""


class AnswerCache:
    """Answers by model and question.

    A place is a digest of all that an answer depends on, the key and the version among it, so that another key's or
    another version's answer is never met.

    Parameters
    ----------
    max_bytes
        Memory for all of them; 0 keeps none. A larger answer is not kept.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._answers: LRUCache[bytes, bytes] = LRUCache(max_bytes, getsizeof=_size_bytes)

    def answer(self, loaded: LoadedModel, question: Question) -> bytes:
        """The model's answer as JSON, found or made."""
        place = _place(loaded.name, question)
        answer = self._answers.get(place)
        if answer is None:
            answer = to_json(question.answer(loaded.model))
            if _size_bytes(answer) <= self._answers.maxsize:
                self._answers[place] = answer
        return answer


def _place(name: ModelName, question: Question) -> bytes:
    asked = [getattr(question, field.name) for field in fields(question)]
    whole = [name.key_id, name.version, name.manifest_sha256, type(question).__name__, *asked]
    return hashlib.sha256(json.dumps(whole).encode()).digest()


def _size_bytes(answer: bytes) -> int:
    return len(answer) + _OVERHEAD_BYTES
