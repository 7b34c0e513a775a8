"""Write and read the interactions of a version, to which a later file can be added.

`interactions.parquet` contains one row per distinct (user, item) pair, with the earliest time of the pair and a row
number, which orders pairs with the same time. Nothing else of earlier files is used. Adding the same file twice
therefore changes nothing (docs/decisions/0047-append.md).
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from recsys_train.data.fields import Column
from recsys_train.data.interactions import Interactions
from recsys_train.data.rows import ValidRows, is_of_users
from recsys_train.data.times import MISSING_TIME

_USER, _ITEM, _ROW, _TIME = "user_id", "item_id", "file_row", "time"
_TIME_TYPE: Final = pa.timestamp("us", tz="UTC")
_CHUNK_ROWS: Final = 1_000_000
"""Rows per chunk when reading and writing. Not tuned."""


@dataclass(frozen=True, slots=True)
class History:
    """The interactions of a version, in a file on disk.

    Parameters
    ----------
    path
        A file that `write_history` wrote.
    version
        Name of the version, for the data report.
    erased_users
        Users whose rows are left out.

    Examples
    --------
    >>> import tempfile
    >>> users, items, times = np.array([0, 1], "i4"), np.array([0, 0], "i4"), np.array([5, 7])
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "interactions.parquet"
    >>> write_history(path, Interactions(["anna", "ben"], ["tea"], users, items, times))
    >>> history = History(path, "job.1", erased_users={"ben"})
    >>> history.has_times, [rows.users[0].decode() for rows in history.chunks()]
    (True, ['anna'])
    >>> folder.cleanup()
    """

    path: Path
    version: str
    erased_users: Container[str] = ()

    @property
    def has_times(self) -> bool:
        """Whether the interactions have times."""
        return _TIME in pq.read_schema(self.path).names

    def chunks(self) -> Iterator[ValidRows]:
        """Yield the rows in chunks, without the rows of erased users."""
        with pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(_CHUNK_ROWS):
                users, items = (Column(batch.column(name).cast(pa.binary())) for name in (_USER, _ITEM))
                times = _times(batch.column(_TIME)) if _TIME in batch.schema.names else np.zeros(len(batch), np.int64)
                file_rows = batch.column(_ROW).to_numpy()
                yield ValidRows(users, items, times, file_rows).selected(~is_of_users(users, self.erased_users))


@dataclass(frozen=True, slots=True)
class KeyData:
    """Data of a key that a training uses in addition to the file.

    Parameters
    ----------
    history
        Interactions to which the file's interactions are added, or None.
    erased_users
        Users who were erased after the file arrived. Their rows in the file are skipped.
    """

    history: History | None = None
    erased_users: Container[str] = ()


def write_history(path: Path, interactions: Interactions) -> None:
    """Write the interactions of a version, oldest first, to a Parquet file compressed with zstd.

    The columns are `user_id`, `item_id`, `file_row` and, if the data has times, `time`. A missing time is null.
    """
    ids = {
        name: pa.array(values, pa.large_string())
        for name, values in ((_USER, interactions.user_ids), (_ITEM, interactions.item_ids))
    }
    fields: list[Any] = [*(pa.field(name, pa.large_string()) for name in ids), pa.field(_ROW, pa.int64())]
    if interactions.times is not None:
        fields.append(pa.field(_TIME, _TIME_TYPE))
    schema = pa.schema(fields)
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for begin in range(0, len(interactions), _CHUNK_ROWS):
            rows = slice(begin, begin + _CHUNK_ROWS)
            columns: list[Any] = [ids[_USER].take(interactions.users[rows]), ids[_ITEM].take(interactions.items[rows])]
            file_rows = (
                np.arange(len(interactions))[rows] if interactions.file_rows is None else interactions.file_rows[rows]
            )
            columns.append(pa.array(file_rows))
            if interactions.times is not None:
                times = interactions.times[rows]
                columns.append(pa.array(times, mask=times == MISSING_TIME).cast(_TIME_TYPE))
            writer.write_table(pa.table(columns, schema=schema))


def in_canonical_order(interactions: Interactions) -> Interactions:
    """Sort pairs by time, user id, row number and item id, and number the ids by first appearance.

    The result does not depend on the order in which the files were added. Pairs of the same user and time, such as the
    lines of an order, keep their order in the file. Without times, pairs are sorted by their ids alone and get the row
    number 0, because their order in a file has no meaning. A pair with a missing time comes first. Ids are compared by
    their UTF-8 bytes.
    """
    users, items = _ranks(interactions.user_ids)[interactions.users], _ranks(interactions.item_ids)[interactions.items]
    times, file_rows = interactions.times, interactions.file_rows
    if times is None or file_rows is None:
        order, file_rows = np.lexsort((items, users)), np.zeros(len(users), dtype=np.int64)
    else:
        order = np.lexsort((items, file_rows, users, times))
    user_ids, users = _numbered(interactions.user_ids, interactions.users[order])
    item_ids, items = _numbered(interactions.item_ids, interactions.items[order])
    return Interactions(user_ids, item_ids, users, items, None if times is None else times[order], file_rows[order])


def _ranks(ids: list[str]) -> NDArray[np.int32]:
    """Return the rank of each id in the order of UTF-8 bytes, (n_ids,) int32."""
    ranks = np.empty(len(ids), dtype=np.int32)
    ranks[np.array(pc.sort_indices(pa.array(ids, pa.large_string())), dtype=np.int64)] = np.arange(len(ids))
    return ranks


def _numbered(ids: list[str], indices: NDArray[np.int32]) -> tuple[list[str], NDArray[np.int32]]:
    """Return the ids that `indices` refers to, in order of first appearance, and the indices into this list, int32."""
    encoded: Any = pa.array(indices).dictionary_encode()
    return [ids[index] for index in encoded.dictionary.to_pylist()], encoded.indices.to_numpy()


def _times(array: Any) -> NDArray[np.int64]:
    times: NDArray[np.int64] = pc.fill_null(array.cast(pa.int64()), MISSING_TIME).to_numpy(zero_copy_only=False)
    return times
