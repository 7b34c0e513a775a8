"""Number the distinct ids of a file.

Many ids have at most eight bytes, such as `4711` or `85123A`. They are hashed as integers, without a look at their
text. This takes a third of the time if there are a million different ids (docs/decisions/0068-reused-memory.md).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from recsys_train.data.fields import Column
from recsys_train.data.interactions import Int32s
from recsys_train.data.row_blocks import row_blocks

_LONG_ID: Final = pa.large_binary()  # offsets of 64 bits, because all ids together can exceed 2 GiB
_SHORT_BYTES: Final = 8
_MASKS: Final = np.array([2 ** (8 * n_bytes) - 1 for n_bytes in range(_SHORT_BYTES + 1)], np.uint64)
"""Masks of the first 0 to 8 bytes of a little-endian integer."""


@dataclass(slots=True)
class VocabularyBuilder:
    """A builder that assigns an index to each distinct id, in order of first appearance.

    The ids of many chunks are numbered in one call of pyarrow, which is faster than a call per chunk.

    Examples
    --------
    >>> builder = VocabularyBuilder()
    >>> for ids in ([b"tea", b"milk"], [b"milk", b"oat"]):
    ...     builder.add(Column(pa.array(ids)))
    >>> builder.indices(), builder.ids()
    ([array([0, 1], dtype=int32), array([1, 2], dtype=int32)], ['tea', 'milk', 'oat'])
    """

    _dictionary: Any = field(default_factory=lambda: pa.array([], pa.int64()))
    _pending: list[Column] = field(default_factory=list)

    def add(self, ids: Column) -> None:
        """Add the ids of a chunk, which must not be empty. The next call of `indices` numbers them."""
        entries = _as_integers(ids.entries) if self._are_short else None
        if entries is None:
            self._convert_to_bytes()
            entries = ids.entries.cast(_LONG_ID)
        self._pending.append(ids.with_entries(entries))

    @property
    def _are_short(self) -> bool:
        return bool(pa.types.is_int64(self._dictionary.type))

    def _convert_to_bytes(self) -> None:
        if self._are_short:
            self._dictionary = _as_bytes(self._dictionary)
            self._pending = [ids.with_entries(_as_bytes(ids.entries)) for ids in self._pending]

    @property
    def n_pending_bytes(self) -> int:
        """Memory of the ids that have not been numbered yet, in bytes."""
        return sum(ids.entries.nbytes for ids in self._pending)

    def indices(self) -> list[Int32s]:
        """Return the indices of the ids in each chunk that was added since the previous call, (n_records,) int32."""
        pending, self._pending = self._pending, []
        if not pending:
            return []
        earlier = [self._dictionary] if len(self._dictionary) else []
        encoded: Any = pa.chunked_array([*earlier, *(ids.entries for ids in pending)]).dictionary_encode()
        self._dictionary = encoded.chunk(0).dictionary
        numbered = zip(pending, encoded.chunks[len(earlier) :], strict=True)
        return [ids.per_record(chunk.indices.to_numpy()) for ids, chunk in numbered]

    def ids(self) -> list[str]:
        """Return all ids in the order of their indices."""
        self._convert_to_bytes()
        texts: list[str] = self._dictionary.cast(pa.large_string()).to_pylist()
        return texts


def _as_integers(ids: Any) -> Any:
    """Return the bytes of each id as an int64, or None if an id is longer than eight bytes or contains NUL."""
    _, offsets, content = ids.buffers()
    ends = np.frombuffer(offsets, np.int32)[ids.offset : ids.offset + len(ids) + 1]
    characters = np.frombuffer(content, np.uint8)
    integers = np.empty(len(ids), np.uint64)
    for rows in row_blocks(len(ids)):
        starts, lengths = ends[rows], ends[rows.start + 1 : rows.stop + 1] - ends[rows]
        block = characters[starts[0] : ends[rows.stop]]
        if lengths.max() > _SHORT_BYTES or block.min() == 0:
            return None
        padded = np.append(block, np.zeros(_SHORT_BYTES, np.uint8))
        eight_bytes: NDArray[Any] = np.ndarray(len(block), "<u8", padded, strides=(1,))  # from each byte on
        np.bitwise_and(eight_bytes[starts - starts[0]], _MASKS.take(lengths, mode="clip"), out=integers[rows])
    return pa.array(integers.view(np.int64))


def _as_bytes(integers: Any) -> Any:
    """Return the ids from which `_as_integers` made these integers."""
    return pa.array(integers.to_numpy().view(f"S{_SHORT_BYTES}"), pa.large_binary())
