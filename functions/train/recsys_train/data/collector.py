"""Collect the valid rows of a file as distinct (user, item) pairs, which refer to ids by index."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys_train.data.interactions import Interactions, ParsedRows, distinct_rows, distinct_share
from recsys_train.data.rows import ValidRows
from recsys_train.data.vocabulary_builder import VocabularyBuilder

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
    _parts: list[ParsedRows] = field(default_factory=list)
    _new_times: list[tuple[NDArray[np.int64], NDArray[np.int64] | None]] = field(default_factory=list)
    _n_file_rows: int = 0
    _n_new: int = 0
    _users: VocabularyBuilder = field(default_factory=VocabularyBuilder)
    _items: VocabularyBuilder = field(default_factory=VocabularyBuilder)

    def add(self, rows: ValidRows) -> None:
        """Add the valid rows of a chunk. Repeated pairs are merged if many rows were added since the previous merge."""
        if not len(rows.times):
            return
        self._users.add(rows.users)
        self._items.add(rows.items)
        self._new_times.append((rows.times, self._numbers(rows) if self.is_append else None))
        self._n_new += len(rows.times)
        n_bytes = self._users.n_pending_bytes + self._items.n_pending_bytes
        if self._n_new >= max(MERGE_ROWS, sum(map(len, self._parts))) or n_bytes > _MAX_PENDING_BYTES:
            self._number_ids()
            if distinct_share(self._parts) < MERGE_SHARE:
                self._parts = [distinct_rows(self._parts)]

    def _numbers(self, rows: ValidRows) -> NDArray[np.int64]:
        """Return the row numbers of a chunk, (n,) int64.

        Rows of an earlier file keep their numbers. The rows of the current file are counted from 0.
        """
        if rows.file_rows is not None:
            return rows.file_rows
        first = self._n_file_rows
        self._n_file_rows += len(rows.times)
        return np.arange(first, self._n_file_rows)

    def _number_ids(self) -> None:
        """Number the ids of the new rows."""
        new = zip(self._users.indices(), self._items.indices(), self._new_times, strict=True)
        parts = [ParsedRows(users, items, *times) for users, items, times in new]
        if parts:
            self._parts.append(ParsedRows.joined(parts))
        self._new_times, self._n_new = [], 0

    def interactions(self, *, has_times: bool = False) -> Interactions:
        """Return the distinct (user, item) pairs of all added rows, oldest first.

        The result contains the times if `has_times` is true.
        """
        self._number_ids()
        if not self._parts:
            return Interactions([], [], np.zeros(0, np.int32), np.zeros(0, np.int32))
        rows = distinct_rows(self._parts)
        times = rows.times if has_times else None
        return Interactions(self._users.ids(), self._items.ids(), rows.users, rows.items, times, rows.file_rows)
