"""Sort integers stably in linear time, by counting.

NumPy sorts 64-bit integers by comparison, which takes several times as long for millions of rows
(docs/decisions/0056-reading-speed.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from recsys_train.data.row_blocks import row_blocks
from recsys_train.data.times import MISSING_TIME

_DIGIT_BITS: Final = 16
"""Largest number of bits per digit when times are sorted digit by digit (radix sort). With 16 bits, one counter per
value of a digit fits into the L2 cache.
"""
_UNITS: Final = (1_000_000, 1_000, 1)
"""Microseconds per second, millisecond and microsecond."""


@dataclass(frozen=True, slots=True)
class Sorted:
    """Values in ascending order of their codes, as `sorted_by_code` returns them.

    Parameters
    ----------
    starts
        Position of the first value of each code, (n_codes + 1,). The values of code c are
        `values[starts[c] : starts[c + 1]]`.
    order
        Indices that sort the values, (n,).
    values
        The sorted values, (n,).
    """

    starts: NDArray[np.integer]
    order: NDArray[np.integer]
    values: NDArray[Any]


def sorted_by_code(codes: NDArray[np.int32], n_codes: int, values: NDArray[Any]) -> Sorted:
    """Sort values by their codes. Values with the same code keep their order.

    Parameters
    ----------
    codes
        Integers from 0 to `n_codes - 1`, (n,).
    n_codes
        Number of codes that can occur.
    values
        Values of any integer type, (n,).

    Examples
    --------
    >>> by_code = sorted_by_code(np.array([2, 0, 2, 0], "i4"), 3, np.array([10, 11, 12, 13]))
    >>> by_code.starts, by_code.order, by_code.values
    (array([0, 2, 2, 4], dtype=int32), array([1, 3, 0, 2], dtype=int32), array([11, 13, 10, 12]))
    """
    # The codes are the rows of a sparse matrix with one entry per column. Its conversion to CSR lists the columns of
    # each row in ascending order.
    n = len(codes)
    starts: NDArray[Any] = np.arange(n + 1, dtype=np.int32 if n < np.iinfo(np.int32).max else np.int64)
    rows = scipy.sparse.csc_array((values, codes, starts), shape=(n_codes, n)).tocsr()
    return Sorted(rows.indptr, rows.indices, rows.data)


def taken(values: NDArray[Any], indices: NDArray[np.integer]) -> NDArray[Any]:
    """Return `values[indices]` in half the time that indexing takes, because the indices are not checked.

    An index that is out of range yields the nearest value.
    """
    return values.take(indices, mode="clip")


def order_of_times(times: NDArray[np.int64]) -> NDArray[np.integer] | None:
    """Return the indices that sort times stably, (n,), or None if the times are already sorted.

    Parameters
    ----------
    times
        Times in microseconds, (n,) int64. `MISSING_TIME` sorts first.
    """
    if bool((times[1:] >= times[:-1]).all()):
        return None
    keys = _keys(times)
    n_bits = int(keys.max()).bit_length()
    n_digits = -(-n_bits // _DIGIT_BITS)
    digit_bits = -(-n_bits // n_digits)
    n_values = 1 << digit_bits
    lowest = keys.dtype.type(n_values - 1)
    order: NDArray[np.integer] | None = None
    for _ in range(n_digits - 1):
        by_digit = sorted_by_code(_as_codes(keys & lowest), n_values, keys)
        order = by_digit.order if order is None else taken(order, by_digit.order)
        keys = by_digit.values
        keys >>= keys.dtype.type(digit_bits)
    rows = np.arange(len(keys)) if order is None else order
    return sorted_by_code(_as_codes(keys), n_values, rows).values


def _as_codes(digits: NDArray[np.unsignedinteger]) -> NDArray[np.int32]:
    return digits.view(np.int32) if digits.dtype == np.uint32 else digits.astype(np.int32)


def _keys(times: NDArray[np.int64]) -> NDArray[np.unsignedinteger]:
    """Return integers that sort like the times, (n,) uint32 or uint64.

    The smallest integer is 0, and belongs to missing times if there are any. The integers count seconds or milliseconds
    if all differences of times are multiples of this unit, because fewer bits are sorted faster.
    """
    first, last = int(times.min()), int(times.max())
    has_missing = first == MISSING_TIME
    if has_missing:
        first = int(times[times != MISSING_TIME].min())
    keys = (_keys_in_units(times, first, last, unit, has_missing=has_missing) for unit in _UNITS)
    return next(found for found in keys if found is not None)


def _keys_in_units(
    times: NDArray[np.int64], first: int, last: int, unit: int, *, has_missing: bool
) -> NDArray[np.unsignedinteger] | None:
    """Return the keys that count a unit, or None if a difference of times is not a multiple of this unit."""
    is_small = (last - first) // unit < np.iinfo(np.uint32).max
    keys: NDArray[np.unsignedinteger] = np.empty(len(times), np.uint32 if is_small else np.uint64)
    for rows in row_blocks(len(times)):
        offsets = times[rows].view(np.uint64) - np.uint64(first % 2**64)  # modulo 2**64, so that no range is too large
        is_missing = times[rows] == MISSING_TIME if has_missing else None
        if is_missing is not None:
            offsets[is_missing] = 0
        counts = offsets // np.uint64(unit)
        if (counts * np.uint64(unit) != offsets).any():
            return None
        if is_missing is not None:
            counts += np.uint64(1)
            counts[is_missing] = 0
        keys[rows] = counts
    return keys
