"""A stream of CSV text in UTF-8. Its header can be read before a parser reads the rest."""

from __future__ import annotations

import io
import threading
from typing import Any, Final

import numpy as np
import pyarrow as pa

from recsys_train.data.charset import Utf8Reader

_READ_BYTES: Final = 256 * 1024
"""Largest number of bytes per read. This many bytes fit into the L2 cache while their line breaks are counted."""
_LINE_BREAK: Final = ord("\n")


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
        self._pushed_back = self._rest = b""  # `_rest` is the end of a decoded part that did not fit into a buffer
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

    def read_buffer(self, size: int) -> Any:
        """Return the next bytes as a pyarrow buffer.

        The buffer has `size` bytes. It is shorter or empty at the end of the stream, and can be shorter if bytes were
        pushed back.

        pyarrow calls this method instead of `read` if a stream has both. The buffer comes from pyarrow's memory pool,
        which reuses memory. A new `bytes` object per chunk would need new memory, which the kernel has to clear first.
        """
        with self._reading:
            if self._stopped:
                return pa.py_buffer(b"")
            return pa.py_buffer(self._read(size)) if self._pushed_back else self._read_buffer(size)

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
        content = self._text.read(min(size, _READ_BYTES))
        self.line_breaks += int(np.count_nonzero(np.frombuffer(content, np.uint8) == _LINE_BREAK))
        return content

    def _read_buffer(self, size: int) -> Any:
        buffer = pa.allocate_buffer(size)
        target = memoryview(buffer).cast("B")
        end = 0
        while end < size and (content := self._rest or self._read(size - end)):
            part, self._rest = content[: size - end], content[size - end :]
            target[end : end + len(part)] = part
            end += len(part)
        return buffer.slice(0, end)

    def push_back(self, content: bytes) -> None:
        """Put `content` back into the stream, so that it is read next."""
        self._pushed_back = content + self._pushed_back
