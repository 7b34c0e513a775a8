"""A stream of CSV text in UTF-8. Its header can be read before a parser reads the rest."""

from __future__ import annotations

import io
import threading
from typing import Final

from recsys_train.data.charset import Utf8Reader

_READ_BYTES: Final = 1024 * 1024


class CsvSource(io.RawIOBase):
    """A readable stream of CSV text. `line_breaks` is the number of line breaks read so far.

    Parameters
    ----------
    text
        The decoded file.
    """

    def __init__(self, text: Utf8Reader) -> None:
        super().__init__()
        self._text = text
        self._pushed_back = b""
        self._reading = threading.Lock()
        self._stopped = False
        self.line_breaks = 0

    def readable(self) -> bool:
        """Return True. `io.RawIOBase` requires this method."""
        return True

    def read(self, size: int = -1, /) -> bytes:
        """Return about `size` bytes, or `b""` at the end of the stream."""
        with self._reading:
            return b"" if self._stopped else self._read(_READ_BYTES if size is None or size < 0 else size)

    def stop(self) -> None:
        """End the stream, and wait for a read that is in progress.

        Call this method before closing the file, because a parser that reads ahead in a thread can still read after an
        error.
        """
        self._stopped = True
        with self._reading:
            return

    def _read(self, size: int) -> bytes:
        if self._pushed_back:
            content, self._pushed_back = self._pushed_back[:size], self._pushed_back[size:]
            return content
        content = self._text.read(size)
        self.line_breaks += content.count(b"\n")
        return content

    def push_back(self, content: bytes) -> None:
        """Put `content` back into the stream, so that it is read next."""
        self._pushed_back = content + self._pushed_back
