"""Check the ids of records, which remain bytes, and parse scores to numbers.

All bytes of a column of ids are examined at once. If some bytes are not visible ASCII characters, pyarrow checks the
distinct ids as a whole. Only if this check finds a problem is each distinct id examined.
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
"""Problem codes of ids. Each code has a text with a placeholder for the name of the column."""

_SPACE: Final = 0x20
_DELETE: Final = 0x7F
"""Codes of visible ASCII characters lie between `_SPACE` and `_DELETE`."""
_MARK: Final = NOT_UTF8.encode()
_SUSPICIOUS: Final = rf"[\r\n\x00]|{NOT_UTF8}"
_SAMPLE_ROWS: Final = 4096
_PADDED: Final = r"^\s|\s$"


class Column:
    """A column of a chunk, plain or dictionary-encoded.

    A plain column is encoded when its dictionary is first used.

    Parameters
    ----------
    entries
        A pyarrow array of type binary, or of type int64 for times. If `codes` is None, the array has one value per
        record. Otherwise, it has the distinct values in order of first appearance.
    codes
        Index into `entries` for each record, (n_records,) int32.

    Examples
    --------
    >>> column = Column(pa.array([b"tea", b"milk", b"tea"]))
    >>> column.dictionary.to_pylist(), column.codes
    ([b'tea', b'milk'], array([0, 1, 0], dtype=int32))
    """

    __slots__ = ("_codes", "are_simple_ids", "entries")

    def __init__(self, entries: Any, codes: NDArray[np.int32] | None = None) -> None:
        self.entries = entries
        self._codes = codes
        self.are_simple_ids: bool | None = None  # result of `are_simple`, once it is known

    @classmethod
    def of_times(cls, array: Any) -> Column:
        """Return a column of times. The column is encoded if many times repeat.

        If few times repeat, finding the distinct times would cost more than it saves.
        """
        column = cls(array)
        sample = array.slice(0, _SAMPLE_ROWS)
        if 2 * len(sample.unique()) < len(sample):
            column.encode()
        return column

    def encode(self) -> None:
        """Convert a plain column to dictionary encoding. An encoded column remains unchanged."""
        if self._codes is None:
            encoded = self.entries.dictionary_encode()
            self.entries, self._codes = encoded.dictionary, encoded.indices.to_numpy()

    @property
    def is_encoded(self) -> bool:
        """Whether the column is dictionary-encoded. If so, `entries` contains each distinct value once."""
        return self._codes is not None

    @property
    def dictionary(self) -> Any:
        """The distinct values in order of first appearance, as a pyarrow array."""
        self.encode()
        return self.entries

    @property
    def codes(self) -> NDArray[np.int32]:
        """Index into `dictionary` for each record, (n_records,) int32."""
        self.encode()
        return cast("NDArray[np.int32]", self._codes)

    def with_entries(self, entries: Any) -> Column:
        """Return a column with other values, one for each element of `entries`, and the same indices."""
        return Column(entries, self._codes)

    def per_record(self, results: NDArray[Any]) -> NDArray[Any]:
        """Return one result per record, (n_records,), given one result per element of `entries`."""
        return results if self._codes is None else results.take(self._codes, mode="clip")  # unchecked, twice as fast

    def selected(self, rows: NDArray[np.bool_]) -> Column:
        """Return a column of the records that a mask, (n_records,) bool, selects.

        The dictionary of the new column contains only values of these records.
        """
        if rows.all():
            return self
        if self._codes is None:
            return Column(self.entries.filter(pa.array(rows)))
        return Column(self.entries.take(pa.array(self._codes[rows])))

    def __len__(self) -> int:
        return len(self.entries) if self._codes is None else len(self._codes)

    def __getitem__(self, record: int) -> bytes:
        value = self.entries[record if self._codes is None else int(self._codes[record])].as_py()
        return value if isinstance(value, bytes) else str(value).encode()

    def texts(self) -> list[str]:
        """Return `entries` as texts without surrounding white space. Invalid UTF-8 yields replacement characters."""
        strings = self.as_strings()
        if strings is None:
            return [raw.decode("utf-8", errors="replace").strip() for raw in self.entries.to_pylist()]
        return [text.strip() for text in strings.to_pylist()]

    def as_strings(self) -> Any:
        """Return `entries` as a pyarrow array of type string, or None if an entry is not UTF-8."""
        try:
            return self.entries.cast(pa.string())
        except pa.ArrowInvalid:
            return None


def id_problems(ids: Column) -> NDArray[np.object_] | None:
    """Return the problem of each id as a key of `ID_PROBLEMS`, (n_records,), or None if all ids are valid.

    A valid id among invalid ids has the problem `""`.
    """
    if are_simple(ids) or _all_valid(ids):
        return None
    problems = np.array([_id_problem(raw) for raw in ids.dictionary.to_pylist()], dtype=object)
    return problems[ids.codes] if problems.any() else None


def are_simple(ids: Column) -> bool:
    """Return whether all ids have a valid length and only visible ASCII characters, without white space.

    Such ids need no further checks. Examining all bytes at once costs less than encoding the column.
    """
    if ids.are_simple_ids is None:
        ids.are_simple_ids = _are_simple(ids.entries)
    return ids.are_simple_ids


def _are_simple(values: Any) -> bool:
    _, offsets, content = values.buffers()
    if len(values) == 0 or content is None or values.null_count:
        return False
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    lengths = np.diff(ends)
    if lengths.min() < 1 or lengths.max() > MAX_ID_BYTES:
        return False
    characters = np.frombuffer(content, np.uint8)[ends[0] : ends[-1]]
    return bool(characters.min() > _SPACE and characters.max() < _DELETE)


def _all_valid(ids: Column) -> bool:
    ids.encode()
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
    """Return whether bytes are valid UTF-8. A binary column of a Parquet file can contain other bytes."""
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def n_padded(ids: Column) -> int:
    """Return the number of records whose id begins or ends with white space. Such white space is part of the id."""
    if are_simple(ids):
        return 0
    padded = pc.match_substring_regex(ids.dictionary, _PADDED).to_numpy(zero_copy_only=False)
    return int(padded[ids.codes].sum()) if padded.any() else 0


@dataclass(slots=True)
class ScoreParser:
    """A parser of the scores of a file.

    Parameters
    ----------
    decimal
        The decimal separator that the caller declared, `.` or `,`. If None, both are accepted, and a single comma
        without a point is a decimal comma.

    Attributes
    ----------
    with_comma, with_point
        Whether a score with a decimal comma, or with a decimal point, was parsed.
    """

    decimal: str | None
    with_comma: bool = False
    with_point: bool = False

    def parse(self, column: Column) -> NDArray[np.float64]:
        """Return the scores, (n_records,) float64.

        A blank field yields 1.0. A field yields NaN if it is not a number, or if its magnitude is at least that of the
        largest float32.
        """
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
