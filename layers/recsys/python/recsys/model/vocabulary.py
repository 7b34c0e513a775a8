"""Map ids to row indices and back, with arrays that are used directly as they are stored in a file."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Self, overload

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Vocabulary(Sequence[str]):
    """A list of distinct ids, in which the index of an id is its row in the model's arrays.

    Use `Vocabulary.of` to build a vocabulary. `find` is a binary search over the sorted ids and takes 3 µs for 4,000
    ids and 15 µs for a million ids. The arrays need the memory of the text plus 12 bytes per id.

    Parameters
    ----------
    text
        All ids in UTF-8, concatenated, (n_bytes,) uint8.
    starts
        Offset of each id in `text`, followed by the length of `text`, (n + 1,) int64.
    order
        Row indices in ascending order of the ids' bytes, (n,) int32.
    """

    text: NDArray[np.uint8]
    starts: NDArray[np.int64]
    order: NDArray[np.int32]

    @classmethod
    def of(cls, ids: Sequence[str]) -> Self:
        """Build the vocabulary of a list of distinct ids.

        Parameters
        ----------
        ids
            The ids. The position of an id in the list becomes its row index. Any text that UTF-8 can encode is allowed.

        Returns
        -------
        Vocabulary
            A sequence equal to `ids`.

        Raises
        ------
        UnicodeEncodeError
            An id contains a lone surrogate, which UTF-8 cannot encode.

        Examples
        --------
        >>> items = Vocabulary.of(["tea", "cup"])
        >>> items.find("cup"), items.find("pot"), items[0], "tea" in items
        (1, None, 'tea', True)
        """
        encoded = [each.encode() for each in ids]
        starts = np.zeros(len(ids) + 1, dtype=np.int64)
        np.cumsum([len(each) for each in encoded], out=starts[1:])
        order = sorted(range(len(encoded)), key=encoded.__getitem__)
        return cls(np.frombuffer(b"".join(encoded), dtype=np.uint8), starts, np.array(order, dtype=np.int32))

    @property
    def is_valid(self) -> bool:
        """Whether every offset lies within the text and on a character boundary, and every row index exists.

        Check this property before the arrays of an untrusted file are used. The property does not tell whether the ids
        are sorted and distinct. If the ids are unsorted or repeated, `find` misses some of them but raises no error.
        """
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
        first_bytes = text[starts[:-1][np.diff(starts) > 0]]
        return not ((first_bytes & 0xC0) == 0x80).any()  # 0b10xxxxxx continues a character

    def find(self, wanted: str) -> int | None:
        """Return the row index of an id, or None if the vocabulary does not contain the id.

        Parameters
        ----------
        wanted
            Any string. Ids are compared byte for byte, without Unicode normalisation.

        Returns
        -------
        int or None
            The row index, in [0, n), or None.

        Examples
        --------
        >>> Vocabulary.of(["007", "7"]).find("7")
        1
        """
        try:
            key = wanted.encode()
        except UnicodeEncodeError:  # JSON can express a lone surrogate, UTF-8 cannot
            return None
        # A memoryview reads one number four times as fast as NumPy indexing: 3.6 instead of 11.9 µs among 3,665 ids.
        text, starts, order = self.text.data, self.starts.data, self.order.data

        def id_bytes(row: int) -> bytes:
            return bytes(text[starts[row] : starts[row + 1]])

        position = bisect_left(order, key, key=id_bytes)
        if position == len(order):
            return None
        row: int = order[position]
        return row if id_bytes(row) == key else None

    def at(self, rows: NDArray[np.integer]) -> list[str]:
        """Return the ids with the given row indices.

        Parameters
        ----------
        rows
            Row indices, (n,); they may repeat.

        Returns
        -------
        list of str
            One id per row index, in the same order.

        Raises
        ------
        IndexError
            A row index is out of range.

        Examples
        --------
        >>> Vocabulary.of(["tea", "cup", "pot"]).at(np.array([2, 0]))
        ['pot', 'tea']
        """
        text = self.text.data
        begins, ends = self.starts[rows].tolist(), self.starts[rows + 1].tolist()
        return [str(text[begin:end], "utf-8") for begin, end in zip(begins, ends, strict=True)]

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
        index = range(len(self))[row]  # raises IndexError, and counts negative indices from the end
        return self.text[self.starts[index] : self.starts[index + 1]].tobytes().decode()

    def __iter__(self) -> Iterator[str]:
        text = self.text.tobytes()
        return (text[begin:end].decode() for begin, end in pairwise(self.starts.tolist()))
