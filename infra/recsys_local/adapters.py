"""The adapters of one machine: everything lies in one data directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from recsys.errors import RecsysError
from recsys.objects.files import FileObjectStore
from recsys.registry.sqlite import SqliteRegistry


class DataDirInUse(RecsysError):
    """Another service works on this data directory."""

    code = "data-dir-in-use"
    title = "The data directory is in use"
    default_hint = "Stop the other service, or give this one another --data-dir."


def open_store(data_dir: Path, *, base_url: str = "") -> FileObjectStore:
    """The object store; `base_url` is where upload forms point to."""
    return FileObjectStore(data_dir, base_url=base_url)


def open_registry(data_dir: Path) -> SqliteRegistry:
    """The registry."""
    return SqliteRegistry(data_dir / "registry.sqlite3")


def lock_data_dir(data_dir: Path) -> IO[str]:
    """Make sure that one service at a time works on `data_dir`; the lock lasts until the file is closed.

    Raises
    ------
    DataDirInUse
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    lock = (data_dir / "service.lock").open("a+")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise DataDirInUse(f"{data_dir} is in use by process {lock.read().strip() or 'unknown'}.") from error
    lock.truncate(0)
    lock.write(str(os.getpid()))
    lock.flush()
    return lock
