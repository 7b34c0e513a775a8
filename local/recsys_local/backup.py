"""Back up a data directory while the service runs, and restore the backup into an empty directory.

SQLite's backup API copies the registry first, in a consistent state. The objects are copied afterwards. An object is
written before the registry refers to it and never changes. The backup therefore contains every object to which the
copied registry refers. It can also contain newer objects, to which nothing refers.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final, Self

from recsys.clock import Timestamp, utc_now
from recsys.errors import RecsysError
from recsys.model import artifact
from recsys.objects import layout
from recsys.registry.sqlite import SqliteRegistry
from recsys_local.adapters import REGISTRY_FILE, SAMPLE_FILE, lock_data_dir, open_existing_registry
from recsys_local.garbage import preventing_collection

CATALOGUE: Final = "backup.json"
"""File in a backup that lists all other files with their digests. It is written last. A backup without this file is
therefore incomplete."""
FORMAT: Final = 1
_OBJECT_FOLDERS: Final = (layout.MODELS, layout.UPLOADS, layout.INBOX, layout.RECEIPTS)
_CHUNK_BYTES: Final = 1 << 20


class BackupRefused(RecsysError):
    """Raised when a backup or a restore would overwrite existing files."""

    code = "backup-refused"
    title = "The directory is not empty"


class BackupDamaged(RecsysError):
    """Raised when a backup is incomplete, or when a file of the backup does not match the recorded digest."""

    code = "backup-damaged"
    title = "The backup cannot be used"
    default_hint = "Use another backup."


@dataclass(frozen=True, slots=True)
class BackupFile:
    """A file of a backup, with its path below the data directory, its size in bytes and its SHA-256 in hexadecimal."""

    path: str
    size_bytes: int
    sha256: str


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """The time of a backup, and the list of its files."""

    created_at: Timestamp
    files: tuple[BackupFile, ...]
    format: int = FORMAT

    @property
    def size_bytes(self) -> int:
        """Total size of the files, in bytes."""
        return sum(file.size_bytes for file in self.files)

    def to_json(self) -> dict[str, Any]:
        """Return the summary as a JSON object."""
        return {**asdict(self), "recsys": version("recsys")}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Restore a summary from the JSON object that `to_json` returned."""
        return cls(document["created_at"], tuple(BackupFile(**file) for file in document["files"]), document["format"])


def create_backup(data_dir: Path, target: Path) -> BackupSummary:
    """Copy the registry and the objects of a data directory. This also works while the service is running.

    Parameters
    ----------
    data_dir
        The data directory.
    target
        Directory to create, with mode 0700 because it will contain customer data. An empty directory may already exist.

    Returns
    -------
    BackupSummary
        The list of the copied files.

    Raises
    ------
    BackupRefused
        `target` contains files.
    NoRegistry
        `data_dir` has no registry.
    BackupDamaged
        The data directory lacks a file of a model or of a catalogue to which the registry refers.
    """
    registry = open_existing_registry(data_dir)
    _create_empty_directory(target)
    files = []
    try:
        with preventing_collection(data_dir):  # otherwise a long backup could miss files that its registry refers to
            registry.copy_to(target / REGISTRY_FILE)
            for path in _object_paths(data_dir):
                with contextlib.suppress(FileNotFoundError):  # deleted since it was listed; models are checked below
                    files.append(_copy(data_dir, path, target))
    finally:
        registry.close()
    _check_models(target)
    files.append(_describe(target, REGISTRY_FILE))
    summary = BackupSummary(utc_now(), tuple(files))
    _write_durably(target / CATALOGUE, json.dumps(summary.to_json(), indent=1).encode())
    return summary


def restore_backup(backup: Path, data_dir: Path) -> BackupSummary:
    """Copy a backup into a new data directory.

    Parameters
    ----------
    backup
        Directory that `create_backup` wrote.
    data_dir
        Directory to create. It may already exist if it contains neither a registry nor objects.

    Returns
    -------
    BackupSummary
        The list of the restored files.

    Raises
    ------
    BackupDamaged
        The backup is incomplete or damaged. The data directory then contains no registry, so that a service cannot use
        it.
    BackupRefused
        `data_dir` contains a registry or objects.
    DataDirInUse
        A service uses `data_dir`.
    """
    summary = read_summary(backup)
    with lock_data_dir(data_dir):
        if (data_dir / REGISTRY_FILE).exists() or any(_object_paths(data_dir)):
            raise BackupRefused(
                f"{data_dir} already contains data.", hint="Pass another --data-dir, or move the existing data away."
            )
        for file in summary.files:
            if file.path != REGISTRY_FILE:
                _check_digest(file, _copy(backup, file.path, data_dir))
        # The registry comes last, because the service refuses to start on models without a registry.
        partial = f"{REGISTRY_FILE}.partial"
        shutil.copy2(backup / REGISTRY_FILE, data_dir / partial)
        registry_file = next(file for file in summary.files if file.path == REGISTRY_FILE)
        _check_digest(registry_file, _describe(data_dir, partial))
        (data_dir / partial).chmod(0o600)
        (data_dir / partial).rename(data_dir / REGISTRY_FILE)
    return summary


def read_summary(backup: Path) -> BackupSummary:
    """Read the summary file of a backup.

    Raises
    ------
    BackupDamaged
        The directory is not a complete backup.
    """
    try:
        summary = BackupSummary.from_json(json.loads((backup / CATALOGUE).read_bytes()))
    except FileNotFoundError as error:
        raise BackupDamaged(
            f"{backup} contains no {CATALOGUE}, because it is not a backup or the backup was interrupted."
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise BackupDamaged(f"{backup / CATALOGUE} cannot be read: {error}.") from error
    if any(Path(file.path).is_absolute() or ".." in Path(file.path).parts for file in summary.files):
        raise BackupDamaged(f"{backup / CATALOGUE} names a file outside the data directory.")
    if summary.format != FORMAT or not any(file.path == REGISTRY_FILE for file in summary.files):
        raise BackupDamaged(
            f"{backup} has format {summary.format} or contains no registry. Expected: format {FORMAT} with a registry."
        )
    return summary


def _create_empty_directory(target: Path) -> None:
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise BackupRefused(f"{target} contains files.", hint="Pass a new directory for every backup.")


def _object_paths(data_dir: Path) -> Iterator[str]:
    """Yield the path of every object below the data directory in order of arrival.

    The copies are created in this order. A restored data directory therefore has the same order of arrival.
    """
    found = [path for folder in _OBJECT_FOLDERS for path in (data_dir / folder).rglob("*")]
    if (data_dir / SAMPLE_FILE).exists():
        found.append(data_dir / SAMPLE_FILE)
    arrived = []
    for path in found:
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and not path.is_symlink():
                arrived.append((path.stat().st_ctime_ns, str(path.relative_to(data_dir))))
    for _, relative in sorted(arrived):
        yield relative


def _copy(source: Path, path: str, target: Path) -> BackupFile:
    """Copy the file `path` from the folder `source` to `target`, and return the path, the size and the digest.

    The copy keeps the modification time, which is part of an object's version.
    """
    (target / path).parent.mkdir(parents=True, exist_ok=True)
    digest, size_bytes = hashlib.sha256(), 0
    with (source / path).open("rb") as reader, (target / path).open("xb") as writer:
        while chunk := reader.read(_CHUNK_BYTES):
            digest.update(chunk)
            size_bytes += len(chunk)
            writer.write(chunk)
        status = os.fstat(reader.fileno())
        writer.flush()
        os.fchmod(writer.fileno(), status.st_mode & 0o777)
        os.utime(writer.fileno(), ns=(status.st_atime_ns, status.st_mtime_ns))
        os.fsync(writer.fileno())
    return BackupFile(path, size_bytes, digest.hexdigest())


def _describe(folder: Path, path: str) -> BackupFile:
    with (folder / path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return BackupFile(path, (folder / path).stat().st_size, digest)


def _check_digest(expected: BackupFile, copied: BackupFile) -> None:
    if (expected.size_bytes, expected.sha256) != (copied.size_bytes, copied.sha256):
        raise BackupDamaged(f"{expected.path} in the backup differs from its digest in {CATALOGUE}.")


def _check_models(target: Path) -> None:
    """Check that the backup contains every file of each version and catalogue in its registry."""
    registry = SqliteRegistry(target / REGISTRY_FILE)
    try:
        for key in registry.list_keys():
            for model in registry.list_versions(key.key_id):
                prefix = layout.model_prefix(key.key_id, model.version)
                for name in (*artifact.LISTED_FILES, artifact.MANIFEST):
                    _check_file(target, prefix + name)
            if key.catalogue_version is not None:
                prefix = layout.catalogue_prefix(key.key_id, key.catalogue_version)
                _check_file(target, prefix + layout.CATALOGUE_FILE)
    finally:
        registry.close()


def _check_file(target: Path, name: str) -> None:
    if not (target / name).is_file():
        raise BackupDamaged(
            f"{name} is missing, although the registry lists this version.",
            hint="Create the backup again. If the error persists, the data directory lacks the file as well. Use an "
            "older backup that contains it, or train the model again.",
        )


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
