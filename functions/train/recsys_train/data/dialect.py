"""Find the header of a CSV, and detect the delimiter of the columns."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from typing import Final

from recsys.errors import InvalidData
from recsys.file_options import DELIMITERS, FileOptions
from recsys_train.data.charset import Utf8Reader, check_text, decode_line
from recsys_train.data.csv_source import CsvSource
from recsys_train.data.mapping import fits

_MAX_HEADER_BYTES: Final = 64 * 1024
_SAMPLE_LINES: Final = 20
_SEP_LINE: Final = re.compile(rb'\s*"?sep=(.)"?[;,\s]*', re.IGNORECASE)
_HINT: Final = "Send a file with a header, such as user_id,item_id,timestamp, and one line per record below it."


@dataclass(frozen=True, slots=True)
class Dialect:
    """Format of a CSV, which consists of the delimiter and the header.

    Parameters
    ----------
    delimiter
        One of `,`, `;`, tab and `|`.
    header
        Names of the columns, as in the file.
    header_line
        Number of the last line of the header, counted from 1.
    """

    delimiter: str
    header: list[str]
    header_line: int


def read_dialect(source: CsvSource, text: Utf8Reader, options: FileOptions) -> Dialect:
    """Read the header of a CSV. Afterwards, `source` is at the line below the header.

    Blank lines, lines that begin with `#` and a `sep=` line above the header are skipped.

    Raises
    ------
    InvalidData
        The file is empty, binary, or has no readable header.
    """
    sample = _read_sample(source)
    check_text(sample, text.charset)
    if not sample.strip():
        raise InvalidData("The file is empty.", code="empty-file", hint=_HINT)
    lines = sample.splitlines(keepends=True)
    declared = DELIMITERS[options.delimiter] if options.delimiter else None
    first = 0
    while first < len(lines) and (is_skipped := _skipped(lines[first])) is not None:
        declared = declared or is_skipped or None
        first += 1
    if first == len(lines):
        raise InvalidData(
            "The file has no header, because it contains only blank lines, comments or a sep= line.",
            code="empty-file",
            hint=_HINT,
        )
    n_lines = _n_lines_of_record(lines[first:])
    header = decode_line(b"".join(lines[first : first + n_lines]), first + 1, text.invalid_sample)
    source.push_back(b"".join(lines[first + n_lines :]))
    records = [line.decode("utf-8", errors="replace") for line in lines[first + n_lines :][:_SAMPLE_LINES]]
    delimiter = declared or _choose(header, records, options)
    return Dialect(delimiter, _split(header, delimiter), first + n_lines)


def _read_sample(source: CsvSource) -> bytes:
    """Return at least the first 64 KiB of a file, or the whole file if it is shorter."""
    content = b""
    while len(content) < _MAX_HEADER_BYTES and (chunk := source.read(_MAX_HEADER_BYTES)):
        content += chunk
    return content


def _skipped(line: bytes) -> str | None:
    """Return the delimiter of a `sep=` line, `""` for another line above the header, or None for the header itself."""
    declared = _SEP_LINE.fullmatch(line)
    if declared is not None:
        delimiter = declared[1].decode("latin-1")
        if delimiter not in DELIMITERS.values():
            raise InvalidData(
                f"Expected a sep= line with a comma, semicolon, tab or pipe. Received: sep={delimiter!r}.",
                code="unsupported-delimiter",
                hint="Save the file with one of these delimiters.",
            )
        return delimiter
    return "" if not line.strip() or line.startswith(b"#") else None


def _n_lines_of_record(lines: list[bytes]) -> int:
    """Return the number of lines until all quotes are closed, or 1 if a quote is never closed."""
    n_quotes = 0
    for number, line in enumerate(lines, start=1):
        n_quotes += line.count(b'"')
        if n_quotes % 2 == 0:
            return number
    return 1


def _choose(header: str, records: list[str], options: FileOptions) -> str:
    """Return the most plausible delimiter of a CSV.

    A delimiter that separates the required columns of the header is preferred. Otherwise, the delimiter that splits
    most lines into as many fields as the header is chosen.
    """

    def quality(delimiter: str) -> tuple[bool, float, int]:
        names = _split(header, delimiter)
        n_same = sum(len(_split(record, delimiter)) == len(names) for record in records)
        share = n_same / len(records) if records and len(names) > 1 else 0.0
        return fits(names, options), share, len(names)

    return max(DELIMITERS.values(), key=quality)


def _split(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:
        return [line]
