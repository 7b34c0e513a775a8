"""Reuse freed memory while a file is read, because the first access to new memory is slow."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_MMAP_MAX: Final = -4
"""Numbers of the parameters in glibc's `malloc.h`; see mallopt(3)."""
_MAX_MMAP_THRESHOLD: Final = 32 * 1024**2
"""Largest value of `_M_MMAP_THRESHOLD` that glibc accepts, in bytes."""
_KEPT_BYTES: Final = 1024**3
"""Largest amount of freed memory that the process keeps during reading."""
_USUAL_TRIM_THRESHOLD: Final = 2 * _MAX_MMAP_THRESHOLD
"""Value that glibc itself sets when a block of 32 MiB is freed, which happens in every training."""
_USUAL_MMAP_MAX: Final = 65_536
"""Value that glibc itself sets."""


@contextmanager
def reuse_freed_memory() -> Iterator[None]:
    """Keep freed memory in the process within the context. Afterwards, glibc may return it again.

    By default, glibc returns freed memory to the operating system until a large block was freed, and always returns
    blocks of more than 32 MiB. The kernel clears every page that it hands out, which took a quarter of the time of
    reading a million rows. With other C libraries, the context has no effect.
    """
    mallopt: Any = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        yield
        return
    mallopt(_M_MMAP_THRESHOLD, _MAX_MMAP_THRESHOLD)
    mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
    mallopt(_M_MMAP_MAX, 0)
    try:
        yield
    finally:
        mallopt(_M_MMAP_MAX, _USUAL_MMAP_MAX)
        mallopt(_M_TRIM_THRESHOLD, _USUAL_TRIM_THRESHOLD)
