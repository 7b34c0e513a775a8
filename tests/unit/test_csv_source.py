"""The source of a CSV parser returns full buffers, whatever the charset, and counts line breaks."""

from __future__ import annotations

import io

import pytest

from recsys_train.data.charset import Utf8Reader
from recsys_train.data.csv_source import CsvSource

TEXT = "".join(f"user {n},tea,é\n" for n in range(40_000))


def source_of(content: bytes, charset: str | None = None) -> CsvSource:
    return CsvSource(Utf8Reader(io.BufferedReader(io.BytesIO(content)), charset))  # type: ignore[arg-type]  # reads


@pytest.mark.parametrize("charset", ["utf-8", "latin-1", "utf-16-le"])
@pytest.mark.parametrize("size", [1000, 300_001])
def test_buffers_are_full_and_together_are_the_text(charset: str, size: int) -> None:
    source = source_of(TEXT.encode(charset), charset)
    start = source.read(100)
    source.push_back(start)

    buffers = [source.read_buffer(size)]
    assert buffers[0].to_pybytes() == start
    buffers.append(source.read_buffer(size))
    while buffers[-1].size:
        buffers.append(source.read_buffer(size))

    assert b"".join(buffer.to_pybytes() for buffer in buffers) == TEXT.encode()
    assert {buffer.size for buffer in buffers[1:-2]} == {size}
    assert source.line_breaks == 40_000


def test_a_stopped_source_is_empty() -> None:
    source = source_of(TEXT.encode())
    source.stop()
    assert (source.read_buffer(10).size, source.read(10)) == (0, b"")
