"""The file with the position of every waiting job. The workers write it, and the HTTP process reads it.

The file is neither synced to the disk nor kept when the service restarts, because the workers find the waiting files
again and then write a new file.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Final

from recsys_api.jobs import QueuePosition
from recsys_local.worker_process import SCRATCH

_NAME: Final = "queue.json"

__all__ = ["QueueFile", "QueuePosition"]


class QueueFile:
    """The file with the positions of the waiting jobs of a data directory.

    Parameters
    ----------
    data_dir
        The data directory.
    """

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / SCRATCH / _NAME
        self._read_version: tuple[int, int] | None = None
        self._positions: dict[str, QueuePosition] = {}

    def write(self, positions: Mapping[str, QueuePosition]) -> None:
        """Replace the stored positions by `positions`, which maps job ids to positions.

        If the file cannot be written, for example because the disk is full, the previous positions are kept. The
        training must not stop for this reason.
        """
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps({job_id: astuple(position) for job_id, position in positions.items()}))
            temporary.replace(self._path)

    def position_of(self, job_id: str) -> QueuePosition | None:
        """Return the position of a job in the queue.

        None means that the job is not queued, or that no worker has found its file yet.
        """
        return self.positions().get(job_id)

    def positions(self) -> Mapping[str, QueuePosition]:
        """Return the positions of all waiting jobs, by job id.

        The mapping is empty until a worker has written the file.
        """
        try:
            status = self._path.stat()
            version = (status.st_mtime_ns, status.st_ino)
            if version != self._read_version:
                document = json.loads(self._path.read_text())
                self._positions = {name: QueuePosition(*values) for name, values in document.items()}
                self._read_version = version
        except (OSError, ValueError):
            return {}
        return self._positions
