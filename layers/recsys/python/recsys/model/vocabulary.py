"""Vocabulary and their rows in the arrays: as small as their text, and read without parsing it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary(Sequence[str]):
    """Distinct ids; the place of one is its row. A look-up is a binary search, some microseconds among a million.

    Parameters
    ----------
    text
        All ids in UTF-8, one after the other, (n_bytes,) uint8.
    starts
        Where each begins, and where the last ends, (n + 1,) int64.
    order
        Rows in rising order of their ids' bytes, (n,) int32.
    """

    text: NDArray[np.uint8]
    starts: NDArray[np.int64]
    order: NDArray[np.int32]
    _views: tuple[memoryview, memoryview, memoryview] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        # Reading one number through a view takes a tenth of the time that NumPy takes; making the view, many times it.
        object.__setattr__(self, "_views", (self.text.data, self.starts.data, self.order.data))

    @classmethod
    def of(cls, ids: Sequence[str]) -> Self:
        """The ids of a list, each at its place."""
        encoded = [each.encode() for each in ids]
        starts = np.zeros(len(ids) + 1, dtype=np.int64)
        np.cumsum([len(each) for each in encoded], out=starts[1:])
        order = sorted(range(len(encoded)), key=encoded.__getitem__)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), starts, np.array(order, dtype=np.int32))

    @property
    def is_sound(self) -> bool:
        """Whether every look-up ends in an id of the text, whoever made the arrays."""
        text, starts, order = self.text, self.starts, self.order
        if starts.ndim != 1 or len(starts) == 0 or order.shape != (len(starts) - 1,):
            return False
        if starts[0] != 0 or starts[-1] != len(text) or (np.diff(starts) < 0).any():
            return False
        if len(order) and not 0 <= order.min() <= order.max() < len(order):
            return False
        try:
            str(text.data, "utf-8")
        except UnicodeDecodeError:
            return False
        begins = text[starts[:-1][np.diff(starts) > 0]]
        return not ((begins & 0xC0) == 0x80).any()  # none begins inside a character

    def find(self, wanted: str) -> int | None:
        """The row of an id, None where there is none."""
        try:
            key = wanted.encode()
        except UnicodeEncodeError:  # half a surrogate pair: JSON can say it, UTF-8 and so no id can
            return None
        order = self._views[2]
        place = bisect_left(order, key, key=self._bytes)
        if place == len(order):
            return None
        row: int = order[place]
        return row if self._bytes(row) == key else None

    def at(self, rows: NDArray[np.integer]) -> list[str]:
        """The ids of some rows, in their order."""
        text = self._views[0]
        begins, ends = self.starts[rows].tolist(), self.starts[rows + 1].tolist()
        return [text[begin:end].tobytes().decode() for begin, end in zip(begins, ends, strict=True)]

    def _bytes(self, row: int) -> bytes:
        text, starts, _ = self._views
        return bytes(text[starts[row] : starts[row + 1]])

    def __contains__(self, wanted: object) -> bool:
        return isinstance(wanted, str) and self.find(wanted) is not None

    def __len__(self) -> int:
        return len(self.order)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[each] for each in range(*row.indices(len(self)))]
        return self._bytes(range(len(self))[row]).decode()

    def __iter__(self) -> Iterator[str]:
        text = self.text.tobytes()
        return (text[begin:end].decode() for begin, end in pairwise(self.starts.tolist()))
