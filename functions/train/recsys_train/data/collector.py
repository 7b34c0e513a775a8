"""Collect the valid rows of a file as distinct (user, item) pairs, which refer to ids by index."""

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
"""Smallest number of new rows after which a merge of repeated pairs is considered. If there are more earlier rows, as
many new rows as earlier rows are required.
"""
MERGE_SHARE: Final = 0.5
"""Repeated pairs are merged only if less than this share of the rows are distinct, because merging sorts all rows."""
_MAX_PENDING_BYTES: Final = 512 * 1024 * 1024
"""Limit of the memory for the ids of new rows. Above the limit, the ids are numbered early, so that long ids do not
fill the memory.
"""
_ID: Final = pa.large_binary()  # offsets of 64 bits, because all ids together can exceed 2 GiB


@dataclass(slots=True)
class _VocabularyBuilder:
    """A builder that assigns an index to each distinct id, in order of first appearance.

    The ids of many chunks are numbered in one call of pyarrow, which is faster than a call per chunk.
    """

    dictionary: Any = field(default_factory=lambda: pa.array([], _ID))
    _pending: list[Column] = field(default_factory=list)

    def add(self, ids: Column) -> None:
        """Add the ids of a chunk. The next call of `indices` numbers them."""
        self._pending.append(ids)

    @property
    def n_pending_bytes(self) -> int:
        """Memory of the ids that have not been numbered yet, in bytes."""
        return sum(ids.entries.nbytes for ids in self._pending)

    def indices(self) -> Int32s:
        """Return the index of each id in the chunks that were added since the previous call, (n_records,) int32."""
        pending, self._pending = self._pending, []
        parts = [self.dictionary, *(ids.entries.cast(_ID) for ids in pending)]
        encoded: Any = pa.chunked_array(parts).dictionary_encode()
        if not encoded.num_chunks:
            return np.zeros(0, np.int32)
        self.dictionary = encoded.chunk(0).dictionary
        indices: Int32s = pa.concat_arrays([chunk.indices for chunk in encoded.chunks]).to_numpy()
        ends = np.cumsum([len(part) for part in parts])
        if not any(ids.is_encoded for ids in pending):
            return indices[ends[0] :]
        numbered = zip(pending, ends[:-1], ends[1:], strict=True)
        return np.concatenate([ids.per_record(indices[start:end]) for ids, start, end in numbered])

    def ids(self) -> list[str]:
        """Return all ids in the order of their indices."""
        texts: list[str] = self.dictionary.cast(pa.large_string()).to_pylist()
        return texts


@dataclass(slots=True)
class InteractionCollector:
    """A collector that keeps valid rows as distinct (user, item) pairs.

    Repeated pairs are merged while rows arrive, so that less memory is needed.

    Parameters
    ----------
    is_append
        Whether the file is added to the interactions of a model version. If so, the rows are numbered, so that rows
        from different files have a defined order if their times are equal.
    """

    is_append: bool = False
    _rows: ParsedRows | None = None
    _times: list[NDArray[np.int64]] = field(default_factory=list)
    _file_rows: list[NDArray[np.int64] | None] = field(default_factory=list)
    _n_file_rows: int = 0
    _n_new: int = 0
    _users: _VocabularyBuilder = field(default_factory=_VocabularyBuilder)
    _items: _VocabularyBuilder = field(default_factory=_VocabularyBuilder)

    def add(self, rows: ValidRows) -> None:
        """Add the valid rows of a chunk. Repeated pairs are merged if many rows were added since the previous merge."""
        self._users.add(rows.users)
        self._items.add(rows.items)
        self._times.append(rows.times)
        self._file_rows.append(self._numbers(rows) if self.is_append else None)
        self._n_new += len(rows.times)
        n_earlier = len(self._rows) if self._rows is not None else 0
        n_bytes = self._users.n_pending_bytes + self._items.n_pending_bytes
        if self._n_new >= max(MERGE_ROWS, n_earlier) or n_bytes > _MAX_PENDING_BYTES:
            rows_so_far = self._joined()
            if rows_so_far.distinct_share() < MERGE_SHARE:
                self._rows = rows_so_far.distinct()

    def _numbers(self, rows: ValidRows) -> NDArray[np.int64]:
        """Return the row numbers of a chunk, (n,) int64.

        Rows of an earlier file keep their numbers. The rows of the current file are counted from 0.
        """
        if rows.file_rows is not None:
            return rows.file_rows
        first = self._n_file_rows
        self._n_file_rows += len(rows.times)
        return np.arange(first, self._n_file_rows)

    def _joined(self) -> ParsedRows:
        """Number the ids of the new rows, append the new rows to the earlier rows, and return all of them."""
        file_rows = [numbers for numbers in self._file_rows if numbers is not None]
        times = np.concatenate([np.zeros(0, np.int64), *self._times])
        numbers = np.concatenate([np.zeros(0, np.int64), *file_rows]) if self.is_append else None
        new = ParsedRows(self._users.indices(), self._items.indices(), times, numbers)
        self._times, self._file_rows, self._n_new = [], [], 0
        self._rows = new if self._rows is None else ParsedRows.joined([self._rows, new])
        return self._rows

    def interactions(self, *, has_times: bool = False) -> Interactions:
        """Return the distinct (user, item) pairs of all added rows, oldest first.

        The result contains the times if `has_times` is true.
        """
        if self._rows is None and not self._times:
            return Interactions([], [], np.zeros(0, np.int32), np.zeros(0, np.int32))
        rows = self._joined().distinct()
        times = rows.times if has_times else None
        return Interactions(self._users.ids(), self._items.ids(), rows.users, rows.items, times, rows.file_rows)
