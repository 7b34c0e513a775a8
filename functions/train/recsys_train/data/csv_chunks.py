"""Parse a CSV in chunks with pyarrow, every column as bytes.

Reading bytes keeps ids as they are (`007` is not `7`, `NA` is an id), and a wrong encoding costs a line, not the file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO, Final, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from recsys.errors import InvalidData
from recsys_train.data.csv_fields import Column
from recsys_train.data.csv_source import KNOWN_COLUMNS, CsvSource
from recsys_train.data.report import DataReport

CHUNK_BYTES: Final = 8 * 1024 * 1024
"""Size of a chunk, and therefore the longest record that can be read."""
NO_RECORDS_MESSAGE: Final = "Empty CSV file"
"""Part of pyarrow's error for a file without a record; pyarrow has no error class for it."""
LONG_RECORD_MESSAGE: Final = "straddling"
"""Part of pyarrow's error for a record that does not fit into a chunk."""


@dataclass(slots=True)
class CsvChunk:
    """Some records of the file: the known columns, and each record's line number, (n_records,) int64."""

    columns: dict[str, Column]
    lines: NDArray[np.int64]


def read_chunks(source: CsvSource, columns: list[str], report: DataReport) -> Iterator[CsvChunk]:
    """Yield the records below the header.

    Parameters
    ----------
    source
        The CSV after its header. Reading stops for good when the iterator ends.
    columns
        Names from the header; unknown ones are skipped.
    report
        Receives the number of lines, and the ragged records, which only the parser sees.

    Raises
    ------
    InvalidData
        pyarrow cannot parse the file.
    """
    # Placeholders make unknown columns unique, because pyarrow accepts no duplicates.
    names = [name if name in KNOWN_COLUMNS else f"\0{index}" for index, name in enumerate(columns)]
    known = [name for name in names if name in KNOWN_COLUMNS]
    # The parser runs ahead of the chunks that it returns, in its own thread; ragged records wait here for their chunk.
    ragged: deque[pyarrow.csv.InvalidRow] = deque()
    next_line = 2
    try:
        for batch in _open(source, names, known, ragged):
            lines = _lines_of_chunk(next_line, batch.num_rows, ragged, report)
            next_line = int(lines[-1]) + 1 if len(lines) else next_line
            yield CsvChunk({name: Column.of(column) for name, column in zip(known, batch.columns, strict=True)}, lines)
    except pa.ArrowInvalid as error:
        if NO_RECORDS_MESSAGE not in str(error):
            raise _unreadable(error, next_line) from error
    finally:
        source.stop()
    for row in ragged:
        _add_ragged(row, report)
    last_line = next_line - 1 + len(ragged)
    report.lines_inside_quotes = max(0, source.line_breaks - last_line)


def _open(
    source: CsvSource, names: list[str], known: list[str], ragged: deque[pyarrow.csv.InvalidRow]
) -> pyarrow.csv.CSVStreamingReader:
    def skip(row: pyarrow.csv.InvalidRow) -> Literal["skip"]:
        ragged.append(row)
        return "skip"

    return pyarrow.csv.open_csv(
        cast("IO[bytes]", source),
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=CHUNK_BYTES, column_names=names),
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


def _lines_of_chunk(
    first: int, n_records: int, ragged: deque[pyarrow.csv.InvalidRow], report: DataReport
) -> NDArray[np.int64]:
    """Return the line numbers of `n_records` well-formed records from line `first` on; ragged lines are skipped."""
    end = first + n_records
    skipped = []
    while ragged and _line(ragged[0]) < end:
        skipped.append(_line(ragged[0]))
        _add_ragged(ragged.popleft(), report)
        end += 1
    report.lines += n_records
    return np.setdiff1d(np.arange(first, end), skipped, assume_unique=True)


def _line(row: pyarrow.csv.InvalidRow) -> int:
    assert row.number is not None  # pyarrow knows it if a single thread parses
    return row.number + 1  # the header has been read already


def _add_ragged(row: pyarrow.csv.InvalidRow, report: DataReport) -> None:
    n_lines = 1 + row.text.count("\n")
    report.add_bad_line(
        _line(row),
        "ragged-line",
        f"the line has {row.actual_columns} fields, the header {row.expected_columns}; "
        "quote a field that contains a comma",
        spans=n_lines,
    )
    report.lines += n_lines


def _unreadable(error: pa.ArrowInvalid, next_line: int) -> InvalidData:
    if LONG_RECORD_MESSAGE in str(error):
        return InvalidData(
            f"After line {next_line - 1:,} there is a line of more than {CHUNK_BYTES:,} bytes: "
            "a quote is never closed, or the file is not a CSV.",
            code="unclosed-quote",
            hint="Look for a single double quote; inside a quoted field, write a quote twice.",
        )
    return InvalidData(
        f"The file cannot be read as a CSV after line {next_line - 1:,}: {error}.",
        code="not-a-csv",
        hint="Send comma-separated text in UTF-8.",
    )
