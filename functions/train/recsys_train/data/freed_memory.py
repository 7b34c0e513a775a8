"""Reuse freed memory while a file is read, because the first access to new memory is slow."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
"""Numbers of the parameters in glibc's `malloc.h`; see mallopt(3)."""
_MAX_MMAP_THRESHOLD: Final = 32 * 1024**2
"""Largest value that glibc accepts."""
_KEPT_BYTES: Final = 1024**3
"""Freed memory that stays in the process during reading, at most."""
_USUAL_TRIM_THRESHOLD: Final = 2 * _MAX_MMAP_THRESHOLD
"""glibc's own value after it has freed a block of 32 MiB, which every training does."""


@contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Keep freed memory in the process within the context. Afterwards, glibc may return it again.

    By default, glibc returns freed memory to the operating system until it has seen large blocks. The kernel clears
    every page that it hands out, which took a quarter of the time of reading a million rows. Other C libraries are left
    as they are.
    """
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    try:
        yield
    finally:
        mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
