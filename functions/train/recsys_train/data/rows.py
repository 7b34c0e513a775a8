"""Check the records of a chunk. Each record is valid, bad, or skipped, for example because its score is too low."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from recsys.file_options import DECIMALS, FileOptions
from recsys_train.data.fields import BLANK, ID_PROBLEMS, Column, ScoreParser, id_problems, n_padded
from recsys_train.data.mapping import DOCUMENTED, Mapping
from recsys_train.data.record_chunk import Chunk
from recsys_train.data.report import DataReport
from recsys_train.data.times import EXPECTED, MISSING_TIME, TimeParser

_MAX_SCORES: Final = 12
"""Number of distinct scores above which no more scores are collected. A rating scale has at most 10 scores."""


@dataclass(slots=True)
class ValidRows:
    """The valid records of a chunk.

    `users` and `items` contain ids as bytes. `times`, (n,) int64, are microseconds since 1970 (UTC). `file_rows`, (n,)
    int64, are the row numbers in an earlier file, or None.
    """

    users: Column
    items: Column
    times: NDArray[np.int64]
    file_rows: NDArray[np.int64] | None = None

    def selected(self, rows: NDArray[np.bool_]) -> ValidRows:
        """Return the rows that a mask selects."""
        file_rows = None if self.file_rows is None else self.file_rows[rows]
        return ValidRows(self.users.selected(rows), self.items.selected(rows), self.times[rows], file_rows)


class RowChecker:
    """A checker that validates the records of one file and counts them in the data report.

    Parameters
    ----------
    mapping
        The columns of the file, and the ids of guests.
    options
        Options that select records by score, event and item.
    times
        Parser of the timestamps, which knows their format.
    report
        Report to which all counts are added.
    erased_users
        Users whose records are skipped.
    """

    def __init__(
        self,
        mapping: Mapping,
        options: FileOptions,
        times: TimeParser,
        report: DataReport,
        *,
        erased_users: Container[str] = (),
    ) -> None:
        self._mapping, self._options, self._times, self._report = mapping, options, times, report
        self._erased_users = erased_users
        self.scores = ScoreParser(DECIMALS[options.decimal] if options.decimal else None)
        self._guests = pa.array(sorted(mapping.guests), pa.binary())
        self._excluded = _binary_array(options.exclude_items or ())
        self._events = _binary_array(options.events or ())
        self._score_values: set[float] = set()

    def valid_rows(self, chunk: Chunk) -> ValidRows:
        """Return the valid records of a chunk, and count all of its records in the report, by outcome.

        A record whose user and item are both blank is ignored like a blank line. A bad record is counted once, with the
        first problem found.
        """
        n_records = len(chunk.lines)
        users, items = chunk.columns["user"], chunk.columns["item"]
        user_problems, item_problems = id_problems(users), id_problems(items)
        times, bad_times = self._parsed_times(chunk, n_records)
        if not self._has_rules(chunk) and user_problems is None and item_problems is None and not bad_times.any():
            return self._counted(ValidRows(users, items, times))
        scores = self._scores(chunk, n_records)
        no_problem = np.zeros(n_records, dtype=np.bool_)
        blank_user = no_problem if user_problems is None else user_problems == BLANK
        blank_item = no_problem if item_problems is None else item_problems == BLANK
        blank = blank_user & blank_item
        other_event = self._other_events(chunk, n_records) & ~blank
        guest = (blank_user | _isin(users, self._guests)) & ~blank & ~other_event
        bad_user = no_problem if user_problems is None else (user_problems != "") & ~blank_user
        bad_item = no_problem if item_problems is None else item_problems != ""
        open_ = ~blank & ~guest & ~other_event
        bad = open_ & (bad_user | bad_item | np.isnan(scores) | bad_times)
        for record in np.flatnonzero(bad).tolist():
            self._add_bad(chunk, record, user_problems, item_problems, scores)
        self._report.lines -= int(blank.sum())
        self._report.skip("other-event", chunk.lines[other_event])
        self._report.skip("guest", chunk.lines[guest])
        open_ &= ~bad
        for rule, applies in (
            ("not-positive-score", scores <= 0),
            ("below-min-score", scores < (self._options.min_score if self._options.min_score is not None else -np.inf)),
            ("excluded-item", _isin(items, self._excluded)),
            ("erased-user", is_of_users(users, self._erased_users)),
        ):
            self._report.skip(rule, chunk.lines[open_ & applies])
            open_ &= ~applies
        if len(self._score_values) <= _MAX_SCORES:
            self._score_values.update(np.unique(scores[open_])[: _MAX_SCORES + 1].tolist())
        return self._counted(ValidRows(users, items, times).selected(open_))

    def _has_rules(self, chunk: Chunk) -> bool:
        """Return whether records of the chunk can be bad or skipped although their ids and times are valid."""
        has_column = "score" in chunk.columns or "event" in chunk.columns
        return bool(has_column or len(self._guests) or len(self._excluded) or self._erased_users)

    def _other_events(self, chunk: Chunk, n_records: int) -> NDArray[np.bool_]:
        column = chunk.columns.get("event")
        return np.zeros(n_records, dtype=np.bool_) if column is None else ~_isin(column, self._events)

    def _counted(self, rows: ValidRows) -> ValidRows:
        self._report.rows_used += len(rows.times)
        self._report.padded_ids += n_padded(rows.users) + n_padded(rows.items)
        dated = rows.times
        if len(dated) and dated.min() == MISSING_TIME:
            dated = dated[dated != MISSING_TIME]
        if len(dated) and self._report.has_timestamps:
            self._report.add_times(int(dated.min()), int(dated.max()))
        return rows

    def looks_like_ratings(self) -> bool:
        """Return whether the scores look like ratings.

        Scores look like ratings if the name of their column contains "rating" or "stars". They also look like ratings
        if 1, 2, 3, 4 and 5 all occur, and all other scores are half points from 0.5 to 4.5.
        """
        name = self._mapping.names.get("score", "").casefold()
        scale = {half / 2 for half in range(1, 11)}
        values = self._score_values
        is_scale = len(values) <= _MAX_SCORES and {1.0, 2.0, 3.0, 4.0, 5.0} <= values <= scale
        return "score" in self._mapping.positions and ("rating" in name or "stars" in name or is_scale)

    def _scores(self, chunk: Chunk, n_records: int) -> NDArray[np.float64]:
        column = chunk.columns.get("score")
        return np.ones(n_records) if column is None else self.scores.parse(column)

    def _parsed_times(self, chunk: Chunk, n_records: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if chunk.times is not None:
            return chunk.times, np.zeros(n_records, dtype=np.bool_)
        column = chunk.columns.get("time")
        if column is None:
            return np.zeros(n_records, dtype=np.int64), np.zeros(n_records, dtype=np.bool_)
        return self._times.parse(column)

    def _add_bad(
        self,
        chunk: Chunk,
        record: int,
        user_problems: NDArray[np.object_] | None,
        item_problems: NDArray[np.object_] | None,
        scores: NDArray[np.float64],
    ) -> None:
        for role, problems in (("user", user_problems), ("item", item_problems)):
            if problems is not None and problems[record]:
                code, detail = problems[record], ID_PROBLEMS[problems[record]].format(self._mapping.names[role])
                break
        else:
            role = "score" if np.isnan(scores[record]) else "time"
            received = chunk.columns[role][record][:40].decode("utf-8", errors="replace")
            code, detail = "bad", f"the {self._mapping.names[role]} is {received!r}, expected {self._expected(role)}"
        # A field with an unclosed quote contains the lines that follow. Each of these lines counts. Otherwise half of
        # a file could be lost as one bad line.
        spans = 1 + sum(chunk.columns[name][record].count(b"\n") for name in ("user", "item"))
        code = f"{code}-{DOCUMENTED[role].replace('_', '-')}"
        self._report.add_bad_line(int(chunk.lines[record]), code, detail, spans=spans, column=self._mapping.names[role])
        self._report.lines += spans - 1

    def _expected(self, role: str) -> str:
        if role == "time":
            return EXPECTED[self._times.time_format or "iso"]
        comma = ", with a decimal comma" if self.scores.decimal == "," else ""
        hint = "" if self.scores.decimal else "; for numbers such as 1.234,5 declare decimal=comma"
        return f"a finite number{comma}{hint}"


def without_items(rows: ValidRows, item_ids: Sequence[str]) -> ValidRows:
    """Return the rows of all items except those with the given ids."""
    return rows.selected(~_isin(rows.items, _binary_array(item_ids))) if item_ids else rows


def _binary_array(item_ids: Sequence[str]) -> Any:
    return pa.array([item.encode() for item in item_ids], pa.binary())


def is_of_users(users: Column, user_ids: Container[str]) -> NDArray[np.bool_]:
    """Return whether each record belongs to one of the given users, (n_records,) bool."""
    if not user_ids:
        return np.zeros(len(users), dtype=np.bool_)
    is_one = [raw.decode("utf-8", "replace") in user_ids for raw in users.dictionary.to_pylist()]
    return np.array(is_one, dtype=np.bool_)[users.codes]


def _isin(column: Column, values: Any) -> NDArray[np.bool_]:
    if len(values) == 0:
        return np.zeros(len(column), dtype=np.bool_)
    found: NDArray[np.bool_] = pc.is_in(column.dictionary, value_set=values).to_numpy(zero_copy_only=False)
    return found[column.codes]
