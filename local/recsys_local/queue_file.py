"""The file in which the worker publishes the position of every waiting job, for the HTTP process to read.

It is not synced to the disk, and is lost at a restart: the worker writes it again when it has found the files.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Final

from recsys_api.jobs import QueuePlace
from recsys_local.worker_process import SCRATCH

_NAME: Final = "queue.json"

__all__ = ["QueueFile", "QueuePlace"]


class QueueFile:
    """Positions of waiting jobs, in the data directory.

    Parameters
    ----------
    data_dir
        The data directory.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / SCRATCH / _NAME
        self._read_version: tuple[int, int] | None = None
        self._places: dict[str, QueuePlace] = {}

    def write(self, places: Mapping[str, QueuePlace]) -> None:
        """Replace the positions. On a full disk, the previous ones stay: a position is not worth a training."""
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps({job_id: astuple(place) for job_id, place in places.items()}))
            temporary.replace(self._path)

    def place_of(self, job_id: str) -> QueuePlace | None:
        """Return the position of a job; None if it does not wait, or the worker has not seen its file yet."""
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if version != self._read_version:
                document = json.loads(self._path.read_text())
                self._places = {name: QueuePlace(*place) for name, place in document.items()}
                self._read_version = version
        except (OSError, ValueError):
            return None
        return self._places.get(job_id)
