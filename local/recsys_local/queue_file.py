"""The file in which the worker publishes the position of every waiting job, for the HTTP process to read.

It is not synced to the disk and not kept at a restart, because the worker writes it again when it has found the files.
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
    """Positions of waiting jobs, in the data directory.

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
        """Replace the positions.

        On a full disk, the previous ones are kept, because a failure to publish positions must not stop the training.
        """
        temporary = self._path.with_suffix(".tmp")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps({job_id: astuple(position) for job_id, position in positions.items()}))
            temporary.replace(self._path)

    def position_of(self, job_id: str) -> QueuePosition | None:
        """Return the position of a job in the queue.

        None means that the job is not queued, or that the worker has not yet seen its file.
        """
        return self.positions().get(job_id)

    def positions(self) -> Mapping[str, QueuePosition]:
        """Return the positions of all waiting jobs by job id. The mapping is empty until the worker has written it."""
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
