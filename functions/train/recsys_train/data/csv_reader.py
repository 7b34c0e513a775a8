"""From the bytes of a CSV to interactions, strictly: every line is read as it stands or counted as bad.

pyarrow reads the file in blocks with every column as bytes, so that ids stay byte for byte (`007` is not `7`, `NA` is
an id) and a wrong encoding costs a line, not the file. Memory grows with the number of distinct pairs, 20 bytes each,
not with the file: a small gzip can hold a billion rows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO, BinaryIO, Final, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from recsys.errors import InvalidData
from recsys_train.data.csv_fields import BLANK, ID_PROBLEMS, Column, id_problems, parse_scores, parse_times
from recsys_train.data.csv_source import KNOWN_COLUMNS, CsvSource, read_header
from recsys_train.data.interactions import Interactions, ParsedRows
from recsys_train.data.report import MAX_BAD_SHARE, DataReport

BLOCK_BYTES: Final = 8 * 1024 * 1024
"""Also the longest line that can be read."""
MERGE_ROWS: Final = 4_000_000
"""So many new rows are held, or as many as there are distinct ones, before those of one pair are merged."""


class UntrainableCsv(InvalidData):
    """The file was read, and what it holds cannot be trained on; `report` says what was found."""

    def __init__(self, detail: str, *, code: str, hint: str, report: DataReport) -> None:
        super().__init__(detail, code=code, hint=hint, errors=report.listed)
        self.report = report


def read_interactions(stream: BinaryIO, *, max_unpacked_bytes: int) -> tuple[Interactions, DataReport]:
    """Read a CSV, plain or gzip.

    Parameters
    ----------
    stream
        The upload, read once from front to back.

    Raises
    ------
    InvalidData
        The file cannot be read as a CSV with the columns `user_id` and `item_id`.
    UntrainableCsv
        More than 1% of its lines are bad, or fewer than 2 users or 2 items are left.
    """
    source = CsvSource(stream, max_unpacked_bytes=max_unpacked_bytes)
    columns = read_header(source)
    report = DataReport(
        has_scores="interaction_score" in columns,
        has_timestamps="timestamp" in columns,
        ignored_columns=[name for name in columns if name not in KNOWN_COLUMNS],
    )
    rows = _Collected()
    for block in _read_chunks(source, columns, report):
        rows.append(_check(block, report))
    _check_bad_share(report)
    interactions = rows.finish()
    report.users, report.items = interactions.n_users, interactions.n_items
    report.interactions = len(interactions)
    _check_size(report)
    return interactions, report


@dataclass(slots=True)
class CsvChunk:
    """Some records of the file: the known columns as bytes, and the line each record stands on."""

    columns: dict[str, Column]
    lines: NDArray[np.int64]


@dataclass(slots=True)
class _GoodRows:
    """What is left of a block after its bad records went; ids still as bytes."""

    user_ids: Column
    item_ids: Column
    scores: NDArray[np.float32]
    times: NDArray[np.int64]


def _read_chunks(source: CsvSource, columns: list[str], report: DataReport) -> Iterator[CsvChunk]:
    """Read blocks; ragged records are counted here, since only the parser sees them."""
    # Place-holders make columns that are not ours unique, whatever they are called.
    names = [name if name in KNOWN_COLUMNS else f"\0{place}" for place, name in enumerate(columns)]
    known = [name for name in names if name in KNOWN_COLUMNS]
    # The parser runs ahead of the blocks it hands out, in a thread of its own: what it meets waits here for its turn.
    ragged: deque[pyarrow.csv.InvalidRow] = deque()

    def skip(row: pyarrow.csv.InvalidRow) -> Literal["skip"]:
        ragged.append(row)
        return "skip"

    next_line = 2
    try:
        reader = pyarrow.csv.open_csv(
            cast("IO[bytes]", source),
            read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES, column_names=names),
            parse_options=pyarrow.csv.ParseOptions(
                invalid_row_handler=skip, ignore_empty_lines=False, newlines_in_values=True
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(known, pa.binary()),
                include_columns=known,
                strings_can_be_null=False,
                check_utf8=False,
            ),
        )
        for batch in reader:
            lines = _lines_of_chunk(next_line, batch.num_rows, ragged, report)
            next_line = int(lines[-1]) + 1 if len(lines) else next_line
            yield CsvChunk({name: Column.of(column) for name, column in zip(known, batch.columns, strict=True)}, lines)
    except pa.ArrowInvalid as error:
        if "Empty CSV file" not in str(error):
            raise _unreadable(error, next_line) from error
    finally:
        source.stop()
    for row in ragged:
        _add_ragged(row, report)
        next_line += 1
    report.lines_inside_quotes = max(0, source.line_breaks - (next_line - 1))


def _lines_of_chunk(
    first: int, n_records: int, ragged: deque[pyarrow.csv.InvalidRow], report: DataReport
) -> NDArray[np.int64]:
    """The lines that `n_records` good records from line `first` on stand on, ragged lines among them passed over."""
    end = first + n_records
    skipped = []
    while ragged and _line(ragged[0]) < end:
        skipped.append(_line(ragged[0]))
        _add_ragged(ragged.popleft(), report)
        end += 1
    report.lines += n_records
    return np.setdiff1d(np.arange(first, end), skipped, assume_unique=True)


def _line(row: pyarrow.csv.InvalidRow) -> int:
    assert row.number is not None  # it is known where one thread reads
    return row.number + 1  # the header was read before


def _add_ragged(row: pyarrow.csv.InvalidRow, report: DataReport) -> None:
    report.add_bad_line(
        _line(row),
        "ragged-line",
        f"the line has {row.actual_columns} fields, the header {row.expected_columns}; "
        "quote a field that holds a comma",
        spans=1 + row.text.count("\n"),
    )
    report.lines += 1 + row.text.count("\n")


def _unreadable(error: pa.ArrowInvalid, next_line: int) -> InvalidData:
    if "straddling" in str(error):
        return InvalidData(
            f"Somewhere after line {next_line - 1:,} a line is longer than {BLOCK_BYTES:,} bytes: "
            "a quote is never closed, or the file is no CSV.",
            code="unclosed-quote",
            hint="Look for a lone double quote; inside a quoted field a quote is written twice.",
        )
    return InvalidData(
        f"The file cannot be read as a CSV after line {next_line - 1:,}: {error}.",
        code="not-a-csv",
        hint="Send comma-separated text in UTF-8.",
    )


def _check(block: CsvChunk, report: DataReport) -> _GoodRows:
    """Leave out the bad records of a block, counting each once, under the first thing that is wrong with it."""
    n_records = len(block.lines)
    user_ids, item_ids = block.columns["user_id"], block.columns["item_id"]
    user_problems, item_problems = id_problems(user_ids), id_problems(item_ids)
    scores = np.ones(n_records, dtype=np.float32)
    times, bad_times = np.zeros(n_records, dtype=np.int64), np.zeros(n_records, dtype=np.bool_)
    if report.has_scores:
        scores = parse_scores(block.columns["interaction_score"])
    if report.has_timestamps:
        times, bad_times = parse_times(block.columns["timestamp"])

    blank = (user_problems == BLANK) & (item_problems == BLANK)
    bad = ~blank & ((user_problems != "") | (item_problems != "") | np.isnan(scores) | bad_times)
    not_positive = ~blank & ~bad & (scores <= 0)
    for record in np.flatnonzero(bad).tolist():
        _add_bad_record(block, record, user_problems[record], item_problems[record], scores[record], report)
    report.lines -= int(blank.sum())
    report.not_positive += int(not_positive.sum())
    good = ~blank & ~bad & ~not_positive
    return _GoodRows(
        Column(user_ids.distinct, user_ids.codes[good]),
        Column(item_ids.distinct, item_ids.codes[good]),
        scores[good],
        times[good],
    )


def _add_bad_record(
    block: CsvChunk, record: int, user_problem: str, item_problem: str, score: np.float32, report: DataReport
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
        shown = block.columns[name][record][:40].decode("utf-8", errors="replace")
        code, detail = f"bad-{name.replace('_', '-')}", f"the {name} is {shown!r}, expected {expected}"
    # A quote that is never closed swallows lines: they count, or a lost half of a file would pass as one bad line.
    spans = 1 + sum(block.columns[column][record].count(b"\n") for column in ("user_id", "item_id"))
    report.add_bad_line(int(block.lines[record]), code, detail, spans=spans)
    report.lines += spans - 1


class _IdIndex:
    """Vocabulary in order of first appearance."""

    def __init__(self) -> None:
        self._index: dict[bytes, int] = {}

    def rows(self, ids: Column) -> NDArray[np.int32]:
        """The rows of a block's ids, new ids added; ids that only bad records used stay out."""
        first = np.full(len(ids.distinct), -1)
        first[ids.codes[::-1]] = np.arange(len(ids.codes))[::-1]  # the last assignment of a code stays
        used = np.flatnonzero(first >= 0)
        index = np.empty(len(ids.distinct), dtype=np.int32)
        for code in used[np.argsort(first[used])].tolist():
            index[code] = self._index.setdefault(ids.distinct[code], len(self._index))
        rows: NDArray[np.int32] = index[ids.codes]
        return rows

    def ids(self) -> list[str]:
        """Every id as text; the place is the row."""
        return [raw.decode("utf-8") for raw in self._index]


@dataclass(slots=True)
class _Collected:
    """The good rows of all blocks so far; those of one pair are merged now and then."""

    parts: list[ParsedRows] = field(default_factory=list)
    n_merged: int = 0
    n_new: int = 0
    user_index: _IdIndex = field(default_factory=_IdIndex)
    item_index: _IdIndex = field(default_factory=_IdIndex)

    def append(self, rows: _GoodRows) -> None:
        """Index the ids of a block and keep its numbers."""
        users, items = self.user_index.rows(rows.user_ids), self.item_index.rows(rows.item_ids)
        self.parts.append(ParsedRows(users, items, rows.scores, rows.times))
        self.n_new += len(users)
        if self.n_new >= max(MERGE_ROWS, self.n_merged):
            self._merge()

    def _merge(self) -> ParsedRows:
        merged = ParsedRows.joined(self.parts).distinct()
        self.parts, self.n_merged, self.n_new = [merged], len(merged), 0
        return merged

    def finish(self) -> Interactions:
        """All rows as distinct pairs; there is at least one block."""
        rows = self._merge()
        return Interactions(self.user_index.ids(), self.item_index.ids(), rows.users, rows.items, rows.scores)


def _check_bad_share(report: DataReport) -> None:
    if report.lines == 0:
        raise UntrainableCsv(
            "The file holds a header and no lines.",
            code="no-rows",
            hint="Send at least one line per interaction.",
            report=report,
        )
    if report.has_too_many_bad_lines:
        raise UntrainableCsv(
            f"{report.bad_lines_text()}; at most {MAX_BAD_SHARE:.0%} may be.",
            code="too-many-bad-lines",
            hint=f"Mend the lines listed under errors (the first {len(report.listed)}) and send the file again.",
            report=report,
        )


def _check_size(report: DataReport) -> None:
    for count, what in ((report.users, "users"), (report.items, "items")):
        if count < 2:
            dropped = f" ({report.not_positive:,} lines have a score of 0 or less)" if report.not_positive else ""
            raise UntrainableCsv(
                f"The file has {count} {what if count != 1 else what[:-1]}; at least 2 are needed{dropped}.",
                code=f"too-few-{what}",
                hint="Send the interactions of more customers with more products.",
                report=report,
            )
