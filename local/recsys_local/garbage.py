"""Delete the data that the retention policy no longer keeps (garbage collection).

The command `recsys gc` runs one collection. The service runs a collection every hour.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from recsys.errors import Unavailable
from recsys.objects.store import ObjectStore
from recsys.registry.sqlite import SqliteRegistry
from recsys.retention.collector import Collection, Collector
from recsys.retention.plan import RetentionPolicy
from recsys.settings import Settings
from recsys_local.adapters import open_existing_registry, open_store

_logger: Final = logging.getLogger("recsys.gc")

_LOCK_FILE: Final = "gc.lock"
"""Name of the file that is locked during collections and backups. The lock prevents the deletion of files to which the
registry in a backup refers."""


@dataclass(frozen=True, slots=True)
class LocalCollection:
    """The outcome of a garbage collection in a data directory, or of a dry run, which deletes nothing.

    Parameters
    ----------
    collection
        Deletions of versions and files.
    n_expired
        Number of records of the registry that had expired.
    was_prevented
        Whether nothing was deleted because a backup or another collection was in progress.
    """

    collection: Collection
    n_expired: int = 0
    was_prevented: bool = False


def collect_in(data_dir: Path, settings: Settings, *, dry_run: bool) -> LocalCollection:
    """Delete from a data directory the data that the retention policy no longer keeps.

    This also works while the service is running.

    Parameters
    ----------
    data_dir
        The data directory.
    settings
        Source of the retention policy.
    dry_run
        Whether to return the deletions without carrying them out.

    Raises
    ------
    NoRegistry
        The data directory has no registry.
    Unavailable
        The data directory cannot be read.
    """
    registry = open_existing_registry(data_dir)
    try:
        store = open_store(data_dir)
        if dry_run:
            collector = _collector(store, registry, settings)
            return LocalCollection(Collection(tuple(collector.plan())), registry.count_expired())
        return collect_garbage(data_dir, store, registry, settings)
    finally:
        registry.close()


def collect_garbage(
    data_dir: Path, store: ObjectStore, registry: SqliteRegistry, settings: Settings
) -> LocalCollection:
    """Delete the data that is no longer kept, remove expired records, and checkpoint the registry.

    Return the outcome. If a backup or another collection is in progress, nothing is deleted.

    Raises
    ------
    Unavailable
        The data directory cannot be read.
    """
    with _lock(data_dir) as lock:
        if not _try_lock(lock):
            return LocalCollection(Collection(()), was_prevented=True)
        collection = _collector(store, registry, settings).run()
        n_expired = registry.remove_expired()
        registry.checkpoint()
    return LocalCollection(collection, n_expired)


@contextlib.contextmanager
def preventing_collection(data_dir: Path) -> Iterator[None]:
    """Wait for a running garbage collection to end, and prevent new collections while the context is active.

    Raises
    ------
    Unavailable
        The data directory cannot be written.
    """
    with _lock(data_dir) as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def collect_and_log(data_dir: Path, store: ObjectStore, registry: SqliteRegistry, settings: Settings) -> None:
    """Run a garbage collection. Log the outcome in one line, unless there was nothing to delete.

    Raises
    ------
    Unavailable
        The data directory cannot be read.
    """
    outcome = collect_garbage(data_dir, store, registry, settings)
    if outcome.was_prevented:
        _logger.info("Nothing was collected, because a backup or another collection is in progress.")
    elif outcome.collection.deletions or outcome.n_expired:
        _logger.info("%s", summary_of(outcome, dry_run=False))


def rows_of(outcome: LocalCollection) -> list[dict[str, str | None]]:
    """Return one row per deletion.

    A row contains the deleted object or prefix, the reason, the time at which the files are deleted (now or after the
    grace period), and the size of the files in bytes.
    """
    return [
        {
            "what": deletion.what,
            "reason": str(deletion.reason),
            "files": "after the grace period" if deletion.is_mark else "now",
            "bytes": f"{deletion.size_bytes}",
        }
        for deletion in outcome.collection.deletions
    ]


def summary_of(outcome: LocalCollection, *, dry_run: bool) -> str:
    """Return one line of text that describes the outcome of a garbage collection."""
    if outcome.was_prevented:
        return "Nothing was deleted, because a backup or another collection is in progress."
    deletions = outcome.collection.deletions
    n_retired = sum(deletion.is_mark for deletion in deletions)
    deleted, retired = ("Would delete", "would retire") if dry_run else ("Deleted", "retired")
    line = (
        f"{deleted} {len(deletions) - n_retired:,} versions and files ({outcome.collection.freed_bytes / 1e6:,.1f} MB) "
        f"and {outcome.n_expired:,} expired records; {retired} {n_retired:,} versions, whose files are deleted after "
        "the grace period."
    )
    n_failed = outcome.collection.n_failed
    return f"{line} {n_failed:,} deletions failed and will be repeated." if n_failed else line


def _collector(store: ObjectStore, registry: SqliteRegistry, settings: Settings) -> Collector:
    policy = RetentionPolicy.of(
        versions_kept=settings.versions_kept,
        key_cache_s=settings.key_cache_s,
        upload_days=settings.upload_days,
        audit_days=settings.audit_days,
    )
    return Collector(registry.table, store, policy)


@contextlib.contextmanager
def _lock(data_dir: Path) -> Iterator[IO[str]]:
    try:
        lock = (data_dir / _LOCK_FILE).open("a")
    except OSError as error:
        raise Unavailable(f"{data_dir / _LOCK_FILE} cannot be written: {error.strerror}.") from error
    with lock:
        yield lock


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
