"""Decode text: UTF-8, UTF-16 with a byte order mark, or a declared charset. Nothing is guessed silently."""

from __future__ import annotations

import codecs
import io
from typing import BinaryIO, Final

import charset_normalizer

from recsys.errors import InvalidData

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, whose mark is its beginning
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_READ_BYTES: Final = 1024 * 1024
_UTF8: Final = "utf-8"


class Utf8Reader(io.RawIOBase):
    """A stream of UTF-8, whatever the charset of the file.

    UTF-8 passes through unchecked, because a wrong byte costs a line, not the file. Other charsets are decoded
    strictly.

    Parameters
    ----------
    stream
        The unpacked file.
    declared
        The charset that the caller declared; a byte order mark has precedence over it.
    """

    def __init__(self, stream: io.BufferedReader, declared: str | None) -> None:
        super().__init__()
        self._stream = stream
        start = stream.peek(4)[:4]
        bom, marked = next(((bom, name) for bom, name in _BOMS if start.startswith(bom)), (b"", None))
        stream.read(len(bom))
        self.charset = marked or declared or _UTF8
        self._decoder = None if self.charset == _UTF8 else codecs.getincrementaldecoder(self.charset)("strict")
        self._n_decoded = len(bom)
        self._at_end = False

    def readable(self) -> bool:
        """Return True; `io.RawIOBase` requires this method."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return about `size` bytes, or b"" at the end."""
        size = _READ_BYTES if size is None or size < 0 else size
        if self._decoder is None:
            return self._stream.read(size)
        text = b""
        while not text and not self._at_end:
            content = self._stream.read(size)
            self._at_end = not content
            text = self._decode(content)
        return text

    def _decode(self, content: bytes) -> bytes:
        assert self._decoder is not None
        try:
            text = self._decoder.decode(content, final=self._at_end).encode(_UTF8)
        except UnicodeError as error:
            offset = self._n_decoded + (error.start if isinstance(error, UnicodeDecodeError) else 0)
            raise InvalidData(
                f"Expected text in {self.charset}. Received bytes that are not, near byte {offset:,} of the file.",
                code="wrong-charset",
                hint="Declare the file's charset with the option charset, or save the file as UTF-8.",
            ) from error
        self._n_decoded += len(content)
        return text


def suggest_charset(sample: bytes) -> str:
    """Return a sentence that names the likely charset of text that is not UTF-8."""
    best = charset_normalizer.from_bytes(sample[:20_000]).best()
    likely = f" It looks like {best.encoding.replace('_', '-')}." if best is not None else ""
    return f"{likely} Declare it, for example charset=windows-1252, or save the file as UTF-8."


def check_text(sample: bytes, charset: str) -> None:
    """Raise `InvalidData` if the beginning of a file is binary or not UTF-8.

    Parameters
    ----------
    sample
        First bytes, in UTF-8 if the file is text.
    charset
        The charset that was declared or marked.
    """
    if b"\0" in sample:
        looks_utf16 = charset == _UTF8 and (sample[1:2] == b"\0" or sample[:1] == b"\0") and sample[:4].count(0) == 2
        order = "le" if sample[1:2] == b"\0" else "be"
        raise InvalidData(
            "The file is UTF-16 without a byte order mark." if looks_utf16 else "The file is binary, not a CSV.",
            code="not-utf8" if looks_utf16 else "not-a-csv",
            hint=f"Declare charset=utf-16-{order}." if looks_utf16 else "Send a CSV or a Parquet file.",
        )


def decode_line(line: bytes, number: int) -> str:
    """Decode a line of the header, or raise `InvalidData` with the likely charset."""
    try:
        return line.decode(_UTF8)
    except UnicodeDecodeError as error:
        raise InvalidData(
            f"Expected UTF-8 text. Received in line {number}, byte {error.start + 1}: 0x{line[error.start]:02x}.",
            code="not-utf8",
            hint=f"The file has another charset.{suggest_charset(line)}",
        ) from error
