"""The fields of a block of CSV records, read strictly: ids stay bytes, scores and times become numbers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

MAX_ID_BYTES: Final = 512
MISSING_TIME: Final = np.iinfo(np.int64).min
"""Comes before every other time."""

BLANK: Final = "blank"
ID_PROBLEMS: Final = {
    BLANK: "the {} is blank",
    "not-utf8": "the {} is not UTF-8 text; save the file as UTF-8",
    "too-long": f"the {{}} is longer than {MAX_ID_BYTES} bytes",
    "line-break": "the {} holds a line break; a quote before it may never be closed",
}
"""Code and reason; the name of the column goes in."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a block: record r holds `distinct[codes[r]]`."""

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
    """For each record a key of `ID_PROBLEMS`, or "" where the id is fine."""
    problems = np.array([_id_problem(raw) for raw in ids.distinct], dtype=object)
    return problems[ids.codes]


def _id_problem(raw: bytes) -> str:
    if not raw.strip():
        return BLANK
    if b"\n" in raw or b"\r" in raw:
        return "line-break"
    if len(raw) > MAX_ID_BYTES:
        return "too-long"
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return "not-utf8"
    return ""


def parse_scores(column: Column) -> NDArray[np.float32]:
    """Scores; 1.0 where the field is blank, NaN where it is no finite number."""
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
    """Microseconds since 1970, `MISSING_TIME` where the field is blank; and which fields could not be read.

    A number is seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by its size; anything else
    must be ISO 8601. A time without a zone is UTC.
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
    bad = np.zeros(len(texts), dtype=np.bool_)
    bad[rest[~is_date]] = True
    return times[column.codes], bad[column.codes]


def _epoch_microseconds(numbers: NDArray[np.float64]) -> NDArray[np.int64]:
    size = np.abs(numbers)
    scale = np.select([size < 1e11, size < 1e14, size < 1e17], [1e6, 1e3, 1.0], default=1e-3)
    microseconds: NDArray[np.int64] = np.clip(numbers * scale, -9e18, 9e18).astype(np.int64)
    return microseconds
