"""Divide rows into blocks that are processed one after the other.

The temporary arrays of a block stay in the cache. Those of all rows would need new memory, which the kernel has to
clear.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_BLOCK_ROWS: Final = 65_536


def row_blocks(n_rows: int) -> Iterator[slice]:
    """Yield slices that together cover all rows.

    Examples
    --------
    >>> list(row_blocks(70_000))
    [slice(0, 65536, None), slice(65536, 70000, None)]
    """
    for start in range(0, n_rows, _BLOCK_ROWS):
        yield slice(start, min(start + _BLOCK_ROWS, n_rows))
