"""Collect the valid rows of all chunks as distinct pairs of indices."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_train.data.fields import Column
from recsys_train.data.interactions import Int32s, Interactions, ParsedRows
from recsys_train.data.rows import ValidRows

MERGE_ROWS: Final = 4_000_000
"""Repeated pairs are merged once this many new rows (or as many as there are merged ones) have accumulated."""
_ID: Final = pa.large_binary()  # offsets of 64 bits, because all ids together can exceed 2 GiB


@dataclass(slots=True)
class _VocabularyBuilder:
    """Numbers ids in order of first appearance. pyarrow does the hashing when it unifies the chunks' dictionaries."""

    dictionary: Any = field(default_factory=lambda: pa.array([], _ID))
    _pending: list[Column] = field(default_factory=list)

    def add(self, ids: Column) -> None:
        """Add the ids of a chunk."""
        self._pending.append(ids)

    def indices(self) -> list[Int32s]:
        """Return the indices of the ids of each chunk that was added since the previous call."""
        known = pa.DictionaryArray.from_arrays(pa.array([], pa.int32()), self.dictionary)
        chunks = [
            pa.DictionaryArray.from_arrays(pa.array(ids.codes, pa.int32()), ids.dictionary.cast(_ID))
            for ids in self._pending
        ]
        unified: Any = pa.chunked_array([known, *chunks]).unify_dictionaries()
        self._pending = []
        self.dictionary = unified.chunk(0).dictionary
        return [chunk.indices.to_numpy() for chunk in unified.chunks[1:]]

    def ids(self) -> list[str]:
        """Return all ids in the order of their indices."""
        texts: list[str] = self.dictionary.cast(pa.large_string()).to_pylist()
        return texts


@dataclass(slots=True)
class InteractionCollector:
    """Collects the valid rows of all chunks. Repeated pairs are merged from time to time to save memory.

    Parameters
    ----------
    is_append
        Whether the rows are added to those of earlier files, so that row numbers are needed.
    """

    is_append: bool = False
    _merged: ParsedRows | None = None
    _times: list[NDArray[np.int64]] = field(default_factory=list)
    _file_rows: list[NDArray[np.int64] | None] = field(default_factory=list)
    _n_file_rows: int = 0
    _n_new: int = 0
    _users: _VocabularyBuilder = field(default_factory=_VocabularyBuilder)
    _items: _VocabularyBuilder = field(default_factory=_VocabularyBuilder)

    def add(self, rows: ValidRows) -> None:
        """Add the rows of a chunk."""
        self._users.add(rows.users)
        self._items.add(rows.items)
        self._times.append(rows.times)
        self._file_rows.append(self._numbers(rows) if self.is_append else None)
        self._n_new += len(rows.times)
        if self._n_new >= max(MERGE_ROWS, len(self._merged) if self._merged is not None else 0):
            self._merge()

    def _numbers(self, rows: ValidRows) -> NDArray[np.int64]:
        """Return the row numbers: those of an earlier file, or the next ones of the file that is being read."""
        if rows.file_rows is not None:
            return rows.file_rows
        first = self._n_file_rows
        self._n_file_rows += len(rows.times)
        return np.arange(first, self._n_file_rows)

    def _merge(self) -> ParsedRows:
        parts = [self._merged] if self._merged is not None else []
        columns = zip(self._users.indices(), self._items.indices(), self._times, self._file_rows, strict=True)
        parts += [ParsedRows(*column) for column in columns]
        self._merged = ParsedRows.joined(parts).distinct()
        self._times, self._file_rows, self._n_new = [], [], 0
        return self._merged

    def interactions(self, *, has_times: bool = False) -> Interactions:
        """Return the distinct (user, item) pairs of all added rows, oldest first, with their times if `has_times`."""
        if self._merged is None and not self._times:
            return Interactions([], [], np.zeros(0, np.int32), np.zeros(0, np.int32))
        rows = self._merge() if self._times or self._merged is None else self._merged
        times = rows.times if has_times else None
        return Interactions(self._users.ids(), self._items.ids(), rows.users, rows.items, times, rows.file_rows)
