"""Parse timestamps. The format is declared or detected from the file, and all values are parsed in this format.

An Excel serial number, or a date such as 20200913, is never parsed as a Unix time. A date whose day and month could be
exchanged is parsed only if another value of the file shows which of the two comes first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.errors import InvalidData
from recsys_train.data.fields import Column

MISSING_TIME: Final = np.iinfo(np.int64).min
"""The time of a missing field. It sorts before all other times."""
EXPECTED: Final = {
    "iso": "ISO 8601 (2026-11-22T20:31:05Z) or Unix time",
    "unix": "a Unix time in s, ms, µs or ns",
    "excel": "an Excel serial number of days, 20000 to 80000",
    "yyyymmdd": "a date such as 20260913 or 20260913203105",
    "day-first": "a date such as 31.12.2026 or 31/12/2026 20:31",
    "month-first": "a date such as 12/31/2026 or 12/31/2026 20:31",
}
"""Description of each format, for messages. `iso` accepts Unix times as well."""

_MISSING: Final = r"^\s*(|0000-00-00([T ]00:00(:00(\.0+)?)?)?Z?|\\N|NULL|null|NaT|None|N/A|NA|nan|NaN)\s*$"
_NUMBER: Final = r"^\s*[+-]?\d+([.,]\d+)?([eE][+-]?\d+)?\s*$"
_YMD: Final = r"^\s*(19|20)\d\d(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])(([01]\d|2[0-3])[0-5]\d[0-5]\d)?\s*$"
_EXCEL: Final = r"^\s*[2-7]\d{4}([.,]\d+)?\s*$"
_SLASH: Final = r"^\s*\d{1,2}[/.-]\d{1,2}[/.-](\d{4}|\d{2})([ T,].*)?\s*$"
_DAY_FIRST: Final = r"^\s*(1[3-9]|2\d|3[01])[/.-]"
_MONTH_FIRST: Final = r"^\s*\d{1,2}[/.-](1[3-9]|2\d|3[01])[/.-]"
_CLOCKS: Final = ("", " %H:%M", " %H:%M:%S", " %H:%M:%S.%f", " %I:%M %p", " %I:%M:%S %p")
_LAST_DATE: Final = 21001231
"""Largest integer that can be a date such as 20260913."""
_MAX_SECONDS: Final = 10**11
"""Unix times in seconds are smaller."""
_MAX_UNDECIDED: Final = 2_000_000
"""Number of dates after which a file is rejected if day and month cannot be told apart. Not tuned."""


@dataclass(slots=True)
class TimeParser:
    """A parser of the timestamps of a file.

    Parameters
    ----------
    time_format
        The format that the caller declared, a key of `EXPECTED`, or None to detect the format.
    """

    time_format: str | None
    _n_undecided: int = 0

    def recognise(self, column: Column) -> bool:
        """Detect the time format from a chunk, and return whether the format is known.

        If the format is not known, call this method with the next chunk. `InvalidData` is raised if the format is still
        unknown after `_MAX_UNDECIDED` values.
        """
        if self.time_format is None:
            self.time_format = "iso" if _is_iso_at_once(column) else _recognise(column)
            self._n_undecided += len(column.entries)
            if self.time_format is None and self._n_undecided > _MAX_UNDECIDED:
                raise self.undecided(column)
        return self.time_format is not None

    def undecided(self, column: Column) -> InvalidData:
        """Return the error for a file whose dates do not show whether the day or the month comes first."""
        example = next((text for text in column.texts() if text), "")
        return InvalidData(
            "Expected at least one date whose day is greater than 12, to tell day and month apart. Received only dates "
            f"such as {example[:40]!r}.",
            code="ambiguous-date",
            hint="Declare time_format=day-first or time_format=month-first, or write dates in the form 2026-12-31.",
        )

    def parse(self, column: Column) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Parse the times of a chunk in the declared or detected format.

        Returns
        -------
        times : ndarray
            Microseconds since 1970 (UTC), (n_records,) int64. `MISSING_TIME` if the field is missing or invalid. A
            value without a time zone is in UTC.
        invalid : ndarray
            Whether the field could not be parsed, (n_records,) bool.
        """
        time_format = self.time_format or "iso"
        quick = _quick_iso(column) if time_format == "iso" else None
        if quick is not None:
            return column.per_record(quick), np.zeros(len(column), dtype=np.bool_)
        column.encode()
        times, invalid = _parse(column, time_format)
        return column.per_record(times), column.per_record(invalid)


def _is_iso_at_once(column: Column) -> bool:
    """Return whether pyarrow can parse all values as ISO 8601 or as Unix times in seconds.

    For such values, `_recognise` also returns `iso`, but takes ten times as long.
    """
    integers = _integers(column)
    return _quick_timestamps(column) is not None if integers is None else _are_seconds(integers)


def _recognise(column: Column) -> str | None:
    """Return the format of most values, or None if the values do not show whether day or month comes first."""
    strings = _strings(column)
    strings = strings.filter(pc.invert(pc.match_substring_regex(strings, _MISSING)))
    counts = {name: _count(strings, pattern) for name, pattern in (("number", _NUMBER), ("slash", _SLASH))}
    if len(strings) == 0 or max(counts.values()) * 2 < len(strings):
        return "iso"
    if counts["slash"] >= counts["number"]:
        n_day, n_month = _count(strings, _DAY_FIRST), _count(strings, _MONTH_FIRST)
        if n_day == n_month == 0:
            return None
        if n_day and n_month:
            return _majority(strings, n_day, n_month)
        return "day-first" if n_day else "month-first"
    numbers = counts["number"]
    for name, pattern in (("yyyymmdd", _YMD), ("excel", _EXCEL)):
        if _count(strings, pattern) * 2 > numbers:
            return name
    return "iso"


def _majority(strings: Any, n_day: int, n_month: int) -> str:
    """Return the more frequent order of the dates, `day-first` or `month-first`.

    `InvalidData` is raised if the file mixes both orders, with more than one date in the less frequent order per 100
    dates in the more frequent order.
    """
    if min(n_day, n_month) * 100 <= max(n_day, n_month):
        return "day-first" if n_day > n_month else "month-first"
    day_first, month_first = (
        strings.filter(pc.match_substring_regex(strings, pattern))[0].as_py()[:40]
        for pattern in (_DAY_FIRST, _MONTH_FIRST)
    )
    raise InvalidData(
        f"Expected dates in one order. Received {n_day:,} that can only be day-first, such as {day_first!r}, and "
        f"{n_month:,} that can only be month-first, such as {month_first!r}.",
        code="mixed-dates",
        hint="Write all dates in the form 2026-12-31.",
    )


def _parse(column: Column, time_format: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    strings = _strings(column)
    missing = pc.match_substring_regex(strings, _MISSING).to_numpy(zero_copy_only=False)
    texts = pd.Series(strings.to_pylist(), dtype=object).str.strip()
    rest = np.flatnonzero(~missing)
    times = np.full(len(texts), MISSING_TIME, dtype=np.int64)
    times[rest] = _PARSERS[time_format](texts.iloc[rest].reset_index(drop=True))
    invalid = ~missing & (times == MISSING_TIME)
    return times, invalid


def _strings(column: Column) -> Any:
    strings = column.as_strings()
    return pa.array(column.texts(), pa.string()) if strings is None else strings


def _count(strings: Any, pattern: str) -> int:
    return int(pc.sum(pc.match_substring_regex(strings, pattern)).as_py() or 0)


def _quick_iso(column: Column) -> NDArray[np.int64] | None:
    """Parse a column of integers or of ISO 8601 timestamps with pyarrow.

    Return None if a value is neither. Otherwise return microseconds since 1970 (UTC), one per element of `entries`.
    """
    integers = _integers(column)
    if integers is None:
        return _quick_timestamps(column)
    if _are_seconds(integers):
        times: NDArray[np.int64] = pc.multiply(pa.array(integers), 1_000_000).to_numpy()
        return times
    times = _from_unix(integers.astype(np.float64), integers)
    return None if (times == MISSING_TIME).any() else times


def _integers(column: Column) -> NDArray[np.int64] | None:
    entries = column.entries if pa.types.is_integer(column.entries.type) else column.as_strings()
    try:
        integers: NDArray[np.int64] | None = None if entries is None else entries.cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid:
        return None
    return integers


def _are_seconds(integers: NDArray[np.int64]) -> bool:
    """Return whether all integers are Unix times in seconds, which are larger than a date written as 20260913."""
    return len(integers) > 0 and bool(integers.min() > _LAST_DATE and integers.max() < _MAX_SECONDS)


def _quick_timestamps(column: Column) -> NDArray[np.int64] | None:
    strings = column.as_strings()
    for kind in (pa.timestamp("us"), pa.timestamp("us", tz="UTC")):
        try:
            times: NDArray[np.int64] | None = (
                None if strings is None else strings.cast(kind).cast(pa.int64()).to_numpy()
            )
        except pa.ArrowInvalid:
            continue
        return times
    return None


def _from_unix(numbers: NDArray[np.float64], integers: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
    """Convert Unix times to microseconds.

    The unit of a Unix time is inferred from its magnitude: 1e11 s is in the year 5138, and 1e11 ms in 1973. A date such
    as 20200913 among Unix times is invalid, because as a Unix time it would be in August 1970.
    """
    magnitude = np.abs(numbers)
    scale = np.select([magnitude < _MAX_SECONDS, magnitude < 1e14, magnitude < 1e17], [1e6, 1e3, 1.0], default=1e-3)
    microseconds: NDArray[np.int64] = np.clip(numbers * scale, -9e18, 9e18).astype(np.int64)
    if integers is not None:  # exact, where a float would round
        is_us = scale == 1.0
        microseconds[is_us] = integers[is_us]
    day, month = magnitude % 100, magnitude // 100 % 100
    is_date = (
        (magnitude >= 19000101) & (magnitude <= _LAST_DATE) & (day >= 1) & (day <= 31) & (month >= 1) & (month <= 12)
    )
    microseconds[is_date & (numbers == np.trunc(numbers))] = MISSING_TIME
    return microseconds


def _to_numbers(texts: pd.Series) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = pd.to_numeric(texts.str.replace(",", ".", n=1), errors="coerce").to_numpy(np.float64)
    return numbers


def _from_dates(dates: pd.Series) -> NDArray[np.int64]:
    is_date = dates.notna().to_numpy()
    times = np.full(len(dates), MISSING_TIME, dtype=np.int64)
    times[is_date] = dates[is_date].dt.as_unit("us").astype(np.int64)
    return times


def _parse_unix(texts: pd.Series) -> NDArray[np.int64]:
    numbers = _to_numbers(texts)
    finite = np.isfinite(numbers)
    times = np.full(len(texts), MISSING_TIME, dtype=np.int64)
    times[finite] = _from_unix(numbers[finite])
    return times


def _parse_iso(texts: pd.Series) -> NDArray[np.int64]:
    """Parse ISO 8601 timestamps and Unix times.

    The suffix ` UTC` of BigQuery and English month names, as in `Sep 13, 2026`, are accepted too.
    """
    times = _parse_unix(texts)
    is_number = np.isfinite(_to_numbers(texts))
    rest = np.flatnonzero(~is_number)
    plain = texts.iloc[rest].str.replace(r"\s*(UTC|GMT)$", "Z", regex=True)
    dates = pd.to_datetime(plain, format="ISO8601", utc=True, errors="coerce")
    times[rest] = _from_dates(dates)
    rest = rest[dates.isna().to_numpy()]
    if len(rest):
        times[rest] = _first_match(
            texts.iloc[rest].str.replace(",", ""), "%b %d %Y", "%B %d %Y", "%d %b %Y", "%d %B %Y"
        )
    return times


def _parse_yyyymmdd(texts: pd.Series) -> NDArray[np.int64]:
    return _first_match(texts, "%Y%m%d", "%Y%m%d%H%M%S", clocks=("",))


def _parse_excel(texts: pd.Series) -> NDArray[np.int64]:
    """Convert Excel serial numbers to times.

    A serial number counts the days since 1899-12-30. This start date accounts for the leap-year error of Excel.
    """
    numbers = _to_numbers(texts)
    valid = (numbers >= 20_000) & (numbers < 80_000)
    times = np.full(len(texts), MISSING_TIME, dtype=np.int64)
    times[valid] = np.round((numbers[valid] - 25_569) * 86_400).astype(np.int64) * 1_000_000
    return times


def _parse_day_first(texts: pd.Series) -> NDArray[np.int64]:
    return _first_match(_with_slashes(texts), "%d/%m/%Y", "%d/%m/%y")


def _parse_month_first(texts: pd.Series) -> NDArray[np.int64]:
    return _first_match(_with_slashes(texts), "%m/%d/%Y", "%m/%d/%y")


def _with_slashes(texts: pd.Series) -> pd.Series:
    """Replace the separators within the date with slashes, and the separators between date and time with one space."""
    dates = texts.str.replace(r"^(\d{1,2})[/.-](\d{1,2})[/.-](\d{2,4})", r"\1/\2/\3", regex=True)
    return dates.str.replace(r"^([\d/]+)[T,\s]+", r"\1 ", regex=True)


def _first_match(texts: pd.Series, *dates: str, clocks: tuple[str, ...] = _CLOCKS) -> NDArray[np.int64]:
    """Parse each text with the first format that matches it. A text without a matching format yields `MISSING_TIME`."""
    times = np.full(len(texts), MISSING_TIME, dtype=np.int64)
    rest = np.arange(len(texts))
    for time_format in (date + clock for date in dates for clock in clocks):
        if not len(rest):
            break
        parsed = _from_dates(pd.to_datetime(texts.iloc[rest], format=time_format, utc=True, errors="coerce"))
        times[rest] = parsed
        rest = rest[parsed == MISSING_TIME]
    return times


_PARSERS: Final = {
    "iso": _parse_iso,
    "unix": _parse_unix,
    "excel": _parse_excel,
    "yyyymmdd": _parse_yyyymmdd,
    "day-first": _parse_day_first,
    "month-first": _parse_month_first,
}
