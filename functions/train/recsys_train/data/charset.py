"""Decode text in UTF-8, in UTF-16 with a byte order mark, or in a declared charset. The charset is never guessed."""

from __future__ import annotations

import codecs
import io
from typing import Final

import charset_normalizer

from recsys.errors import InvalidData

_BOMS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),  # before UTF-16, because this mark begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
NOT_UTF8: Final = "\ufdd0\ufdef"
"""Two noncharacters that replace bytes that are not UTF-8. Unicode excludes noncharacters from the interchange of
text.
"""
_MARKING: Final = "recsys.mark"
_READ_BYTES: Final = 1024 * 1024
_SAMPLE_BYTES: Final = 20_000
_MAX_NUL_SHARE: Final = 0.01
_UTF8: Final = "utf-8"


class Utf8Reader(io.RawIOBase):
    """A stream that converts a file in any charset to valid UTF-8.

    In a UTF-8 file, invalid bytes are replaced with `NOT_UTF8`, so that only the lines with these bytes are rejected
    later. In any other charset, invalid bytes raise `InvalidData`.

    Parameters
    ----------
    stream
        The unpacked file.
    declared
        The charset that the caller declared, or None. A byte order mark takes precedence over a declared charset.

    Attributes
    ----------
    charset
        The charset of the file.
    invalid_sample
        Up to 20,000 bytes around the first invalid bytes of a UTF-8 file, for a hint about the real charset. Empty if
        no invalid bytes were read.
    """

    def __init__(self, stream: io.BufferedReader, declared: str | None) -> None:
        super().__init__()
        self._stream = stream
        start = stream.peek(4)[:4]
        bom, marked = next(((bom, name) for bom, name in _BOMS if start.startswith(bom)), (b"", None))
        stream.read(len(bom))
        self.charset = marked or declared or _UTF8
        self.invalid_sample = b""
        self._decoder = codecs.getincrementaldecoder(self.charset)("strict")
        self._n_decoded = len(bom)
        self._at_end = False

    def readable(self) -> bool:
        """Return True. `io.RawIOBase` requires this method."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return about `size` bytes of UTF-8, or `b""` at the end of the stream."""
        size = _READ_BYTES if size is None or size < 0 else size
        text = b""
        while not text and not self._at_end:
            content = self._stream.read(size)
            self._at_end = not content
            text = self._decode(content)
        return text

    def _decode(self, content: bytes) -> bytes:
        if self.charset == _UTF8 and content.isascii() and not self._decoder.getstate()[0]:
            return content
        try:
            text = self._decoder.decode(content, self._at_end)
        except UnicodeError as error:
            if self.charset != _UTF8 or not isinstance(error, UnicodeDecodeError):
                raise self._wrong_charset(error) from error
            self.invalid_sample = error.object[:_SAMPLE_BYTES]
            self._decoder = codecs.getincrementaldecoder(_UTF8)(_MARKING)
            text = self._decoder.decode(error.object, self._at_end)
        self._n_decoded += len(content)
        try:
            return text.encode(_UTF8)
        except UnicodeEncodeError as error:  # a lone surrogate, which some codecs decode
            raise self._wrong_charset(error) from error

    def _wrong_charset(self, error: UnicodeError) -> InvalidData:
        offset = self._n_decoded + (error.start if isinstance(error, UnicodeDecodeError) else 0)
        return InvalidData(
            f"Expected text in {self.charset}. Received bytes that are invalid in this charset, "
            f"near byte {offset:,} of the file.",
            code="wrong-charset",
            hint="Declare the file's charset with the option charset, or save the file as UTF-8.",
        )


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return NOT_UTF8, error.end


codecs.register_error(_MARKING, _mark)


def suggest_charset(sample: bytes) -> str:
    """Return a hint that names the likely charset of a text that is not UTF-8."""
    best = charset_normalizer.from_bytes(sample).best()
    if best is None:
        return "Declare its charset, for example charset=windows-1252, or save the file as UTF-8."
    likely = best.encoding.replace("_", "-")
    return f"It may be {likely}. If it is, declare charset={likely}. Otherwise save the file as UTF-8."


def check_text(sample: bytes, charset: str) -> None:
    """Raise `InvalidData` if the beginning of a file is binary, or is UTF-16 without a byte order mark.

    Parameters
    ----------
    sample
        First bytes of the decoded file.
    charset
        The charset that the caller declared or that the byte order mark indicates.
    """
    # A single NUL damages its line only.
    if b"\0" in b"".join(sample.splitlines()[:1]) or sample.count(0) > _MAX_NUL_SHARE * len(sample):
        looks_utf16 = charset == _UTF8 and (sample[1:2] == b"\0" or sample[:1] == b"\0") and sample[:4].count(0) == 2
        order = "le" if sample[1:2] == b"\0" else "be"
        raise InvalidData(
            "The file is UTF-16 without a byte order mark." if looks_utf16 else "The file is binary, not a CSV.",
            code="not-utf8" if looks_utf16 else "not-a-csv",
            hint=f"Declare charset=utf-16-{order}." if looks_utf16 else "Send a CSV or a Parquet file.",
        )


def decode_line(line: bytes, number: int, invalid_sample: bytes) -> str:
    """Decode a line of the header.

    Parameters
    ----------
    line
        The line, as `Utf8Reader` returned it.
    number
        Line number for the error message.
    invalid_sample
        Bytes of the file from which the likely charset is derived, as in `Utf8Reader.invalid_sample`.

    Raises
    ------
    InvalidData
        The line contained bytes that are not UTF-8. The hint names the likely charset of the file.
    """
    text = line.decode(_UTF8)
    if NOT_UTF8 in text:
        raise InvalidData(
            f"Expected UTF-8 text. Line {number} contains bytes that are not valid UTF-8, after "
            f"{text.partition(NOT_UTF8)[0][-40:]!r}.",
            code="not-utf8",
            hint=f"The file is not in UTF-8. {suggest_charset(invalid_sample)}",
        )
    return text
