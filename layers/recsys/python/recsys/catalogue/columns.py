"""The columns of an item catalogue, stored as NumPy arrays so that reading a catalogue needs no parsing.

A column holds one value per item. Depending on its class, a missing value is NaN, -1 or an empty range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.model.vocabulary import Vocabulary

Arrays = Mapping[str, NDArray[Any]]
MISSING: Final = -1
"""Code of a missing text or boolean. It is also the row of an item that the catalogue does not contain."""
_MAX_EXACT: Final = 2.0**53
"""Magnitude up to which float64 represents every integer exactly."""


class Kind(StrEnum):
    """Type of the values of a column."""

    NUMBER = "number"
    BOOLEAN = "boolean"
    TEXT = "text"
    TAGS = "tags"
    """A list of texts per item."""


@dataclass(frozen=True, slots=True, eq=False)
class NumberColumn:
    """A column of numbers, (n_items,) float64. A missing number is NaN."""

    values: NDArray[np.float64]

    @property
    def kind(self) -> Kind:
        """Kind of the column, always `Kind.NUMBER`."""
        return Kind.NUMBER

    def value(self, row: int) -> float | int | None:
        """Return the value of the item in a row, or None if the value is missing. Whole numbers are returned as int."""
        number = float(self.values[row])
        if math.isnan(number):
            return None
        return int(number) if number.is_integer() and abs(number) < _MAX_EXACT else number

    def take(self, rows: NDArray[np.integer]) -> NumberColumn:
        """Return a column with the values of the given rows, in their order. Row -1 yields a missing value."""
        return NumberColumn(np.where(rows >= 0, self.values[rows], np.nan))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that store the column in a file, keyed by name."""
        return {"values": self.values}


@dataclass(frozen=True, slots=True, eq=False)
class BooleanColumn:
    """A column of booleans, (n_items,) int8. 1 means true, 0 means false, and -1 means missing."""

    values: NDArray[np.int8]

    @property
    def kind(self) -> Kind:
        """Kind of the column, always `Kind.BOOLEAN`."""
        return Kind.BOOLEAN

    def value(self, row: int) -> bool | None:
        """Return the value of the item in a row, or None if the value is missing."""
        number = int(self.values[row])
        return None if number == MISSING else bool(number)

    def take(self, rows: NDArray[np.integer]) -> BooleanColumn:
        """Return a column with the values of the given rows, in their order. Row -1 yields a missing value."""
        return BooleanColumn(np.where(rows >= 0, self.values[rows], MISSING).astype(np.int8))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that store the column in a file, keyed by name."""
        return {"values": self.values}


@dataclass(frozen=True, slots=True, eq=False)
class TextColumn:
    """A column of texts. `codes` (n_items,) int32 holds the index in `texts` of each item's text, or -1 if missing."""

    codes: NDArray[np.int32]
    texts: Vocabulary

    @property
    def kind(self) -> Kind:
        """Kind of the column, always `Kind.TEXT`."""
        return Kind.TEXT

    def value(self, row: int) -> str | None:
        """Return the text of the item in a row, or None if the text is missing."""
        code = int(self.codes[row])
        return None if code == MISSING else self.texts[code]

    def take(self, rows: NDArray[np.integer]) -> TextColumn:
        """Return a column with the values of the given rows, in their order. Row -1 yields a missing value."""
        return TextColumn(np.where(rows >= 0, self.codes[rows], MISSING).astype(np.int32), self.texts)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that store the column in a file, keyed by name."""
        return {"codes": self.codes, **_text_arrays(self.texts)}


@dataclass(frozen=True, slots=True, eq=False)
class TagsColumn:
    """A column of lists of texts. Item i has the text `texts[c]` for each c in `codes[starts[i] : starts[i + 1]]`.

    `starts` has the shape (n_items + 1,) and the type int64, and `codes` has the shape (n_tags,) and the type int32.
    """

    starts: NDArray[np.int64]
    codes: NDArray[np.int32]
    texts: Vocabulary

    @property
    def kind(self) -> Kind:
        """Kind of the column, always `Kind.TAGS`."""
        return Kind.TAGS

    def value(self, row: int) -> list[str]:
        """Return the tags of the item in a row."""
        return self.texts.at(self.codes[self.starts[row] : self.starts[row + 1]])

    def take(self, rows: NDArray[np.integer]) -> TagsColumn:
        """Return a column with the tags of the given rows, in their order. Row -1 yields an item without tags."""
        counts = np.where(rows >= 0, np.diff(self.starts)[rows], 0)
        starts = np.zeros(len(rows) + 1, dtype=np.int64)
        np.cumsum(counts, out=starts[1:])
        # The position in `codes` of each tag of the result is the start of its item's range plus its index within the
        # range.
        positions = np.arange(starts[-1]) - np.repeat(starts[:-1] - self.starts[rows], counts)
        return TagsColumn(starts, self.codes[positions], self.texts)

    def owners(self) -> NDArray[np.int64]:
        """Return the row of the item to which each tag belongs, (n_tags,) int64."""
        return np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays that store the column in a file, keyed by name."""
        return {"starts": self.starts, "codes": self.codes, **_text_arrays(self.texts)}


Column = NumberColumn | BooleanColumn | TextColumn | TagsColumn


def column_of(kind: Kind, arrays: Arrays, n_items: int) -> Column:
    """Restore a column of `n_items` items from the arrays that the column's `arrays()` returned.

    Raises
    ------
    KeyError
        An array is missing.
    ValueError
        An array has a wrong type or shape, or an index is out of range.
    """
    match kind:
        case Kind.NUMBER:
            _check(arrays["values"], np.float64, n_items)
            return NumberColumn(arrays["values"])
        case Kind.BOOLEAN:
            _check(arrays["values"], np.int8, n_items)
            _check_range(arrays["values"], MISSING, 2)
            return BooleanColumn(arrays["values"])
        case Kind.TEXT:
            texts = texts_of(arrays)
            _check(arrays["codes"], np.int32, n_items)
            _check_range(arrays["codes"], MISSING, len(texts))
            return TextColumn(arrays["codes"], texts)
        case Kind.TAGS:
            texts, starts, codes = texts_of(arrays), arrays["starts"], arrays["codes"]
            _check(starts, np.int64, n_items + 1)
            _check(codes, np.int32, len(codes))
            _check_range(codes, 0, len(texts))
            if starts[0] != 0 or starts[-1] != len(codes) or (np.diff(starts) < 0).any():
                raise ValueError("the tag offsets do not ascend from 0 to the number of tags")
            return TagsColumn(starts, codes, texts)


def texts_of(arrays: Arrays) -> Vocabulary:
    """Restore distinct texts from the arrays `text`, `text_starts` and `text_order`.

    The errors are the same as in `column_of`.
    """
    text, starts, order = arrays["text"], arrays["text_starts"], arrays["text_order"]
    for array, dtype in ((text, np.uint8), (starts, np.int64), (order, np.int32)):
        _check(array, dtype, len(array))
    texts = Vocabulary(text, starts, order)
    if not texts.is_valid:
        raise ValueError("the arrays text, text_starts and text_order do not form a valid list of strings")
    return texts


def _text_arrays(texts: Vocabulary) -> dict[str, NDArray[Any]]:
    return {"text": texts.text, "text_starts": texts.starts, "text_order": texts.order}


def _check(array: NDArray[Any], dtype: Any, length: int) -> None:
    if array.dtype != dtype or array.shape != (length,):
        raise ValueError(f"expected {np.dtype(dtype)} of shape ({length},), received {array.dtype} of {array.shape}")


def _check_range(codes: NDArray[Any], lowest: int, end: int) -> None:
    if len(codes) and not lowest <= codes.min() <= codes.max() < end:
        raise ValueError(f"expected values from {lowest} to {end - 1}, received {codes.min()} to {codes.max()}")
