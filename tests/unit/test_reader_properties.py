"""Tables of any ids, written by csv and by pandas in any dialect, read back equal; damaged bytes never crash."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import time
import zipfile
from collections.abc import Iterator

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from recsys.errors import InvalidData
from recsys.file_options import DELIMITERS, FileOptions
from recsys_train.data.reader import read_interactions
from tests.data_files.made_files import ITEMS, USERS, parquet, zipped

pytestmark = pytest.mark.slow

N_TABLES = int(os.environ.get("TEST_TABLES", "500"))
"""Generated tables: six in ten are written by `csv`, the others by pandas."""
PACKED_BYTES = 300
"""Bytes at the beginning of a packed file that are changed. The rest of a Parquet file is its schema."""
ZIP_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)

# An id may contain neither line breaks nor white space alone; NUL makes a file binary. The noncharacter U+FDD0, which
# Unicode reserves for internal use, begins the reader's mark of an id that is not UTF-8.
IDS = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="\u2028\u2029\x85\ufdd0"), min_size=1, max_size=20
).filter(lambda text: bool(text.strip()) and not text.startswith("\ufeff"))
TABLES = st.lists(st.tuples(IDS, IDS), min_size=2, max_size=30).filter(
    lambda rows: len({user for user, _ in rows}) > 1 and len({item for _, item in rows}) > 1
)
CHARSETS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-32"])


def read_pairs(content: bytes) -> set[tuple[str, str]]:
    interactions, report = read_interactions(io.BytesIO(content), max_unpacked_bytes=10**7, options=FileOptions())
    assert report.bad_lines == 0
    users, items = interactions.users, interactions.items
    return {(interactions.user_ids[u], interactions.item_ids[i]) for u, i in zip(users, items, strict=True)}


@given(
    rows=TABLES,
    delimiter=st.sampled_from(list(DELIMITERS.values())),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    line_end=st.sampled_from(["\n", "\r\n"]),
    charset=CHARSETS,
)
@settings(max_examples=6 * N_TABLES // 10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_the_csv_module_writes_is_read_back(
    rows: list[tuple[str, str]], delimiter: str, quoting: int, line_end: str, charset: str
) -> None:
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=line_end)  # type: ignore[arg-type]
    writer.writerows([("user_id", "item_id"), *rows])
    assert read_pairs(out.getvalue().encode(charset)) == set(rows)


@given(rows=TABLES, delimiter=st.sampled_from(list(DELIMITERS.values())), charset=CHARSETS)
@settings(max_examples=3 * N_TABLES // 10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_pandas_writes_is_read_as_pandas_reads_it(
    rows: list[tuple[str, str]], delimiter: str, charset: str
) -> None:
    frame = pd.DataFrame(rows, columns=["user_id", "item_id"])
    content = frame.to_csv(index=False, sep=delimiter, lineterminator="\n").encode(charset)
    expected = pd.read_csv(io.BytesIO(content), sep=delimiter, encoding=charset, dtype=str, keep_default_na=False)
    assert read_pairs(content) == set(expected.itertuples(index=False, name=None))


@given(rows=TABLES, compression=st.sampled_from(["none", "snappy", "zstd"]))
@settings(max_examples=N_TABLES // 10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_pandas_writes_as_parquet_is_read_back(rows: list[tuple[str, str]], compression: str) -> None:
    out = io.BytesIO()
    pd.DataFrame(rows, columns=["user_id", "item_id"]).to_parquet(out, compression=compression)  # type: ignore[arg-type]
    assert read_pairs(out.getvalue()) == set(rows)


@given(
    start=st.sampled_from(
        [
            b"",
            b"user_id,item_id,timestamp\n",
            b"user_id;item_id\n",
            b"\xff\xfe",
            b"\x1f\x8b",
            b"PAR1",
            b"PK\x03\x04",
            b"\x28\xb5\x2f\xfd",
        ]
    ),
    rest=st.binary(max_size=2_000),
)
@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_read_or_rejected_within_two_seconds(start: bytes, rest: bytes) -> None:
    started = time.process_time()
    with contextlib.suppress(InvalidData):
        read_interactions(io.BytesIO(start + rest), max_unpacked_bytes=10**7)
    assert time.process_time() - started < 2.0


def flipped(content: bytes) -> Iterator[bytes]:
    """Yield the bytes with one byte changed, in several ways, at every position."""
    for position, byte in enumerate(content):
        for changed in (byte ^ 1, byte ^ 0x80, 3, 204):
            yield content[:position] + bytes([changed]) + content[position + 1 :]


@pytest.mark.parametrize(
    "content",
    [
        parquet({"user_id": USERS, "item_id": ITEMS}),
        *(zipped({"orders.csv": b"user_id,item_id\na,b\nc,d\n"}, method=method) for method in ZIP_METHODS),
    ],
    ids=["parquet", "stored", "deflate", "bzip2", "lzma"],
)
def test_no_changed_byte_of_a_packed_file_raises_another_error(content: bytes) -> None:
    """In dictionaries of Parquet, bodies of bzip2 and lzma, and the offsets and names of a zip archive, it did."""
    for changed in flipped(content[:PACKED_BYTES]):
        with contextlib.suppress(InvalidData):
            read_interactions(io.BytesIO(changed + content[PACKED_BYTES:]), max_unpacked_bytes=10**7)


@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_pandas_times_keep_their_order(unit: str) -> None:
    frame = pd.DataFrame({"user_id": ["a", "b", "a"], "item_id": ["x", "x", "y"]})
    frame["timestamp"] = pd.to_datetime(["2026-03-03", "2026-03-02", "2026-03-01"]).as_unit(unit)  # type: ignore[arg-type]
    for content in (frame.to_csv(index=False).encode(), frame.to_parquet(index=False)):
        interactions, report = read_interactions(io.BytesIO(content), max_unpacked_bytes=10**7)
        assert [interactions.item_ids[item] for item in interactions.items] == ["y", "x", "x"]
        assert (report.to_json()["first_time"] or "").startswith("2026-03-01")
