"""The adapters of one machine: everything lies in one data directory."""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import IO

from recsys.errors import RecsysError
from recsys.objects import layout
from recsys.objects.files import FileObjectStore
from recsys.registry.sqlite import SqliteRegistry


class DataDirInUse(RecsysError):
    """Another service works on this data directory."""

    code = "data-dir-in-use"
    title = "The data directory is in use"
    default_hint = "Stop the other service, or give this one another --data-dir."


class DataDirUnusable(RecsysError):
    """The data directory cannot be made or written."""

    code = "data-dir-unusable"
    title = "The data directory cannot be used"
    default_hint = "Give a --data-dir that is a directory of yours, on a disk that can be written."


def open_store(data_dir: Path, *, base_url: str = "") -> FileObjectStore:
    """The object store; `base_url` is where upload forms point to."""
    return FileObjectStore(data_dir, base_url=base_url)


def open_own_store(data_dir: Path, *, base_url: str) -> FileObjectStore:
    """The object store, for who holds the lock: what writers that were killed left goes, and the inbox is there."""
    store = FileObjectStore(data_dir, base_url=base_url, stale_after_s=0.0)
    for version_folder in (data_dir / layout.MODELS).glob("*/*"):
        with contextlib.suppress(OSError):  # it holds something, as it should
            version_folder.rmdir()
    (data_dir / layout.INBOX).mkdir(exist_ok=True)
    return store


def open_registry(data_dir: Path) -> SqliteRegistry:
    """The registry."""
    return SqliteRegistry(data_dir / "registry.sqlite3")


def lock_data_dir(data_dir: Path) -> IO[str]:
    """Make sure that one service at a time works on `data_dir`; the lock lasts until the file is closed.

    Raises
    ------
    DataDirInUse, DataDirUnusable
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        lock = (data_dir / "service.lock").open("a+")
    except OSError as error:
        raise DataDirUnusable(f"{data_dir} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise DataDirInUse(f"{data_dir} is in use by process {owner}.") from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
