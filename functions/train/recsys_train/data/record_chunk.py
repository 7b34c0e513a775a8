"""A chunk of a file, which contains records with the columns that are used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from recsys_train.data.fields import Column


@dataclass(slots=True)
class Chunk:
    """Some records of a file.

    Parameters
    ----------
    columns
        The columns by role: user, item, time, score, event.
    lines
        Line number of each record in a CSV, or row number in a Parquet file, counted from 1, (n_records,) int64.
    times
        Times in microseconds since 1970 (UTC), (n_records,) int64. They replace the column `time` if the file stores
        times in a date type.
    """

    columns: dict[str, Column]
    lines: NDArray[np.int64]
    times: NDArray[np.int64] | None = None
