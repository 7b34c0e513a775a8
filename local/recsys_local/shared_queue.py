"""The state of the training queue, stored in a file that all workers of a data directory share.

The file is neither synced to the disk nor kept when the service restarts, because the workers find the waiting files
again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Self

from recsys.errors import Unavailable
from recsys.objects.created import ObjectCreated
from recsys_local.scheduler import FairQueue, QueuedJob
from recsys_local.worker_process import SCRATCH

_NAME: Final = "turns.json"
_LOCK_NAME: Final = "turns.lock"


@dataclass(frozen=True, slots=True)
class RunningJob:
    """A running job, the event of its file, and the start of its training in seconds of the monotonic clock."""

    job: QueuedJob
    event: ObjectCreated
    started_s: float


@dataclass(slots=True)
class QueueState:
    """The state of the training queue.

    Parameters
    ----------
    queue
        The waiting jobs, and the past trainings of the keys, which decide the order.
    events
        The event of the file of each waiting job, by job id.
    running
        The running job of each worker, by name of the worker.
    trained_s, trained_cost
        Total duration in seconds and total cost of all trainings so far. Waiting times are estimated from both totals.
    """

    queue: FairQueue = field(default_factory=FairQueue)
    events: dict[str, ObjectCreated] = field(default_factory=dict)
    running: dict[str, RunningJob] = field(default_factory=dict)
    trained_s: float = 0.0
    trained_cost: float = 0.0

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return {
            "queue": self.queue.to_json(),
            "events": {job_id: asdict(event) for job_id, event in self.events.items()},
            "running": {worker: asdict(running) for worker, running in self.running.items()},
            "trained_s": self.trained_s,
            "trained_cost": self.trained_cost,
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Restore a state from the JSON object that `to_json` returned."""
        return cls(
            FairQueue.from_json(document["queue"]),
            {job_id: ObjectCreated(**event) for job_id, event in document["events"].items()},
            {
                worker: RunningJob(QueuedJob(**running["job"]), ObjectCreated(**running["event"]), running["started_s"])
                for worker, running in document["running"].items()
            },
            document["trained_s"],
            document["trained_cost"],
        )


class SharedQueue:
    """The state of the training queue, to which one worker at a time has exclusive access.

    If a worker ends for any reason, the kernel releases its lock, and the worker has changed the state either
    completely or not at all.

    Parameters
    ----------
    data_dir
        The data directory.
    publish
        Function that is called with the changed state before the lock is released.
    """

    def __init__(self, data_dir: Path, publish: Callable[[QueueState], None]) -> None:
        self._publish = publish
        self._path = data_dir / SCRATCH / _NAME
        self._lock_path = data_dir / SCRATCH / _LOCK_NAME

    @contextlib.contextmanager
    def locked(self) -> Iterator[QueueState]:
        """Yield the state, and store it at the end of the context unless an exception is raised.

        Raises
        ------
        Unavailable
            The data directory cannot be read or written. The stored state is unchanged.
        """
        try:
            lock = self._lock_path.open("a")
        except OSError as error:
            raise Unavailable(f"{self._lock_path} cannot be written: {error.strerror}.") from error
        with lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            before = self._read()
            state = QueueState.from_json(json.loads(before)) if before else QueueState()
            yield state
            after = json.dumps(state.to_json())
            if after != before:
                self._write(after)
                self._publish(state)

    def _read(self) -> str:
        try:
            return self._path.read_text()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be read: {error.strerror}.") from error

    def _write(self, text: str) -> None:
        temporary = self._path.with_suffix(".tmp")
        try:
            temporary.write_text(text)
            temporary.replace(self._path)
        except OSError as error:
            raise Unavailable(f"{self._path} cannot be written: {error.strerror}.") from error
