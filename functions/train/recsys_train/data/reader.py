"""Read interactions from a file.

The file is unpacked, decoded and parsed, the records are checked, and the ids are numbered.

Reading is strict. Each line is used unchanged, skipped by a documented rule, or counted as bad in the data report.
Memory grows with the number of distinct pairs (about 32 bytes each) instead of with the size of the file, because a
small gzip file can contain a billion rows.
"""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import BinaryIO, cast

from recsys.errors import InvalidData
from recsys.file_options import FileOptions, Mode
from recsys_train.data.charset import Utf8Reader
from recsys_train.data.collector import InteractionCollector
from recsys_train.data.csv_chunks import read_csv_chunks
from recsys_train.data.csv_source import CsvSource
from recsys_train.data.dialect import read_dialect
from recsys_train.data.freed_memory import reuse_freed_memory
from recsys_train.data.history import History, KeyData, in_canonical_order
from recsys_train.data.interactions import Interactions
from recsys_train.data.mapping import Mapping, map_columns
from recsys_train.data.parquet_chunks import map_parquet, open_parquet, read_parquet_chunks
from recsys_train.data.record_chunk import Chunk
from recsys_train.data.report import MAX_BAD_SHARE, DataReport, fix_lines_hint
from recsys_train.data.rows import RowChecker, without_items
from recsys_train.data.times import TimeParser
from recsys_train.data.unpack import Limits, Unpacked, unpack


class UntrainableData(InvalidData):
    """Raised when a file was read to its end but cannot be used for training.

    Parameters
    ----------
    report
        The data report, which lists the bad lines.
    """

    def __init__(self, detail: str, *, code: str, hint: str, report: DataReport) -> None:
        super().__init__(detail, code=code, hint=hint, errors=report.listed)
        self.report = report


def read_interactions(
    stream: BinaryIO,
    *,
    max_unpacked_bytes: int,
    options: FileOptions | None = None,
    timeout_s: float = 600.0,
    key_data: KeyData | None = None,
) -> tuple[Interactions, DataReport]:
    r"""Read the interactions in a CSV or Parquet file, plain or compressed with gzip, zstd or zip.

    Parameters
    ----------
    stream
        The uploaded file, which is not closed. It is read once from start to end. Only a Parquet file is read at any
        position, if the stream is seekable and at its start.
    max_unpacked_bytes
        Limit of the decompressed size, in bytes.
    options
        Columns, delimiter and charset, and the records to skip. Columns and format are detected if they are not set.
    timeout_s
        Limit of the time for reading, in seconds.
    key_data
        Interactions to which the file's interactions are added, and users whose rows are skipped. If `options.mode` is
        `append`, `recsys_train.data.history.in_canonical_order` sorts the result, even without such interactions.

    Returns
    -------
    interactions : Interactions
        Distinct pairs in chronological order. A repeated pair has the position of its earliest row. Rows with the same
        time keep their order in the file.
    report : DataReport
        Mapping of the columns, format, counts of lines by outcome, warnings and advice.

    Raises
    ------
    InvalidData
        The file cannot be read, because it is too large or because its compression, charset, header, columns or dates
        are not as expected. Also raised if the file has times and the history has none, or vice versa.
    UntrainableData
        More than 1% of the lines are bad, or fewer than 2 users or 2 items remain.

    Examples
    --------
    >>> import io
    >>> csv = b"customer;sku;created_at\nanna;tea;02.03.2026\nben;tea;13.03.2026\nanna;milk;01.03.2026\n"
    >>> interactions, report = read_interactions(io.BytesIO(csv), max_unpacked_bytes=10**6)
    >>> [(interactions.user_ids[u], interactions.item_ids[i]) for u, i in zip(interactions.users, interactions.items)]
    [('anna', 'milk'), ('anna', 'tea'), ('ben', 'tea')]
    >>> report.mapping, report.format["delimiter"], report.format["time_format"]
    ({'user': 'customer', 'item': 'sku', 'time': 'created_at'}, ';', 'day-first')
    """
    options = options or FileOptions()
    report = DataReport()
    with reuse_freed_memory(), unpack(stream, Limits(max_unpacked_bytes, timeout_s)) as unpacked:
        open_chunks = _open_parquet if unpacked.is_parquet else _open_csv
        chunks, mapping = open_chunks(unpacked, options, max_unpacked_bytes, report)
        with closing(chunks):
            interactions = _collect(chunks, mapping, options, report, key_data or KeyData())
        report.describe_interactions(interactions)
    _check_size(report)
    return interactions, report


def _collect(
    chunks: Iterator[Chunk], mapping: Mapping, options: FileOptions, report: DataReport, key_data: KeyData
) -> Interactions:
    report.describe_mapping(mapping.names, mapping.source)
    report.unused_event = mapping.unused_event
    times = TimeParser(options.time_format)
    checker = RowChecker(mapping, options, times, report, erased_users=key_data.erased_users)
    collector = InteractionCollector(is_append=options.mode == Mode.APPEND)
    if key_data.history is not None:
        _add_history(key_data.history, collector, report, options.exclude_items or ())
    for chunk in _with_known_times(chunks, times):
        collector.add(checker.valid_rows(chunk))
    _finish_format(report, checker, times, options)
    _check_bad_share(report)
    interactions = collector.interactions(has_times=report.has_timestamps)
    return in_canonical_order(interactions) if options.mode == Mode.APPEND else interactions


def _add_history(
    history: History, collector: InteractionCollector, report: DataReport, excluded_items: Sequence[str]
) -> None:
    if history.has_times != report.has_timestamps:
        with_times, without = ("model's data", "file") if history.has_times else ("file", "model's data")
        fix = (
            "Add a time column to the file, or pass its name: time=COLUMN."
            if history.has_times
            else "Pass time=- to ignore the times of the file."
        )
        raise InvalidData(
            f"Expected times in both the file and the model's data, or in neither. The {with_times} has times, but "
            f"the {without} has none.",
            code="mixed-timestamps",
            hint=f"{fix} Otherwise, send all data with mode=replace.",
        )
    report.appended_to = history.version
    for kept in history.chunks():
        rows = without_items(kept, excluded_items)
        report.kept_interactions += len(rows.times)
        collector.add(rows)


def _open_csv(
    unpacked: Unpacked, options: FileOptions, _max_unpacked_bytes: int, report: DataReport
) -> tuple[Generator[Chunk], Mapping]:
    text = Utf8Reader(cast("io.BufferedReader", unpacked.stream), options.charset)
    source = CsvSource(text)
    dialect = read_dialect(source, text, options)
    mapping = map_columns(dialect.header, options)
    report.describe_columns(dialect.header, set(mapping.positions.values()))
    report.format |= {
        "type": "csv",
        "compression": unpacked.compression,
        "charset": text.charset,
        "delimiter": dialect.delimiter,
        "header_line": dialect.header_line,
    }
    return read_csv_chunks(source, dialect, mapping, report), mapping


def _open_parquet(
    unpacked: Unpacked, options: FileOptions, max_unpacked_bytes: int, report: DataReport
) -> tuple[Generator[Chunk], Mapping]:
    file = open_parquet(unpacked.stream)
    mapping = map_parquet(file, options)
    report.describe_columns(list(file.schema_arrow.names), set(mapping.positions.values()))
    report.format |= {"type": "parquet", "compression": unpacked.compression}
    return read_parquet_chunks(unpacked.stream, mapping, max_unpacked_bytes, report), mapping


def _with_known_times(chunks: Iterator[Chunk], times: TimeParser) -> Iterator[Chunk]:
    """Yield the chunks. They are held back until the format of the times has been detected.

    In most files, the first chunk is enough to detect the format.
    """
    held: list[Chunk] = []
    for chunk in chunks:
        held.append(chunk)
        if "time" not in chunk.columns or times.recognise(chunk.columns["time"]):
            yield from held
            held = []
    if held:
        raise times.undecided(held[0].columns["time"])


def _finish_format(report: DataReport, checker: RowChecker, times: TimeParser, options: FileOptions) -> None:
    """Add the properties to the report that are known only after the whole file was read.

    These properties are the decimal separator, the time format, and whether `min_score` should be set. `InvalidData` is
    raised if the scores have decimal commas and decimal points.
    """
    if report.has_timestamps and times.time_format:
        report.format["time_format"] = times.time_format
    if checker.scores.with_comma and checker.scores.with_point:
        raise InvalidData(
            f"Expected one decimal separator in {report.mapping['score']}. Received both decimal commas and points.",
            code="mixed-decimals",
            hint="Write all numbers with a decimal point, or declare decimal=point or decimal=comma.",
        )
    if checker.scores.with_comma:
        report.format["decimal"] = ","
    report.needs_min_score = options.min_score is None and checker.looks_like_ratings()


def _check_bad_share(report: DataReport) -> None:
    if report.lines == 0:
        raise UntrainableData(
            "The file has a header but no lines.",
            code="no-rows",
            hint="Below the header, write one line per interaction.",
            report=report,
        )
    if report.has_too_many_bad_lines:
        is_charset = 2 * sum(n for code, n in report.bad_by_code.items() if "utf8" in code) > report.bad_lines
        charset_hint = " Declare the file's charset, for example charset=windows-1252." if is_charset else ""
        raise UntrainableData(
            f"{report.bad_lines_text()}; at most {MAX_BAD_SHARE:.0%} of the lines may be bad.",
            code="too-many-bad-lines",
            hint=f"{fix_lines_hint(report.listed)}{charset_hint}",
            report=report,
        )


def _check_size(report: DataReport) -> None:
    for count, noun in ((report.users, "user"), (report.items, "item")):
        if count < 2:
            skipped = f" ({report.skipped_text()})" if report.skipped else ""
            raise UntrainableData(
                f"The file has {count} {noun}{'' if count == 1 else 's'}; at least 2 are needed{skipped}.",
                code=f"too-few-{noun}s",
                hint="Send interactions of more users with more items.",
                report=report,
            )
