"""Read a Parquet file in chunks. Ids are converted to the bytes of their text."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any, BinaryIO, Final, cast

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from recsys.errors import InvalidData
from recsys.file_options import FileOptions
from recsys_train.data.fields import Column
from recsys_train.data.mapping import Mapping, map_columns
from recsys_train.data.record_chunk import Chunk
from recsys_train.data.report import DataReport
from recsys_train.data.times import MISSING_TIME

_ROWS_PER_CHUNK: Final = 524_288
_MIN_REPETITIONS: Final = 8
"""A column of text is read in dictionary encoding if it has at least this many rows per distinct value. Not tuned."""


def open_parquet(stream: BinaryIO, encoded_columns: Sequence[str] = ()) -> pq.ParquetFile:
    """Open a Parquet file in a seekable stream. The columns in `encoded_columns` are read in dictionary encoding.

    Raises
    ------
    InvalidData
        The file is damaged.
    """
    try:
        return pq.ParquetFile(cast("Any", stream), pre_buffer=False, read_dictionary=list(encoded_columns))
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(error) from error


def map_parquet(file: pq.ParquetFile, options: FileOptions) -> Mapping:
    """Map the columns of a Parquet file to roles by name, and check their types.

    Raises
    ------
    InvalidData
        A column is missing, several columns match the same role, or a column has a type that cannot be used.
    """
    names = [field.name for field in file.schema_arrow]
    mapping = map_columns(names, options)
    for role, position in mapping.positions.items():
        _check_type(role, file.schema_arrow.field(position))
    return mapping


def read_parquet_chunks(
    stream: BinaryIO, mapping: Mapping, max_unpacked_bytes: int, report: DataReport
) -> Generator[Chunk]:
    """Yield the rows of a Parquet file in chunks of at most 524,288 rows.

    Raises
    ------
    InvalidData
        The file is damaged, or has more than `max_unpacked_bytes` in the columns that are used.
    """
    file = open_parquet(stream)
    names = {role: file.schema_arrow.names[position] for role, position in mapping.positions.items()}
    n_rows = n_bytes = 0
    try:
        with closing(_read_ahead(_batches(stream, names))) as batches:
            for batch in batches:
                n_bytes += batch.nbytes
                if n_bytes > max_unpacked_bytes:
                    raise InvalidData(
                        f"The columns that are used unpack to more than {max_unpacked_bytes:,} bytes, which is the "
                        "limit of this service.",
                        code="too-large-unpacked",
                        hint="Send fewer rows, and keep the most recent ones because they have the most influence.",
                    )
                lines = np.arange(n_rows + 1, n_rows + 1 + batch.num_rows)
                n_rows += batch.num_rows
                report.lines += batch.num_rows
                yield _chunk(batch, names, lines)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(error) from error


def _read_ahead(batches: Iterator[pa.RecordBatch]) -> Generator[pa.RecordBatch]:
    """Yield the batches. A thread reads the next batch while the caller processes the current batch.

    Closing the generator waits for the thread, because the file must stay open until then.
    """
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, batches, None)
        while (batch := following.result()) is not None:
            following = thread.submit(next, batches, None)
            yield batch


def _batches(stream: BinaryIO, names: dict[str, str]) -> Generator[pa.RecordBatch]:
    """Yield the rows of a file in batches.

    Text columns are dictionary-encoded, unless their first rows have many different values. Most writers store text as
    a dictionary and indices. The dictionary and the indices are read unchanged, because this avoids decoding each value
    and encoding it again. If a column has many different values, its dictionary grows too large and the writer stores
    plain values instead. Such a column is read as plain text, because the ids of many chunks are encoded together
    later.
    """
    columns = list(names.values())
    encoded = [name for role, name in names.items() if role != "time"]
    file = open_parquet(stream, encoded)
    batches = file.iter_batches(_ROWS_PER_CHUNK, columns=columns, use_threads=False)
    first = next(batches, None)
    if first is None:
        return
    yield first
    varied = {name for name in encoded if _is_varied(first.column(name))}
    if varied and first.num_rows < file.metadata.num_rows:
        repetitive = [name for name in encoded if name not in varied]
        batches = open_parquet(stream, repetitive).iter_batches(_ROWS_PER_CHUNK, columns=columns, use_threads=False)
        next(batches)  # the rows of the first chunk, which was already yielded
    yield from batches


def _is_varied(array: Any) -> bool:
    """Return whether a column in dictionary encoding has too many distinct values for this encoding."""
    return pa.types.is_dictionary(array.type) and len(array) < _MIN_REPETITIONS * len(array.dictionary)


def _chunk(batch: pa.RecordBatch, names: dict[str, str], lines: Any) -> Chunk:
    columns, times = {}, None
    for role, name in names.items():
        array = batch.column(name)
        if role == "time" and pa.types.is_temporal(array.type):
            times = _microseconds(array)
        else:
            columns[role] = _column(array, is_encoded=role != "time")
    return Chunk(columns, lines, times)


def _column(array: Any, *, is_encoded: bool) -> Column:
    """Convert values to the bytes of their text. Null becomes the empty text. Integer times remain integers."""
    if not is_encoded and _is_complete_int64(array):
        return Column.of_times(array.cast(pa.int64()))
    if not is_encoded and not pa.types.is_dictionary(array.type):
        return Column.of_times(_without_nulls(_binary(array)))
    if not pa.types.is_dictionary(array.type):
        if not pa.types.is_integer(array.type) and not pa.types.is_floating(array.type):
            return Column(_without_nulls(_binary(array)))
        array = array.dictionary_encode()  # formatting is slow, so each distinct number is formatted once
    values, codes = _binary(array.dictionary), array.indices
    if codes.null_count or values.null_count:
        return Column(_without_nulls(pc.take(values, codes)))
    used = codes.dictionary_encode()  # a dictionary can contain values that no row has
    return Column(values.take(used.dictionary), used.indices.to_numpy())


def _without_nulls(array: Any) -> Any:
    return pc.fill_null(array, b"") if array.null_count else array  # fill_null copies the array in any case


def _binary(array: Any) -> Any:
    """Convert each value to text, encoded as bytes. Binary values do not change."""
    is_binary = pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type)
    return (array if is_binary else array.cast(pa.string())).cast(pa.binary())


def _is_complete_int64(array: Any) -> bool:
    return bool(pa.types.is_integer(array.type) and array.type != pa.uint64() and array.null_count == 0)


def _microseconds(array: Any) -> Any:
    unit = pa.timestamp("us", tz=array.type.tz) if pa.types.is_timestamp(array.type) else pa.timestamp("us")
    return pc.fill_null(array.cast(unit, safe=False).cast(pa.int64()), MISSING_TIME).to_numpy()


def _check_type(role: str, field: Any) -> None:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    is_text = any(check(kind) for check in (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view))
    is_text = is_text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind)
    is_number = pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    is_date = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    is_valid = is_text or pa.types.is_integer(kind)
    if role in ("time", "score"):
        is_valid = is_valid or is_number or (role == "time" and is_date)
    if not is_valid:
        expected = {"time": "text, a number or a date", "score": "text or a number"}.get(role, "text or an integer")
        loses_digits = role in ("user", "item") and pa.types.is_floating(kind)
        reason = ", because ids lose digits as floating-point numbers" if loses_digits else ""
        raise InvalidData(
            f"Expected {expected} in the column {field.name!r}. Received: {field.type}.",
            code="unsupported-column-type",
            hint=f"Cast the column to {expected} before you write the file{reason}.",
        )


def _damaged(error: Exception) -> InvalidData:
    return InvalidData(
        f"The Parquet file is damaged or uses an unsupported feature: {str(error).splitlines()[0][:200].rstrip('.')}.",
        code="damaged-parquet",
        hint="Write the file again, for example with pyarrow or pandas, without encryption.",
    )
