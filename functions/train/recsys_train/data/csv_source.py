"""Turn an upload into a stream of CSV text: decompress it, limit its size, and read its header."""

from __future__ import annotations

import csv
import gzip
import io
import threading
import zlib
from collections import Counter
from typing import BinaryIO, Final

from recsys.errors import InvalidData

REQUIRED_COLUMNS: Final = ("user_id", "item_id")
KNOWN_COLUMNS: Final = (*REQUIRED_COLUMNS, "interaction_score", "timestamp")

_GZIP_MAGIC: Final = b"\x1f\x8b"
_OTHER_ARCHIVES: Final = {b"PK\x03\x04": "a zip archive", b"BZh": "a bzip2 file", b"\xfd7zXZ": "an xz file"}
_MAX_HEADER_BYTES: Final = 64 * 1024
_READ_BYTES: Final = 1024 * 1024
_HINT: Final = "Send a CSV in UTF-8, plain or gzip, with the header user_id,item_id[,interaction_score,timestamp]."


class CsvSource(io.RawIOBase):
    """A readable stream of the decompressed CSV.

    Reading raises `InvalidData` if the gzip is damaged or if the CSV exceeds `max_unpacked_bytes`. `line_breaks` is the
    number of line breaks read so far.

    Parameters
    ----------
    stream
        The upload, plain or gzip. Other compression formats raise `InvalidData`.
    max_unpacked_bytes
        Limit of the decompressed size.
    """

    def __init__(self, stream: BinaryIO, *, max_unpacked_bytes: int) -> None:
        super().__init__()
        buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]  # readinto is all it needs
        start = buffered.peek(8)[:8]
        for magic, kind in _OTHER_ARCHIVES.items():
            if start.startswith(magic):
                raise InvalidData(f"The file is {kind}.", code="unsupported-compression", hint=_HINT)
        self._plain: BinaryIO = gzip.GzipFile(fileobj=buffered) if start.startswith(_GZIP_MAGIC) else buffered  # type: ignore[assignment]  # GzipFile reads like a BinaryIO
        self._remaining_bytes = max_unpacked_bytes
        self._max_bytes = max_unpacked_bytes
        self._pushed_back = b""
        self._reading = threading.Lock()
        self._stopped = False
        self.line_breaks = 0

    def readable(self) -> bool:
        """Return True; `io.RawIOBase` requires this method."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes, or b"" at the end."""
        with self._reading:
            return b"" if self._stopped else self._read(_READ_BYTES if size is None or size < 0 else size)

    def stop(self) -> None:
        """End the stream, and wait for a read that is in progress.

        A parser that reads ahead in a thread may still read after it has failed, when the file is about to be closed.
        """
        self._stopped = True
        with self._reading:
            return

    def _read(self, size: int) -> bytes:
        if self._pushed_back:
            content, self._pushed_back = self._pushed_back[:size], self._pushed_back[size:]
            return content
        try:
            content = self._plain.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InvalidData(
                f"The gzip file is damaged or incomplete: {error}.",
                code="damaged-gzip",
                hint="Check it with `gzip -t`, compress the CSV again and send it again.",
            ) from error
        self._remaining_bytes -= len(content)
        if self._remaining_bytes < 0:
            raise InvalidData(
                f"The decompressed CSV has more than {self._max_bytes:,} bytes, the limit of this service.",
                code="too-large-unpacked",
                hint="Send fewer rows: the most recent ones count most.",
            )
        self.line_breaks += content.count(b"\n")
        return content

    def push_back(self, content: bytes) -> None:
        """Return `content` to the stream, so that it is read next."""
        self._pushed_back = content + self._pushed_back


def read_header(source: CsvSource) -> list[str]:
    """Read the header line and leave `source` at the line after it.

    Returns
    -------
    list of str
        Names of the columns, lower-cased and stripped.

    Raises
    ------
    InvalidData
        The file is empty, the header is not text, a required column is missing, or a known column appears twice.
    """
    content = b""
    while b"\n" not in content and b"\r" not in content and len(content) < _MAX_HEADER_BYTES:
        chunk = source.read(_MAX_HEADER_BYTES)
        if not chunk:
            break
        content += chunk
    content = content.removeprefix(b"\xef\xbb\xbf")
    if not content.strip():
        raise InvalidData("The file is empty.", code="empty-file", hint=_HINT)
    line = content.splitlines(keepends=True)[0]
    names = [name.strip().casefold() for name in _split(line)]
    _check_names(names)
    source.push_back(content[len(line) :])
    return names


def _split(line: bytes) -> list[str]:
    if b"\0" in line:
        looks_utf16 = line[:2] in (b"\xff\xfe", b"\xfe\xff") or line[1:2] == b"\0"
        raise InvalidData(
            "The file is UTF-16, not UTF-8." if looks_utf16 else "The file is binary, not a CSV.",
            code="not-utf8" if looks_utf16 else "not-a-csv",
            hint=_HINT,
        )
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidData(
            "The header is not UTF-8 text; the file is binary or saved in another encoding.",
            code="not-utf8",
            hint=_HINT,
        ) from error
    return next(csv.reader([text]), [])


def _check_names(names: list[str]) -> None:
    received = ", ".join(repr(name[:40]) for name in names[:10])
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if missing:
        separator = next(
            (character for character in (";", "\t", "|") if len(names) == 1 and character in names[0]), None
        )
        separator_hint = f" The columns seem to be separated by {separator!r}: use commas." if separator else ""
        raise InvalidData(
            f"The header has no column {' and no column '.join(missing)}. Received: {received}.{separator_hint}",
            code="missing-column",
            hint=_HINT,
        )
    repeated = [name for name, count in Counter(names).items() if count > 1 and name in KNOWN_COLUMNS]
    if repeated:
        raise InvalidData(
            f"The header has the column {repeated[0]} more than once. Received: {received}.",
            code="duplicate-column",
            hint="Remove or rename all but one of them.",
        )
