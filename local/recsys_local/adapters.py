"""Open the object store and the registry of a data directory, and lock the directory for one service."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
from pathlib import Path
from typing import IO, Final

from recsys.errors import RecsysError
from recsys.model import artifact
from recsys.objects import layout
from recsys.objects.files import FileObjectStore
from recsys.registry.audit import DEFAULT_DAYS
from recsys.registry.sqlite import SqliteRegistry

_logger: Final = logging.getLogger("recsys.service")

REGISTRY_FILE: Final = "registry.sqlite3"
SAMPLE_FILE: Final = "sample.json"
"""Name of the file with the job id and the API key of the bundled sample. Only its owner can read the file."""
SIGN_IN_FILE: Final = "sign-in.json"
"""Name of the file with the unused sign-in link to the console. Only its owner can read the file."""
_LOCK_FILE: Final = "service.lock"


class DataDirInUse(RecsysError):
    """Raised when another service holds the lock of the data directory."""

    code = "data-dir-in-use"
    title = "The data directory is in use"
    default_hint = "Stop the other service, or pass another --data-dir."


class DataDirUnusable(RecsysError):
    """Raised when the data directory cannot be created or written."""

    code = "data-dir-unusable"
    title = "The data directory cannot be used"
    default_hint = "Pass a --data-dir that you may write to, on a file system that is not read-only."


class NoRegistry(RecsysError):
    """Raised when a command needs a registry and the data directory has none."""

    code = "no-registry"
    title = "There is no registry in the data directory"
    default_hint = "Pass the --data-dir of the service. `recsys serve` creates the registry at its first start."


class RegistryMissing(RecsysError):
    """Raised when a data directory contains models, but its registry is missing or empty."""

    code = "registry-missing"
    title = "The registry is missing"
    default_hint = (
        "Restore a backup into another directory with `recsys restore`, and pass this directory as --data-dir. If the "
        f"files were copied by hand while the service was running, copy {REGISTRY_FILE}-wal as well. To start without "
        "the models, move the folder models/ away."
    )


def open_store(data_dir: Path, *, base_url: str = "") -> FileObjectStore:
    """Open the object store of a data directory.

    Parameters
    ----------
    data_dir
        The data directory.
    base_url
        URL of the HTTP service. Upload forms contain it.
    """
    return FileObjectStore(data_dir, base_url=base_url)


def open_locked_store(data_dir: Path, *, base_url: str) -> FileObjectStore:
    """Open the object store, delete the temporary files of killed writers, and create the inbox.

    The caller must hold the lock of the data directory. Otherwise, temporary files of running writers would also be
    deleted.
    """
    store = FileObjectStore(data_dir, base_url=base_url, stale_after_s=0.0)
    for version_folder in (data_dir / layout.MODELS).glob("*/*"):
        with contextlib.suppress(OSError):  # rmdir fails for a folder that contains files, which is kept
            version_folder.rmdir()
    (data_dir / layout.INBOX).mkdir(exist_ok=True)
    return store


def open_registry(data_dir: Path, *, audit_days: int = DEFAULT_DAYS) -> SqliteRegistry:
    """Open the registry of a data directory, and create it if it does not exist.

    Raises
    ------
    RegistryMissing
        The directory contains models, but its registry is missing or empty. A possible cause is that only the models
        were restored, or that the registry was copied without its write-ahead log.
    """
    has_models = any((data_dir / layout.MODELS).glob(f"*/*/{artifact.MANIFEST}"))
    if has_models and not (data_dir / REGISTRY_FILE).exists():
        raise RegistryMissing(f"{data_dir} contains models, but {REGISTRY_FILE} is missing.")
    registry = SqliteRegistry(data_dir / REGISTRY_FILE, audit_days=audit_days)
    if has_models and registry.is_empty():
        registry.close()
        raise RegistryMissing(f"{data_dir} contains models, but {REGISTRY_FILE} is empty.")
    return registry


def open_existing_registry(data_dir: Path, *, audit_days: int = DEFAULT_DAYS) -> SqliteRegistry:
    """Open the registry of a data directory without creating it, for a command of the operator.

    Raises
    ------
    NoRegistry
        The directory has no registry.
    """
    if not (data_dir / REGISTRY_FILE).exists():
        raise NoRegistry(f"{data_dir} contains no {REGISTRY_FILE}.")
    return SqliteRegistry(data_dir / REGISTRY_FILE, audit_days=audit_days)


def lock_data_dir(data_dir: Path) -> IO[str]:
    """Create the data directory if it does not exist, and lock it so that only one service uses it.

    Parameters
    ----------
    data_dir
        The data directory. A new directory gets mode 0700, because it will contain customer data.

    Returns
    -------
    IO
        The open lock file. The lock is held until the file is closed or the process ends.

    Raises
    ------
    DataDirInUse
        Another process holds the lock.
    DataDirUnusable
        The directory cannot be created or written.
    """
    try:
        data_dir.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            data_dir.mkdir(mode=0o700)
        lock = (data_dir / _LOCK_FILE).open("a+")
    except OSError as error:
        raise DataDirUnusable(f"{data_dir} cannot be written: {error.strerror}.") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        owner = lock.read().strip() or "unknown"
        lock.close()
        raise DataDirInUse(f"{data_dir} is in use by process {owner}.") from error
    if is_open_to_others(data_dir):
        _logger.warning("Every user of this machine can read %s. Run: chmod 700 %s", data_dir, data_dir)
    _write_owner(lock, data_dir)
    return lock


def is_open_to_others(data_dir: Path) -> bool:
    """Return whether users of this machine outside the owner's group have permissions for the directory."""
    return bool(stat.S_IMODE(data_dir.stat().st_mode) & stat.S_IRWXO)


def _write_owner(lock: IO[str], data_dir: Path) -> None:
    try:
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
    except OSError as error:
        # Closing writes the buffer once more, which also fails, but the descriptor is closed nevertheless.
        with contextlib.suppress(OSError):
            lock.close()
        raise DataDirUnusable(
            f"{data_dir} cannot be written: {error.strerror}.", hint="Free some disk space, then start again."
        ) from error


def write_private(path: Path, text: str) -> None:
    """Write `text` to a file that only its owner can read. An existing file is replaced."""
    temporary = path.with_suffix(".tmp")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)
