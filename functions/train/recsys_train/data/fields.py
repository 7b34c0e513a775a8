"""Parse the fields of records strictly: ids remain bytes, scores become numbers.

Each function works on the distinct values of a column. pyarrow checks a column as a whole; its values are examined one
by one only if the column contains a problem.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys_train.data.charset import NOT_UTF8

MAX_ID_BYTES: Final = 512

BLANK: Final = "blank"
ID_PROBLEMS: Final = {
    BLANK: "the {} is blank",
    "not-utf8": "the {} is not UTF-8 text; save the file as UTF-8, or declare its charset",
    "too-long": f"the {{}} is longer than {MAX_ID_BYTES} bytes",
    "nul": "the {} contains a NUL character; the file may be damaged",
    "line-break": "the {} contains a line break; an earlier quote may not be closed",
}
"""Problem codes of an id, and the text of each with a placeholder for the column's name."""

_MARK: Final = NOT_UTF8.encode()
_SUSPICIOUS: Final = rf"[\r\n\x00]|{NOT_UTF8}"
_SAMPLE_ROWS: Final = 4096
_PADDED: Final = r"^\s|\s$"


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a chunk in dictionary encoding: record r contains `dictionary[codes[r]]`.

    Parameters
    ----------
    dictionary
        Distinct values in order of first appearance, a pyarrow array of type binary.
    codes
        Indices into `dictionary`, (n_records,) int32.
    """

    dictionary: Any
    codes: NDArray[np.int32]

    @classmethod
    def of(cls, array: Any) -> Column:
        """Return the dictionary encoding of a `pyarrow.BinaryArray`: its distinct values and an index per element."""
        encoded = array if pa.types.is_dictionary(array.type) else array.dictionary_encode()
        return cls(encoded.dictionary, encoded.indices.to_numpy())

    @classmethod
    def of_times(cls, array: Any) -> Column:
        """Return the dictionary encoding of a `pyarrow.BinaryArray` of times.

        If few times repeat, every record gets an entry of its own, because finding the distinct times would cost more
        than it saves.
        """
        sample = array.slice(0, _SAMPLE_ROWS)
        if 2 * len(sample.unique()) < len(sample):
            return cls.of(array)
        return cls(array, np.arange(len(array), dtype=np.int32))

    def __getitem__(self, record: int) -> bytes:
        value: bytes = self.dictionary[int(self.codes[record])].as_py()
        return value

    def texts(self) -> list[str]:
        """Return the distinct values as text, with a replacement character for bytes that are not UTF-8."""
        return [raw.decode("utf-8", errors="replace").strip() for raw in self.dictionary.to_pylist()]

    def as_strings(self) -> Any:
        """Return the distinct values as a pyarrow array of type string, or None if one of them is not UTF-8."""
        try:
            return self.dictionary.cast(pa.string())
        except pa.ArrowInvalid:
            return None


def id_problems(ids: Column) -> NDArray[np.object_] | None:
    """Return a key of `ID_PROBLEMS` for each record ("" if its id is valid), or None if all ids are valid."""
    if _all_valid(ids):
        return None
    problems = np.array([_id_problem(raw) for raw in ids.dictionary.to_pylist()], dtype=object)
    return problems[ids.codes] if problems.any() else None


def _all_valid(ids: Column) -> bool:
    strings = ids.as_strings()
    if strings is None or len(strings) == 0:
        return False
    lengths: dict[str, int] = cast("Any", pc.min_max(pc.binary_length(strings)).as_py())
    if lengths["min"] < 1 or lengths["max"] > MAX_ID_BYTES:
        return False
    suspicious = pc.or_(pc.utf8_is_space(strings), pc.match_substring_regex(strings, _SUSPICIOUS))
    return not pc.any(suspicious).as_py()


def _id_problem(raw: bytes) -> str:
    if not raw.strip():
        return BLANK
    if b"\n" in raw or b"\r" in raw:
        return "line-break"
    if b"\0" in raw:
        return "nul"
    if len(raw) > MAX_ID_BYTES:
        return "too-long"
    return "not-utf8" if _MARK in raw or not _is_utf8(raw) else ""


def _is_utf8(raw: bytes) -> bool:
    """Return whether bytes are valid UTF-8, because a binary column of a Parquet file can contain anything."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def n_padded(ids: Column) -> int:
    """Return the number of records whose id begins or ends with white space, which is kept."""
    padded = pc.match_substring_regex(ids.dictionary, _PADDED).to_numpy(zero_copy_only=False)
    return int(padded[ids.codes].sum()) if padded.any() else 0


@dataclass(slots=True)
class ScoreParser:
    """Parses the scores of a file.

    Parameters
    ----------
    decimal
        The decimal separator that the caller declared. If None, both are accepted, and a single comma without a point
        is a decimal comma.

    Attributes
    ----------
    with_comma, with_point
        Whether a decimal comma, or a decimal point, was seen.
    """

    decimal: str | None
    with_comma: bool = False
    with_point: bool = False

    def parse(self, column: Column) -> NDArray[np.float64]:
        """Return the scores, (n_records,) float64: 1.0 for a blank field, NaN for one that is not a finite number."""
        scores = np.array([self._parse(raw) for raw in column.dictionary.to_pylist()], dtype=np.float64)
        return scores[column.codes]

    def _parse(self, raw: bytes) -> float:
        text = raw.strip()
        if not text:
            return 1.0
        is_comma = b"," in text and b"." not in text and text.count(b",") == 1 and self.decimal != "."
        if self.decimal == "," and b"." in text:
            return math.nan
        try:
            score = float(text.replace(b",", b".") if is_comma else text) if b"_" not in text else math.nan
        except ValueError:
            return math.nan
        self.with_comma |= is_comma
        self.with_point |= b"." in text
        return score if abs(score) < np.finfo(np.float32).max else math.nan
