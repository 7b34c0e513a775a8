"""Builders of the files in the tables of bad and of odd but valid files."""

from __future__ import annotations

import gzip
import io
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq

PAIRS = [("007", "NA"), ("9007199254740993", "null"), ("007", "1e5"), ("été", "NA")]
"""Users and items whose ids a careless reader changes."""


def table(header: str = "user_id,item_id", rows: list[str] | None = None, *, end: str = "\n") -> str:
    """Return a CSV with the header and the rows, by default those of `PAIRS`."""
    delimiter = next((mark for mark in "\t;|," if mark in header), ",")
    lines = [delimiter.join(pair) for pair in PAIRS] if rows is None else rows
    return end.join([header, *lines, ""])


def with_time(*times: str, header: str = "user_id,item_id,timestamp", delimiter: str = ",") -> bytes:
    """Return a CSV in which the pairs of `PAIRS` have these times, in this order."""
    rows = [delimiter.join((*pair, time)) for pair, time in zip(PAIRS, times, strict=True)]
    return "\n".join([header.replace(",", delimiter), *rows, ""]).encode()


def with_score(*scores: str, delimiter: str = ";") -> bytes:
    """Return a CSV in which the pairs of `PAIRS` have these scores."""
    rows = [delimiter.join((*pair, score)) for pair, score in zip(PAIRS, scores, strict=True)]
    return "\n".join([delimiter.join(("user_id", "item_id", "interaction_score")), *rows, ""]).encode()


def zipped(files: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return a zip archive."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def zstd(content: bytes) -> bytes:
    """Compress with zstd."""
    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


def gz(content: bytes) -> bytes:
    """Compress with gzip, without a time, so that the test's data never change."""
    return gzip.compress(content, mtime=0)


def parquet(columns: dict[str, pa.Array | list[str]], *, compression: str = "snappy") -> bytes:
    """Return a Parquet file."""
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression=compression)
    return out.getvalue()


USERS = [user for user, _item in PAIRS]
ITEMS = [item for _user, item in PAIRS]
