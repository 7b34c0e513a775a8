"""Check the conditions for a working local service.

If a condition is not met, `/health/ready` returns status 503 with the reason.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from recsys.errors import NotReady
from recsys_local.adapters import REGISTRY_FILE
from recsys_local.worker_process import worker_name

WORKER_SILENT_AFTER_S: Final = 30.0
"""Seconds without a heartbeat of a worker after which the service is not ready. A worker sends a heartbeat every two
seconds, but importing TensorFlow takes up to 20 s on a busy machine."""


@dataclass(frozen=True, slots=True)
class DataDirCheck:
    """A check that the data directory still contains the registry that the service opened.

    SQLite continues to work on a file that was deleted or replaced. All data written after the deletion would be lost
    when the process ends.

    Parameters
    ----------
    registry_file
        Path of the registry.
    identity
        Numbers of the device and the inode of the file that the service opened.
    """

    registry_file: Path
    identity: tuple[int, int]

    @classmethod
    def of(cls, data_dir: Path) -> Self:
        """Return a check for the current registry file of `data_dir`."""
        registry_file = data_dir / REGISTRY_FILE
        return cls(registry_file, _identity(registry_file))

    def __call__(self) -> None:
        """Raise `NotReady` if the registry is missing or was replaced by another file."""
        try:
            is_same = _identity(self.registry_file) == self.identity
        except OSError as error:
            raise NotReady(
                f"The registry in the data directory cannot be found: {error.strerror}.",
                hint="Stop the service, restore the data directory from a backup, and start it again.",
            ) from error
        if not is_same:
            raise NotReady(
                "The registry in the data directory was replaced while the service was running.",
                hint="Restart the service.",
            )


@dataclass(frozen=True, slots=True)
class FreeSpaceCheck:
    """A check that the disk of the data directory has at least `min_free_bytes` of free space."""

    data_dir: Path
    min_free_bytes: int

    def __call__(self) -> None:
        """Raise `NotReady` if there is too little free space."""
        try:
            free_bytes = shutil.disk_usage(self.data_dir).free
        except OSError as error:
            raise NotReady(f"The free disk space cannot be determined: {error.strerror}.") from error
        if free_bytes < self.min_free_bytes:
            raise NotReady(
                f"The disk is almost full. {free_bytes / 1e6:,.0f} MB are free, and at least "
                f"{self.min_free_bytes / 1e6:,.0f} MB are required.",
                hint="Free some disk space on the machine of the service, then retry.",
            )


@dataclass(frozen=True, slots=True)
class WorkerCheck:
    """A check that every training worker has sent a heartbeat recently.

    `silent_s` returns the seconds since the last heartbeat of each worker.
    """

    silent_s: Callable[[], Sequence[float]]

    def __call__(self) -> None:
        """Raise `NotReady` if the last heartbeat of a worker is older than `WORKER_SILENT_AFTER_S`."""
        silences_s = self.silent_s()
        for number, silent_s in enumerate(silences_s, start=1):
            if silent_s > WORKER_SILENT_AFTER_S:
                raise NotReady(
                    f"{worker_name(number, len(silences_s))} has not reported for {silent_s:.0f} seconds.",
                    hint="Check the log of the service. A worker that hangs is replaced when its lease has expired.",
                )


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
