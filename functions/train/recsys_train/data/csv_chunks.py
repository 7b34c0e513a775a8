"""Parse a CSV in chunks with pyarrow. Each column is read as bytes, so that ids do not change.

For example, `007` does not become `7`, and `NA` is not treated as a missing value. Bytes that are not UTF-8 make only
their line bad, not the whole file.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import IO, Final, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from recsys.errors import InvalidData
from recsys_train.data.csv_source import CsvSource
from recsys_train.data.dialect import Dialect
from recsys_train.data.fields import Column
from recsys_train.data.mapping import Mapping
from recsys_train.data.record_chunk import Chunk
from recsys_train.data.report import DataReport

CHUNK_BYTES: Final = 8 * 1024 * 1024
"""Size of a chunk. A longer record cannot be read."""
NO_RECORDS_MESSAGE: Final = "Empty CSV file"
"""Part of pyarrow's error for a file without a record; pyarrow has no error class for it."""
LONG_RECORD_MESSAGE: Final = "straddling"
"""Part of pyarrow's error for a record that does not fit into a chunk."""


def read_csv_chunks(source: CsvSource, dialect: Dialect, mapping: Mapping, report: DataReport) -> Generator[Chunk]:
    """Yield the records below the header in chunks.

    Parameters
    ----------
    source
        The CSV after its header. When the iterator ends or is closed, the source is stopped and cannot be read again.
    dialect
        Delimiter and header.
    mapping
        Columns to read. Other columns are skipped.
    report
        Report to which the number of lines and the ragged records are added. A ragged record has more or fewer fields
        than the header, and is left out of the chunks.

    Raises
    ------
    InvalidData
        pyarrow cannot parse the file.
    """
    # The parser runs in its own thread, ahead of the chunks that it returns. Ragged records wait here for their chunk.
    ragged: deque[pyarrow.csv.InvalidRow] = deque()
    next_line = dialect.header_line + 1
    try:
        for batch in _open(source, dialect, mapping, ragged):
            lines = _lines_of_chunk(next_line, batch.num_rows, ragged, dialect, report)
            next_line = int(lines[-1]) + 1 if len(lines) else next_line
            columns = {
                role: (Column.of_times if role == "time" else Column)(batch.column(role)) for role in mapping.positions
            }
            yield Chunk(columns, lines)
    except pa.ArrowInvalid as error:
        if NO_RECORDS_MESSAGE not in str(error):
            raise _unreadable(error, next_line) from error
    finally:
        source.stop()
    for row in ragged:
        _add_ragged(row, dialect, report)
    last_line = next_line - 1 + len(ragged)
    report.lines_inside_quotes = max(0, source.line_breaks - last_line)


def _open(
    source: CsvSource, dialect: Dialect, mapping: Mapping, ragged: deque[pyarrow.csv.InvalidRow]
) -> pyarrow.csv.CSVStreamingReader:
    def skip(row: pyarrow.csv.InvalidRow) -> Literal["skip"]:
        ragged.append(row)
        return "skip"

    # Placeholders make the other columns unique, because pyarrow accepts no duplicates.
    role_of = {position: role for role, position in mapping.positions.items()}
    names = [role_of.get(position, f"\0{position}") for position in range(len(dialect.header))]
    roles = list(mapping.positions)
    return pyarrow.csv.open_csv(
        cast("IO[bytes]", source),
        read_options=pyarrow.csv.ReadOptions(use_threads=False, block_size=CHUNK_BYTES, column_names=names),
        parse_options=pyarrow.csv.ParseOptions(
            delimiter=dialect.delimiter, invalid_row_handler=skip, ignore_empty_lines=False, newlines_in_values=True
        ),
        convert_options=pyarrow.csv.ConvertOptions(
            column_types={role: pa.binary() for role in roles},
            include_columns=roles,
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )


def _lines_of_chunk(
    first: int, n_records: int, ragged: deque[pyarrow.csv.InvalidRow], dialect: Dialect, report: DataReport
) -> NDArray[np.int64]:
    """Return the line numbers of the next `n_records` well-formed records, (n_records,) int64.

    The numbers begin at `first`. Ragged lines between these records are skipped, and are added to the report.
    """
    end = first + n_records
    skipped = []
    while ragged and _line(ragged[0], dialect) < end:
        skipped.append(_line(ragged[0], dialect))
        _add_ragged(ragged.popleft(), dialect, report)
        end += 1
    report.lines += n_records
    lines = np.arange(first, end)
    return np.delete(lines, np.array(skipped, dtype=np.int64) - first) if skipped else lines


def _line(row: pyarrow.csv.InvalidRow, dialect: Dialect) -> int:
    assert row.number is not None  # pyarrow numbers the rows when it parses in a single thread
    return row.number + dialect.header_line  # the header has been read already


def _add_ragged(row: pyarrow.csv.InvalidRow, dialect: Dialect, report: DataReport) -> None:
    n_lines = 1 + row.text.count("\n")
    report.add_bad_line(
        _line(row, dialect),
        "ragged-line",
        f"the line has {row.actual_columns} fields, but the header has {row.expected_columns}; "
        f"quote a field that contains the delimiter {dialect.delimiter!r}",
        spans=n_lines,
    )
    report.lines += n_lines


def _unreadable(error: pa.ArrowInvalid, next_line: int) -> InvalidData:
    if LONG_RECORD_MESSAGE in str(error):
        return InvalidData(
            f"After line {next_line - 1:,} there is a line of more than {CHUNK_BYTES:,} bytes. "
            "Either a quote is never closed, or the file is not a CSV.",
            code="unclosed-quote",
            hint="Look for an unpaired double quote. Inside a quoted field, write a double quote as two double quotes.",
        )
    return InvalidData(
        f"The file cannot be read as a CSV after line {next_line - 1:,}: {error}.",
        code="not-a-csv",
        hint="Send a CSV with a header, in UTF-8.",
    )
