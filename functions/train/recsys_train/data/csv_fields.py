"""Parse the fields of CSV records strictly: ids stay bytes, scores and times become numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MAX_ID_BYTES: Final = 512
MISSING_TIME: Final = np.iinfo(np.int64).min
"""The time of a blank field; sorts before every other time."""

BLANK: Final = "blank"
ID_PROBLEMS: Final = {
    BLANK: "the {} is blank",
    "not-utf8": "the {} is not UTF-8 text; save the file as UTF-8",
    "too-long": f"the {{}} is longer than {MAX_ID_BYTES} bytes",
    "nul": "the {} contains a NUL character; the file may be damaged",
    "line-break": "the {} contains a line break; an earlier quote may not be closed",
}
"""Problem codes of an id, and the text of each with a placeholder for the column's name."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chunk in dictionary encoding: record r contains `distinct[codes[r]]`."""

    distinct: list[bytes]
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, array: Any) -> Column:
        """Encode a `pyarrow.BinaryArray`."""
        encoded = array.dictionary_encode()
        return cls(encoded.dictionary.to_pylist(), encoded.indices.to_numpy())

    def __getitem__(self, record: int) -> bytes:
        return self.distinct[int(self.codes[record])]


def id_problems(ids: Column) -> NDArray[np.object_]:
    """Return a key of `ID_PROBLEMS` for each record, or "" if the id is valid."""
    problems = np.array([_id_problem(raw) for raw in ids.distinct], dtype=object)
    return problems[ids.codes]


def _id_problem(raw: bytes) -> str:
    if not raw.strip():
        return BLANK
    if b"\n" in raw or b"\r" in raw:
        return "line-break"
    if b"\0" in raw:
        return "nul"
    if len(raw) > MAX_ID_BYTES:
        return "too-long"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "not-utf8"
    return ""


def parse_scores(column: Column) -> NDArray[np.float32]:
    """Parse scores; a blank field is 1.0, anything else that is not a finite number is NaN."""
    scores = np.array([_parse_score(raw) for raw in column.distinct], dtype=np.float32)
    return scores[column.codes]


def _parse_score(raw: bytes) -> float:
    if not raw.strip():
        return 1.0
    try:
        score = float(raw)
    except ValueError:
        return math.nan
    return score if abs(score) < np.finfo(np.float32).max else math.nan


def parse_times(column: Column) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Parse timestamps.

    A number is a Unix time in seconds, milliseconds, microseconds or nanoseconds, recognised by its magnitude. Any
    other text must be ISO 8601; without a time zone it is UTC.

    Returns
    -------
    times : ndarray
        Microseconds since 1970, (n_records,) int64; `MISSING_TIME` if the field is blank or invalid.
    invalid : ndarray
        Whether the field could not be parsed, (n_records,) bool.
    """
    texts = pd.Series([raw.decode("utf-8", errors="replace").strip() for raw in column.distinct], dtype=object)
    times = np.full(len(texts), MISSING_TIME, dtype=np.int64)
    numbers = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64)
    is_number = np.isfinite(numbers)
    times[is_number] = _epoch_microseconds(numbers[is_number])
    rest = np.flatnonzero(~is_number & (texts != "").to_numpy())
    dates = pd.to_datetime(texts[rest], format="ISO8601", utc=True, errors="coerce")
    is_date = dates.notna().to_numpy()
    times[rest[is_date]] = dates[is_date].dt.as_unit("us").astype(np.int64)
    invalid = np.zeros(len(texts), dtype=np.bool_)
    invalid[rest[~is_date]] = True
    return times[column.codes], invalid[column.codes]


def _epoch_microseconds(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    """Convert Unix times whose unit follows from their magnitude: 1e11 s is the year 5138, 1e11 ms is 1973."""
    magnitude = np.abs(numbers)
    scale = np.select([magnitude < 1e11, magnitude < 1e14, magnitude < 1e17], [1e6, 1e3, 1.0], default=1e-3)
    microseconds: NDArray[np.int64] = np.clip(numbers * scale, -9e18, 9e18).astype(np.int64)
    return microseconds
