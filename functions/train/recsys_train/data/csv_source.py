"""The bytes of an upload as the bytes of a CSV: unpacked, bounded, with its header read."""

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
_HINT: Final = "Send a CSV in UTF-8, plain or gzip, whose first line is user_id,item_id[,interaction_score,timestamp]."


class CsvSource(io.RawIOBase):
    """A readable stream of the CSV's bytes, plain whatever the upload was.

    Reading raises `InvalidData` when the gzip is damaged or more than `max_unpacked_bytes` come out of it.
    `line_breaks` counts what was read so far.
    """

    def __init__(self, stream: BinaryIO, *, max_unpacked_bytes: int) -> None:
        super().__init__()
        buffered = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]  # any readable has readinto here
        start = buffered.peek(8)[:8]
        for magic, kind in _OTHER_ARCHIVES.items():
            if start.startswith(magic):
                raise InvalidData(f"The file is {kind}.", code="unsupported-compression", hint=_HINT)
        self._plain: BinaryIO = gzip.GzipFile(fileobj=buffered) if start.startswith(_GZIP_MAGIC) else buffered  # type: ignore[assignment]  # GzipFile reads like a BinaryIO
        self._left_bytes = max_unpacked_bytes
        self._max_bytes = max_unpacked_bytes
        self._pushed_back = b""
        self._reading = threading.Lock()
        self._stopped = False
        self.line_breaks = 0

    def readable(self) -> bool:
        """True, as `io.RawIOBase` wants it."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        with self._reading:
            return b"" if self._stopped else self._read(1024 * 1024 if size is None or size < 0 else size)

    def stop(self) -> None:
        """Let no read go on after this, and wait for one under way.

        A parser that reads ahead in a thread may do so when it has given up, and whoever opened the file closes it.
        """
        self._stopped = True
        with self._reading:
            return

    def _read(self, wanted: int) -> bytes:
        if self._pushed_back:
            content, self._pushed_back = self._pushed_back[:wanted], self._pushed_back[wanted:]
            return content
        try:
            content = self._plain.read(wanted)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InvalidData(
                f"The gzip file is damaged or cut off: {error}.",
                code="damaged-gzip",
                hint="Check it with `gzip -t`, make it again and send it again.",
            ) from error
        self._left_bytes -= len(content)
        if self._left_bytes < 0:
            raise InvalidData(
                f"The CSV unpacks to more than {self._max_bytes:,} bytes, the most this service reads.",
                code="too-large-unpacked",
                hint="Send fewer rows: the most recent ones count most.",
            )
        self.line_breaks += content.count(b"\n")
        return content

    def push_back(self, content: bytes) -> None:
        """Have `content` read again, before what follows."""
        self._pushed_back = content + self._pushed_back


def read_header(source: CsvSource) -> list[str]:
    """Read the header line off the front of `source`: the columns' names, lower-cased and stripped.

    Raises
    ------
    InvalidData
        There is none, it is no text, a required column is missing or a known one stands there twice.
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
            "The first line is not UTF-8 text; the file is binary or saved in another encoding.",
            code="not-utf8",
            hint=_HINT,
        ) from error
    return next(csv.reader([text]), [])


def _check_names(names: list[str]) -> None:
    shown = ", ".join(repr(name[:40]) for name in names[:10])
    missing = [name for name in REQUIRED_COLUMNS if name not in names]
    if missing:
        separator = next((mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]), None)
        mend = f" The columns seem to be separated by {separator!r}: use commas." if separator else ""
        raise InvalidData(
            f"The first line names no column {' and no column '.join(missing)}. Received: {shown}.{mend}",
            code="missing-column",
            hint=_HINT,
        )
    twice = [name for name, count in Counter(names).items() if count > 1 and name in KNOWN_COLUMNS]
    if twice:
        raise InvalidData(
            f"The first line names the column {twice[0]} more than once. Received: {shown}.",
            code="duplicate-column",
            hint="Remove or rename all but one of them.",
        )
