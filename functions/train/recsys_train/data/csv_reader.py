"""Read interactions from a CSV.

Reading is strict: each line is either used as it is or counted as bad in the data report. Memory grows with the number
of distinct pairs, 16 bytes each, not with the file, because a small gzip file can contain a billion rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from recsys.errors import InvalidData
from recsys_train.data.csv_chunks import CsvChunk, read_chunks
from recsys_train.data.csv_fields import BLANK, ID_PROBLEMS, Column, id_problems, parse_scores, parse_times
from recsys_train.data.csv_source import KNOWN_COLUMNS, CsvSource, read_header
from recsys_train.data.interactions import Int32s, Interactions, ParsedRows
from recsys_train.data.report import MAX_BAD_SHARE, DataReport

MERGE_ROWS: Final = 4_000_000
"""Repeated pairs are merged once this many new rows (or as many as there are merged ones) have accumulated."""


class UntrainableCsv(InvalidData):
    """Raised when a CSV was read to its end but cannot be trained on.

    Parameters
    ----------
    report
        The data report, which lists the bad lines.
    """

    def __init__(self, detail: str, *, code: str, hint: str, report: DataReport) -> None:
        super().__init__(detail, code=code, hint=hint, errors=report.listed)
        self.report = report


def read_interactions(stream: BinaryIO, *, max_unpacked_bytes: int) -> tuple[Interactions, DataReport]:
    r"""Read a CSV, plain or gzip.

    Parameters
    ----------
    stream
        The upload; read once from start to end, not closed.
    max_unpacked_bytes
        Limit of the uncompressed size.

    Returns
    -------
    interactions : Interactions
        Distinct pairs with a positive score. Each has the time of its first row; without a time, rows are in file
        order.
    report : DataReport
        Counts of lines and bad lines, and warnings.

    Raises
    ------
    InvalidData
        The file is not a CSV with the columns `user_id` and `item_id`, its gzip is damaged, or it is too large.
    UntrainableCsv
        More than 1% of the lines are bad, or fewer than 2 users or 2 items remain.

    Examples
    --------
    >>> import io
    >>> csv = b"user_id,item_id,timestamp\nanna,tea,2026-03-02\nben,tea,2026-03-03\nanna,milk,2026-03-01\n"
    >>> interactions, report = read_interactions(io.BytesIO(csv), max_unpacked_bytes=10**6)
    >>> [(interactions.user_ids[u], interactions.item_ids[i]) for u, i in zip(interactions.users, interactions.items)]
    [('anna', 'milk'), ('anna', 'tea'), ('ben', 'tea')]
    >>> report.lines, report.bad_lines, report.has_timestamps
    (3, 0, True)
    """
    source = CsvSource(stream, max_unpacked_bytes=max_unpacked_bytes)
    columns = read_header(source)
    report = DataReport(
        has_scores="interaction_score" in columns,
        has_timestamps="timestamp" in columns,
        ignored_columns=[name for name in columns if name not in KNOWN_COLUMNS],
    )
    collector = _InteractionCollector()
    for chunk in read_chunks(source, columns, report):
        collector.add(_valid_rows(chunk, report))
    _check_bad_share(report)
    interactions = collector.interactions()
    report.users, report.items = interactions.n_users, interactions.n_items
    report.interactions = len(interactions)
    _check_size(report)
    return interactions, report


@dataclass(slots=True)
class _ValidRows:
    """The valid records of a chunk; ids are still bytes, times are microseconds, (n,) int64."""

    user_ids: Column
    item_ids: Column
    times: NDArray[np.int64]


def _valid_rows(chunk: CsvChunk, report: DataReport) -> _ValidRows:
    """Remove blank, bad and non-positive records.

    A bad record is counted once, with the first problem that is found.
    """
    n_records = len(chunk.lines)
    user_ids, item_ids = chunk.columns["user_id"], chunk.columns["item_id"]
    user_problems, item_problems = id_problems(user_ids), id_problems(item_ids)
    scores = np.ones(n_records, dtype=np.float32)
    times, bad_times = np.zeros(n_records, dtype=np.int64), np.zeros(n_records, dtype=np.bool_)
    if report.has_scores:
        scores = parse_scores(chunk.columns["interaction_score"])
    if report.has_timestamps:
        times, bad_times = parse_times(chunk.columns["timestamp"])

    blank = (user_problems == BLANK) & (item_problems == BLANK)
    bad = ~blank & ((user_problems != "") | (item_problems != "") | np.isnan(scores) | bad_times)
    not_positive = ~blank & ~bad & (scores <= 0)
    for record in np.flatnonzero(bad).tolist():
        _add_bad_record(chunk, record, user_problems[record], item_problems[record], scores[record], report)
    report.lines -= int(blank.sum())
    report.not_positive += int(not_positive.sum())
    valid = ~blank & ~bad & ~not_positive
    return _ValidRows(
        Column(user_ids.distinct, user_ids.codes[valid]), Column(item_ids.distinct, item_ids.codes[valid]), times[valid]
    )


def _add_bad_record(
    chunk: CsvChunk, record: int, user_problem: str, item_problem: str, score: np.float32, report: DataReport
) -> None:
    if user_problem or item_problem:
        name, problem = ("user_id", user_problem) if user_problem else ("item_id", item_problem)
        code, detail = f"{problem}-{name.replace('_', '-')}", ID_PROBLEMS[problem].format(name)
    else:
        name, expected = (
            ("interaction_score", "a finite number")
            if np.isnan(score)
            else ("timestamp", "ISO 8601 (2026-11-22T20:31:05Z) or seconds since 1970")
        )
        received = chunk.columns[name][record][:40].decode("utf-8", errors="replace")
        code, detail = f"bad-{name.replace('_', '-')}", f"the {name} is {received!r}, expected {expected}"
    # An unclosed quote swallows lines. Each of them counts; otherwise half of a file could be lost as one bad line.
    spans = 1 + sum(chunk.columns[column][record].count(b"\n") for column in ("user_id", "item_id"))
    report.add_bad_line(int(chunk.lines[record]), code, detail, spans=spans)
    report.lines += spans - 1


class _VocabularyBuilder:
    """Number ids in order of first appearance."""

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}

    def indices(self, ids: Column) -> Int32s:
        """Return the index of each record's id; add new ids, but not those that only bad records use."""
        first = np.full(len(ids.distinct), -1)
        first[ids.codes[::-1]] = np.arange(len(ids.codes))[::-1]  # the last assignment of a code counts
        used = np.flatnonzero(first >= 0)
        index = np.empty(len(ids.distinct), dtype=np.int32)
        for code in used[np.argsort(first[used])].tolist():
            index[code] = self._index.setdefault(ids.distinct[code], len(self._index))
        indices: Int32s = index[ids.codes]
        return indices

    def ids(self) -> list[str]:
        """Return all ids by index."""
        return [raw.decode("utf-8") for raw in self._index]


@dataclass(slots=True)
class _InteractionCollector:
    """Collects the valid rows of all chunks; merges repeated pairs from time to time to save memory."""

    parts: list[ParsedRows] = field(default_factory=list)
    n_merged: int = 0
    n_new: int = 0
    users: _VocabularyBuilder = field(default_factory=_VocabularyBuilder)
    items: _VocabularyBuilder = field(default_factory=_VocabularyBuilder)

    def add(self, rows: _ValidRows) -> None:
        """Add the rows of a chunk."""
        self.parts.append(ParsedRows(self.users.indices(rows.user_ids), self.items.indices(rows.item_ids), rows.times))
        self.n_new += len(rows.times)
        if self.n_new >= max(MERGE_ROWS, self.n_merged):
            self._merge()

    def _merge(self) -> ParsedRows:
        merged = ParsedRows.joined(self.parts).distinct()
        self.parts, self.n_merged, self.n_new = [merged], len(merged), 0
        return merged

    def interactions(self) -> Interactions:
        """Return the distinct pairs; at least one chunk must have been added."""
        rows = self._merge()
        return Interactions(self.users.ids(), self.items.ids(), rows.users, rows.items)


def _check_bad_share(report: DataReport) -> None:
    if report.lines == 0:
        raise UntrainableCsv(
            "The file has a header but no lines.",
            code="no-rows",
            hint="Send at least one line per interaction.",
            report=report,
        )
    if report.has_too_many_bad_lines:
        raise UntrainableCsv(
            f"{report.bad_lines_text()}; at most {MAX_BAD_SHARE:.0%} of the lines may be bad.",
            code="too-many-bad-lines",
            hint=f"Fix the lines listed under errors (the first {len(report.listed)}) and send the file again.",
            report=report,
        )


def _check_size(report: DataReport) -> None:
    for count, noun in ((report.users, "user"), (report.items, "item")):
        if count < 2:
            ignored = (
                f" ({report.not_positive:,} lines with a score of 0 or less ignored)" if report.not_positive else ""
            )
            raise UntrainableCsv(
                f"The file has {count} {noun}{'' if count == 1 else 's'}; at least 2 are needed{ignored}.",
                code=f"too-few-{noun}s",
                hint="Send the interactions of more customers with more products.",
                report=report,
            )
