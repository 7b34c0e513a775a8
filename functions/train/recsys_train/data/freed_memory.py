"""Reuse freed memory while a file is read, because the first access to new memory is slow."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import numpy as np

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
"""Numbers of the parameters in glibc's `malloc.h`; see mallopt(3)."""
_MAX_MMAP_THRESHOLD: Final = 32 * 1024**2
"""Largest value of `_M_MMAP_THRESHOLD` that glibc accepts, in bytes."""
_KEPT_BYTES: Final = 1024**3
"""Largest amount of freed memory that the process keeps during reading."""
_HUGE_PAGES_BYTES: Final = 256 * 1024**2
"""Size of the memory for which huge pages are requested. It suffices for 2 million rows."""
_USUAL_TRIM_THRESHOLD: Final = 2 * _MAX_MMAP_THRESHOLD
"""Value that glibc itself sets when a block of 32 MiB is freed, which happens in every training."""
_USUAL_MMAP_MAX: Final = 65_536
"""Value that glibc itself sets."""


@contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Keep freed memory in the process within the context. At its end, return the memory to the operating system.

    By default, glibc returns freed memory to the operating system until a large block was freed, and always returns
    blocks of more than 32 MiB. The kernel clears every page that it hands out, which took a quarter of the time of
    reading a million rows. With other C libraries, the context has no effect.
    """
    libc: Any = ctypes.CDLL(None)
    if not hasattr(libc, "mallopt"):
        yield
        return
    libc.mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
    libc.mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    libc.mallopt(_M_MMAP_MAX, 0)
    _request_huge_pages()
    try:
        yield
    finally:
        libc.mallopt(_M_MMAP_MAX, _USUAL_MMAP_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
        libc.malloc_trim(0)


def _request_huge_pages() -> None:
    """Request pages of 2 MiB instead of 4 KiB for the next arrays, because each new page costs a page fault.

    NumPy requests huge pages for arrays of 4 MiB and more. An array that is freed at once leaves the request to the
    smaller arrays that get its memory. Its memory is never accessed, so that the process does not grow.
    """
    np.empty(_HUGE_PAGES_BYTES, np.uint8)
