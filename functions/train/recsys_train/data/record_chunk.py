"""A chunk of a file, with the values of the columns that are used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_train.data.fields import Column


@dataclass(slots=True)
class Chunk:
    """Consecutive records of a file, with the values of the columns that are used.

    Parameters
    ----------
    columns
        The columns by role, which is `user`, `item`, `time`, `score` or `event`.
    lines
        Line number of each record in a CSV, or row number in a Parquet file, counted from 1, (n_records,) int64.
    times
        Times in microseconds since 1970 (UTC), (n_records,) int64, if a Parquet file stores dates or timestamps.
        In this case, `columns` has no `time`. Otherwise None.
    """

    columns: dict[str, Column]
    lines: NDArray[np.int64]
    times: NDArray[np.int64] | None = None
