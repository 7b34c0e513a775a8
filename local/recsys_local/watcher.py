"""List the data directory to find the files that start training jobs.

On AWS, events of S3 report these files. The listing depends only on the files that exist, and therefore finds the same
files again after a crash. Jobs that are done do not run again, because the registry records them.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from recsys.clock import Clock, after, utc_now
from recsys.objects import layout
from recsys.objects.created import ObjectCreated
from recsys.objects.sources import Upload, is_sidecar, parse_source
from recsys.objects.store import ObjectInfo, ObjectStore

_logger: Final = logging.getLogger("recsys.watcher")

SETTLED_S: Final = 2.0
"""Seconds for which a file in the inbox must be unchanged before it is read, because a copy over a network can pause.
"""
_CLOCK_TICK_NS: Final = 1_000_000_000
"""Upper bound on the resolution of file times, in nanoseconds. The resolution is milliseconds on Linux and one
second on some network file systems."""


@dataclass(slots=True)
class ObjectWatcher:
    """A watcher that finds objects under `uploads/` and `inbox/` that are not marked as done.

    An upload is reported at once. A file in the inbox is reported when two successive listings found it unchanged and
    it has not changed for `SETTLED_S` seconds. A file is therefore not read while it is being copied.

    Parameters
    ----------
    store
        The object store of the data directory.
    data_dir
        The data directory.
    clock
        Function that returns the current time. Tests replace it.
    """

    store: ObjectStore
    data_dir: Path
    clock: Clock = utc_now
    _done: set[tuple[str, str]] = field(default_factory=set)
    _last_look: set[tuple[str, str]] = field(default_factory=set)
    _warned_of: set[str] = field(default_factory=set)
    _finished_uploads_ns: int | None = None
    """Change time of `uploads/` at the time when all its files were done. None if it may contain new files."""

    def look(self) -> list[ObjectCreated]:
        """Return an event for each new object, in order of arrival.

        Raises
        ------
        Unavailable
            The data directory cannot be read.
        """
        found = [*self._new_uploads(), *self._new_objects(layout.INBOX)]
        settled = [info for info in found if self._is_settled(info)]
        self._last_look = {(info.name, info.version) for info in found}
        for info in settled:
            self._warn_if_ignored(info.name)
        sources = [info for info in settled if parse_source(info.name) is not None]
        return [to_event(info) for info in sorted(sources, key=lambda info: (info.arrived_at, info.name))]

    def _new_uploads(self) -> list[ObjectInfo]:
        """List the new files in `uploads/`.

        If all files of the folder are done and no file was added since, the folder is not read.

        An upload is created in one step and never overwritten. Every new upload therefore updates the change time of
        the folder. Listing thousands of finished uploads twice a second would take a third of the time of a CPU core.
        """
        changed_ns = _changed_ns(self.data_dir / layout.UPLOADS)
        if changed_ns is not None and changed_ns == self._finished_uploads_ns:
            return []
        listed_at_ns = time.time_ns()
        found = self._new_objects(layout.UPLOADS)
        is_finished = not any(parse_source(info.name) for info in found)
        # Within one tick of the kernel's clock, a file can be added without a visible change.
        is_old = changed_ns is not None and changed_ns < listed_at_ns - _CLOCK_TICK_NS
        self._finished_uploads_ns = changed_ns if is_finished and is_old else None
        return found

    def _new_objects(self, prefix: str) -> list[ObjectInfo]:
        """List the objects that are not marked as done.

        Uploads of items are left out, because the catalogue worker finds them.
        """
        return [
            info
            for info in self.store.list(prefix)
            if (info.name, info.version) not in self._done and not info.name.startswith(layout.ITEM_UPLOADS)
        ]

    def mark_done(self, event: ObjectCreated) -> None:
        """Stop reporting the object of an event until the object is overwritten."""
        self._done.add((event.name, event.version))

    def _is_settled(self, info: ObjectInfo) -> bool:
        if isinstance(parse_source(info.name), Upload):
            return True  # the service creates an upload in one step
        if (info.name, info.version) not in self._last_look:
            return False
        # `modified_at` does not suffice, because a copy can keep the modification time of its original, even a time in
        # the future.
        return info.arrived_at <= after(self.clock(), -SETTLED_S)

    def _warn_if_ignored(self, name: str) -> None:
        """Log a warning once for each file in the inbox that will be ignored.

        Nothing is logged about hidden files, because other programs create them.
        """
        is_hidden = any(part.startswith(".") for part in name.split("/"))
        if not name.startswith(layout.INBOX) or is_hidden or name in self._warned_of:
            return
        if parse_source(name) is None and not is_sidecar(name):
            self._warned_of.add(name)
            _logger.warning(
                "%r is ignored. Expected inbox/NAME.csv, inbox/KEY_ID/NAME.csv or inbox/KEY_ID/append/NAME.csv (or "
                ".tsv, .parquet, .gz, .zst, .zip): move or rename the file to train on it.",
                name,
            )


def _changed_ns(folder: Path) -> int | None:
    try:
        return folder.stat().st_ctime_ns
    except OSError:
        return None


def to_event(info: ObjectInfo) -> ObjectCreated:
    """Return the event that reports an object to the training code."""
    # The event contains the time of arrival, because `cp -p` and `mv` keep the time of modification.
    return ObjectCreated(info.name, info.version, data_timestamp=f"{info.arrived_at}#{info.name}")
