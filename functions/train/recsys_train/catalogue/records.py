"""Read the records of a file of items. The formats are CSV, JSON Lines, a JSON array of objects, and Parquet."""

from __future__ import annotations

import csv
import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from recsys.errors import InvalidData
from recsys.file_options import FileOptions
from recsys_train.catalogue.report import CatalogueReport
from recsys_train.data.charset import NOT_UTF8, Utf8Reader
from recsys_train.data.csv_source import CsvSource
from recsys_train.data.dialect import read_dialect
from recsys_train.data.unpack import Unpacked

MAX_ARRAY_BYTES: Final = 32 * 2**20
"""Largest JSON array. It is limited because it is parsed as a whole."""
_FIRST_BYTES: Final = 1024
_BATCH_ROWS: Final = 8192


@dataclass(frozen=True, slots=True)
class ItemRecord:
    """One record of a file, with its values by column.

    `line` is the line number of the record. In a Parquet file or a JSON array, records are counted instead of lines.
    """

    line: int
    values: dict[str, Any]


def read_records(unpacked: Unpacked, options: FileOptions, report: CatalogueReport) -> Iterator[ItemRecord]:
    """Yield the records of a file. Lines that cannot be parsed are counted in the report.

    Parameters
    ----------
    unpacked
        The decompressed file.
    options
        Delimiter and charset of a CSV. Options that are not set are detected.
    report
        Report to which the format and the bad lines are added.

    Raises
    ------
    InvalidData
        The file cannot be read.
    """
    if unpacked.is_parquet:
        report.format = "parquet"
        return _read_parquet(unpacked)
    stream = cast("io.BufferedReader", unpacked.stream)
    start = stream.peek(_FIRST_BYTES).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start == b"{":
        report.format = "jsonl"
        return _read_json_lines(stream, report)
    if start == b"[":
        report.format = "json"
        return _read_json_array(stream, report)
    report.format = "csv"
    return _read_csv(stream, options, report)


def _read_csv(stream: io.BufferedReader, options: FileOptions, report: CatalogueReport) -> Iterator[ItemRecord]:
    text = Utf8Reader(stream, options.charset)
    source = CsvSource(text)
    dialect = read_dialect(source, text, options)
    names = [name.strip() for name in dialect.header]
    if len(set(names)) < len(names):
        twice = next(name for position, name in enumerate(names) if name in names[:position])
        raise InvalidData(
            f"Expected columns with different names. Received {twice!r} twice.",
            code="duplicate-column",
            hint="Rename or remove one of these columns.",
        )
    reader = csv.reader(
        io.TextIOWrapper(io.BufferedReader(_RawText(source)), "utf-8", newline=""), delimiter=dialect.delimiter
    )
    line = dialect.header_line + 1
    while (fields := _next_row(reader, line)) is not None:
        if fields:
            if len(fields) == len(names):
                _check_charset(fields, line)
                yield ItemRecord(line, dict(zip(names, fields, strict=True)))
            else:
                detail = f"the line has {len(fields)} fields, but the header has {len(names)}"
                report.add_bad_line(line, "ragged-line", detail)
        line = dialect.header_line + 1 + reader.line_num


def _next_row(reader: Any, line: int) -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        raise InvalidData(
            f"The file cannot be read as a CSV at line {line:,}: {error}.",
            code="not-a-csv",
            hint="Look for an unpaired double quote, or send JSON Lines.",
        ) from error


def _check_charset(fields: list[str], line: int) -> None:
    if any(NOT_UTF8 in field for field in fields):
        raise InvalidData(
            f"Expected UTF-8 text. Received bytes that are not UTF-8, in line {line:,}.",
            code="not-utf8",
            hint="Declare the file's charset, for example charset=windows-1252, or save the file as UTF-8.",
        )


class _RawText(io.RawIOBase):
    """A `CsvSource` as the raw stream that `io.BufferedReader` needs."""

    def __init__(self, source: CsvSource) -> None:
        super().__init__()
        self._source = source

    def readable(self) -> bool:
        """Return True. `io.RawIOBase` requires this method."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # the buffer that BufferedReader passes
        """Read up to `len(buffer)` bytes into the buffer, and return their number."""
        content = self._rest or self._source.read(len(buffer))
        part, self._rest = content[: len(buffer)], content[len(buffer) :]
        buffer[: len(part)] = part
        return len(part)

    _rest = b""


def _read_json_lines(stream: io.BufferedReader, report: CatalogueReport) -> Iterator[ItemRecord]:
    for line, text in enumerate(stream, start=1):
        if not text.strip():
            continue
        try:
            record = json.loads(text.decode("utf-8-sig") if line == 1 else text)
        except (ValueError, RecursionError) as error:
            report.add_bad_line(line, "not-json", f"the line is not JSON: {error}")
            continue
        if isinstance(record, dict):
            yield ItemRecord(line, record)
        else:
            report.add_bad_line(line, "not-an-object", "the line is not a JSON object")


def _read_json_array(stream: io.BufferedReader, report: CatalogueReport) -> Iterator[ItemRecord]:
    text = stream.read(MAX_ARRAY_BYTES + 1)
    if len(text) > MAX_ARRAY_BYTES:
        raise InvalidData(
            f"Expected a JSON array of at most {MAX_ARRAY_BYTES:,} bytes. Received a larger array.",
            code="array-too-large",
            hint="Send JSON Lines, with one object per line and without brackets or commas around the objects.",
        )
    try:
        records = json.loads(text.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InvalidData(
            f"The file begins like a JSON array but is not JSON: {error}.",
            code="not-json",
            hint="Send a JSON array of objects, or one object per line.",
        ) from error
    for number, record in enumerate(records, start=1):
        if isinstance(record, dict):
            yield ItemRecord(number, record)
        else:
            report.add_bad_line(number, "not-an-object", "the element is not a JSON object")


def _read_parquet(unpacked: Unpacked) -> Iterator[ItemRecord]:
    try:
        numbers = itertools.count(1)
        for batch in pq.ParquetFile(unpacked.stream).iter_batches(_BATCH_ROWS):
            for values in batch.to_pylist():
                yield ItemRecord(next(numbers), values)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InvalidData(
            f"The Parquet file cannot be read: {str(error).splitlines()[0][:200].rstrip('.')}.",
            code="damaged-parquet",
            hint="Write the file again, for example with pyarrow or pandas, without encryption.",
        ) from error
