"""Unpack an uploaded file, which is plain, gzip, zstd, or a zip archive with one file.

The unpacked size, the compression ratio and the time for reading are limited.
"""

from __future__ import annotations

import gzip
import io
import lzma
import shutil
import tempfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, Final, cast

import pyarrow as pa

from recsys.errors import InvalidData

MAX_RATIO: Final = 100
"""Largest compression ratio of a file with more than `RATIO_APPLIES_BYTES` unpacked bytes. Exports have ratios of 3 to
40, and decompression bombs about 1,000.
"""
RATIO_APPLIES_BYTES: Final = 64 * 1024 * 1024
_READ_BYTES: Final = 1024 * 1024
"""Largest number of bytes per read. For more bytes, each read would get new memory, which the kernel has to clear."""
_IN_MEMORY_BYTES: Final = 64 * 1024 * 1024
_GZIP: Final = b"\x1f\x8b"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_ZIP: Final = (b"PK\x03\x04", b"PK\x05\x06")
_PARQUET: Final = b"PAR1"
_UNSUPPORTED: Final = {
    b"BZh": "a bzip2 file",
    b"\xfd7zXZ": "an xz file",
    b"7z\xbc\xaf": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x04\x22\x4d\x18": "an lz4 file",
    b"\xd0\xcf\x11\xe0": "an Excel workbook (.xls)",
    b"%PDF": "a PDF document",
    b"SQLite f": "a SQLite database",
}
_HINT: Final = "Send a CSV or Parquet file, or a CSV in gzip, zstd or zip."


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on the unpacked size of a file and on the time for reading it.

    Parameters
    ----------
    max_unpacked_bytes
        Limit of the unpacked size, in bytes.
    timeout_s
        Limit of the time for reading, in seconds.
    """

    max_unpacked_bytes: int
    timeout_s: float = 600.0


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The content of an upload.

    Parameters
    ----------
    compression
        `none`, `gzip`, `zstd` or `zip`.
    is_parquet
        Whether the content is a Parquet file. If so, `stream` is seekable.
    stream
        The unpacked content. Reading raises `InvalidData` if the content is damaged or exceeds a limit.
    """

    compression: str
    is_parquet: bool
    stream: BinaryIO


@contextmanager
def unpack(stream: BinaryIO, limits: Limits) -> Iterator[Unpacked]:
    """Detect the compression of a file, and yield the unpacked content. The content can be read within the context.

    Raises
    ------
    InvalidData
        The format is not supported, or the archive does not contain exactly one file.
    """
    is_rereadable = stream.seekable() and stream.tell() == 0
    packed = _CountingReader(stream)
    buffered = io.BufferedReader(packed, _READ_BYTES)
    with ExitStack() as resources:
        opened, compression = _open(cast("io.BufferedReader", buffered), resources)
        bounded = BoundedReader(opened, compression, limits, lambda: packed.n_bytes)
        content = io.BufferedReader(bounded, _READ_BYTES)
        start = content.peek(8)[:8]
        _check_supported(start)
        is_parquet = start.startswith(_PARQUET)
        unpacked = cast("BinaryIO", content)
        if is_parquet:
            is_on_disk = compression == "none" and is_rereadable
            unpacked = _reread(stream, bounded) if is_on_disk else _seekable(unpacked, resources)
        yield Unpacked(compression, is_parquet=is_parquet, stream=unpacked)


def _open(stream: io.BufferedReader, resources: ExitStack) -> tuple[BinaryIO, str]:
    start = stream.peek(8)[:8]
    if start.startswith(_GZIP):
        return cast("BinaryIO", gzip.GzipFile(fileobj=stream)), "gzip"
    if start.startswith(_ZSTD):
        return cast("BinaryIO", pa.CompressedInputStream(pa.PythonFile(stream, "r"), "zstd")), "zstd"
    if start.startswith(_ZIP):
        return _open_zip(stream, resources), "zip"
    return cast("BinaryIO", stream), "none"


class BoundedReader(io.RawIOBase):
    """A stream of the unpacked bytes that raises `InvalidData` if the bytes are damaged or exceed a limit.

    Parameters
    ----------
    stream
        The unpacked content.
    compression
        Compression of the stream. With `none`, the compression ratio is not limited.
    limits
        The limits. The time starts when the reader is created.
    n_packed
        Function that returns the number of compressed bytes read so far.
    """

    def __init__(self, stream: BinaryIO, compression: str, limits: Limits, n_packed: Callable[[], int]) -> None:
        super().__init__()
        self._stream, self._compression, self._limits, self._n_packed = stream, compression, limits, n_packed
        self._deadline = time.monotonic() + limits.timeout_s
        self._n_unpacked = 0

    def readable(self) -> bool:
        """Return True. `io.RawIOBase` requires this method."""
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # the buffer that BufferedReader passes
        """Read at most `len(buffer)` unpacked bytes into the buffer, and return their number."""
        try:
            content = self._stream.read(min(len(buffer), _READ_BYTES))
        except (EOFError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error
        except OSError as error:  # without errno, from pyarrow for damaged zstd or from bz2 in a zip archive
            if self._compression not in ("zstd", "zip") or error.errno is not None:
                raise
            raise self._damaged(error) from error
        self._n_unpacked += len(content)
        self.check_size(self._n_unpacked)
        self._check_ratio()
        self.check_time(self._n_unpacked)
        buffer[: len(content)] = content
        return len(content)

    def check_size(self, n_bytes: int) -> None:
        """Raise `InvalidData` if `n_bytes` unpacked bytes are more than the limit."""
        if n_bytes > self._limits.max_unpacked_bytes:
            raise InvalidData(
                f"The decompressed file has more than {self._limits.max_unpacked_bytes:,} bytes, the limit of this "
                "service.",
                code="too-large-unpacked",
                hint="Send fewer rows, and keep the most recent ones because they have the most influence.",
            )

    def _check_ratio(self) -> None:
        is_bomb = self._compression != "none" and self._n_unpacked > MAX_RATIO * max(1, self._n_packed())
        if is_bomb and self._n_unpacked > RATIO_APPLIES_BYTES:
            raise InvalidData(
                f"The {self._compression} file unpacks to more than {MAX_RATIO} times its size. "
                f"{self._n_packed():,} bytes yield {self._n_unpacked:,} bytes.",
                code="suspicious-compression",
                hint="Remove repeated rows, or send the file uncompressed.",
            )

    def check_time(self, n_bytes: int) -> None:
        """Raise `InvalidData` if reading `n_bytes` unpacked bytes has taken too long."""
        if time.monotonic() > self._deadline:
            raise InvalidData(
                f"Reading exceeded the limit of {self._limits.timeout_s:,.0f} s after {n_bytes:,} unpacked bytes.",
                code="reading-timeout",
                hint="Send fewer rows, or send Parquet, which is read faster.",
            )

    def _damaged(self, error: Exception) -> InvalidData:
        return InvalidData(
            f"The {self._compression} file is damaged or incomplete after {self._n_unpacked:,} unpacked bytes: "
            f"{str(error).rstrip('.')}.",
            code=f"damaged-{self._compression}",
            hint=f"Test the file with `{_TEST_COMMANDS[self._compression]}`. Then compress the CSV again, and send the "
            "new file.",
        )


_TEST_COMMANDS: Final = {"gzip": "gzip -t", "zstd": "zstd -t", "zip": "unzip -t", "none": "head"}


class _CountingReader(io.RawIOBase):
    """A stream that counts the bytes read from the upload, so that the compression ratio can be limited."""

    def __init__(self, stream: BinaryIO) -> None:
        super().__init__()
        self._stream = stream
        self.n_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]  # the buffer that BufferedReader passes
        content = self._stream.read(min(len(buffer), _READ_BYTES))
        self.n_bytes += len(content)
        buffer[: len(content)] = content
        return len(content)


class _BoundedFile(io.RawIOBase):
    """A seekable file that is read within the time limit of a `BoundedReader`."""

    def __init__(self, stream: BinaryIO, bounds: BoundedReader) -> None:
        super().__init__()
        self._stream, self._bounds = stream, bounds
        self._n_read = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        return self._stream.tell()

    def read(self, size: int = -1, /) -> bytes:
        content = self._stream.read(size)
        self._n_read += len(content)
        self._bounds.check_time(self._n_read)
        return content


def _reread(stream: BinaryIO, bounds: BoundedReader) -> BinaryIO:
    """Return a file on disk as a stream from its start, so that the file need not be copied."""
    bounds.check_size(stream.seek(0, io.SEEK_END))
    stream.seek(0)
    return cast("BinaryIO", _BoundedFile(stream, bounds))


def _check_supported(start: bytes) -> None:
    for magic, kind in _UNSUPPORTED.items():
        if start.startswith(magic):
            raise InvalidData(f"The file is {kind}.", code="unsupported-compression", hint=_HINT)


def _seekable(stream: BinaryIO, resources: ExitStack) -> BinaryIO:
    """Copy the rest of a stream to a temporary file, and return the file.

    The copy is needed because zip and Parquet files have their directory at the end.
    """
    copy = resources.enter_context(tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES))  # noqa: SIM115  # entered here
    shutil.copyfileobj(stream, copy, _READ_BYTES)
    copy.seek(0)
    return cast("BinaryIO", copy)


def _open_zip(stream: io.BufferedReader, resources: ExitStack) -> BinaryIO:
    try:
        archive = zipfile.ZipFile(_seekable(cast("BinaryIO", stream), resources))
        names = [info for info in archive.infolist() if not info.is_dir() and not _is_metadata(info.filename)]
    except (
        zipfile.BadZipFile,
        EOFError,
        ValueError,
        IndexError,
        NotImplementedError,
    ) as error:  # damaged bytes raise any of these
        raise _damaged_zip(error) from error
    received = ", ".join(repr(info.filename[:60]) for info in names[:5]) or "none"
    if any(info.filename == "[Content_Types].xml" for info in names):
        raise InvalidData(
            "The file is an Excel workbook (.xlsx).",
            code="unsupported-compression",
            hint="Save the sheet as CSV UTF-8.",
        )
    if len(names) != 1:
        raise InvalidData(
            f"Expected a zip archive with exactly one file. Received {len(names)}: {received}.",
            code="unsupported-archive",
            hint="Put exactly one CSV into the archive, or send the CSV without an archive.",
        )
    try:
        return cast("BinaryIO", archive.open(names[0]))
    except ValueError as error:  # the archive refers to a position before its start
        raise _damaged_zip(error) from error
    except (RuntimeError, NotImplementedError, zipfile.BadZipFile) as error:  # encrypted, or an unknown method
        raise InvalidData(
            f"The file {received} in the zip archive cannot be unpacked: {str(error).rstrip('.')}.",
            code="unsupported-archive",
            hint="Create the archive without a password, with the method deflate.",
        ) from error


def _damaged_zip(error: Exception) -> InvalidData:
    return InvalidData(
        f"The zip file is damaged or incomplete: {str(error).rstrip('.')}.",
        code="damaged-zip",
        hint="Test the file with `unzip -t`. Then compress the CSV again, and send the new file.",
    )


def _is_metadata(name: str) -> bool:
    """Return whether a file in an archive is one of the metadata files that macOS adds to archives."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2] == ".DS_Store"
