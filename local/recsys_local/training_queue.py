"""The queue of the files that wait for training.

`recsys_local.watcher` finds the files, and `recsys_local.scheduler` decides which file is trained next.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from recsys.clock import Timestamp, to_datetime
from recsys.errors import KeyNotFound, ObjectNotFound
from recsys.file_options import Mode
from recsys.objects.created import ObjectCreated
from recsys.registry import rules
from recsys.registry.records import Job, JobPurpose
from recsys_local.queue_file import QueueFile, QueuePosition
from recsys_local.scheduler import QueuedJob
from recsys_local.shared_queue import QueueState, RunningJob, SharedQueue
from recsys_local.watcher import ObjectWatcher
from recsys_train.events import find_or_create_job, process, supersede
from recsys_train.job import Trainer

EndJob = Callable[[ObjectCreated, Trainer], Job | None]
"""Function that brings the job of a file into a final state, for example by training, and returns the job. It returns
None if the file has no job."""

GZIP_RATIO: Final = 8
"""Assumed number of bytes of CSV per byte of a gzip file. The ratio of the bundled sample is 8.2."""
OVERHEAD_BYTES: Final = 1_000_000
"""Cost of every training in addition to the size of its file. Even the smallest training takes about two seconds. A
large training processes 1 MB of CSV in this time."""


class TrainingQueue:
    """The queue of the files that wait for training, which all workers of a data directory share.

    When the service starts, the stored state of the queue is deleted. The watcher then finds the waiting files again,
    and the registry shows which jobs have ended.

    Parameters
    ----------
    trainer
        Trainer that finds or creates the jobs of the files.
    watcher
        Watcher that finds the files.
    data_dir
        Data directory, which contains the state of the queue and the published positions of the jobs while the service
        runs.
    worker
        Name of the worker that uses this object. Each worker process creates its own object.
    n_workers
        Number of workers that share the queue. The estimated waiting times depend on this number.
    """

    def __init__(
        self, trainer: Trainer, watcher: ObjectWatcher, data_dir: Path, *, worker: str = "1", n_workers: int = 1
    ) -> None:
        self._trainer = trainer
        self._watcher = watcher
        self._worker = worker
        self._n_workers = n_workers
        self._queue_file = QueueFile(data_dir)
        self._shared = SharedQueue(data_dir, publish=self._write_positions)

    @contextlib.contextmanager
    def turn(self) -> Iterator[Turn]:
        """Give this worker exclusive access to the queue while the context is active. Store the changes at the end.

        At the start of the context, the previous training of this worker is recorded as ended, because a worker that
        was killed during a training could not record the end.

        Raises
        ------
        Unavailable
            The data directory cannot be read or written. The caller must not train a file that `Turn.start` returned in
            the context, because another worker may start the same file.
        """
        with self._shared.locked() as state:
            turn = Turn(state, self._trainer, self._watcher, self._worker)
            turn.finish_previous()
            yield turn

    def _write_positions(self, state: QueueState) -> None:
        positions: dict[str, QueuePosition] = {}
        cost_ahead = sum(running.job.cost for running in state.running.values())
        seconds_per_cost = state.trained_s / state.trained_cost if state.trained_cost else None
        for position, job in enumerate(state.queue.in_order(), start=1):
            wait_s = None if seconds_per_cost is None else round(cost_ahead * seconds_per_cost / self._n_workers)
            positions[job.job_id] = QueuePosition(position, wait_s)
            cost_ahead += job.cost
        self._queue_file.write(positions)


class Turn:
    """Exclusive access of one worker to the queue, to add new files and to take the next file.

    Here, a turn is the time during which one worker accesses the queue. In `recsys_local.scheduler`, a turn is one
    training job of a key.

    Parameters
    ----------
    state
        State of the queue, which the methods change.
    trainer, watcher, worker
        The same as in `TrainingQueue`.
    """

    def __init__(self, state: QueueState, trainer: Trainer, watcher: ObjectWatcher, worker: str) -> None:
        self._state = state
        self._trainer = trainer
        self._watcher = watcher
        self._worker = worker

    def look(self) -> list[tuple[ObjectCreated, EndJob]]:
        """Add new files to the queue.

        Returns
        -------
        list of (ObjectCreated, EndJob)
            Files that need no training, each with the function that ends its job. A file needs no training if a newer
            file of the same key supersedes it, or if its job is already in a final state. In the second case, the
            receipt may still be missing.

        Raises
        ------
        Unavailable
            The data directory or the registry cannot be read.
        """
        events = [*self._state.events.values(), *(running.event for running in self._state.running.values())]
        known = {(event.name, event.version) for event in events}
        new = [event for event in self._watcher.look() if (event.name, event.version) not in known]
        return [step for event in new if (step := self._add(event)) is not None]

    def start(self) -> ObjectCreated | None:
        """Remove the file that is trained next from the queue, and return it. Return None if no file may start.

        The end of the training is recorded when this worker next enters `TrainingQueue.turn`. If the training failed,
        the watcher finds the file again.
        """
        job = self._state.queue.start()
        if job is None:
            return None
        event = self._state.events.pop(job.job_id)
        self._state.running[self._worker] = RunningJob(job, event, time.monotonic())
        return event

    def finish_previous(self) -> None:
        """Record the end of this worker's previous training, if there was one."""
        running = self._state.running.pop(self._worker, None)
        if running is not None:
            self._state.trained_s += time.monotonic() - running.started_s
            self._state.trained_cost += running.job.cost
            self._state.queue.finish(running.job.key_id, now_s=time.time())

    def _add(self, event: ObjectCreated) -> tuple[ObjectCreated, EndJob] | None:
        job = find_or_create_job(event, self._trainer)
        if job is None:
            self._watcher.mark_done(event)
            return None
        if job.state.is_final:
            return event, process
        # Validations take turns as if they belonged to another key, so that a validation and a training of the same
        # key do not supersede each other.
        turn = job.key_id if job.purpose is JobPurpose.TRAIN else f"{job.key_id}/{job.purpose}"
        queued = QueuedJob(
            job.job_id,
            turn,
            _arrived_s(event),
            self._cost(event),
            self._is_known(job.key_id),
            is_append=job.mode is Mode.APPEND,
        )
        superseded = self._state.queue.add(queued)
        self._state.events[queued.job_id] = event
        return (self._state.events.pop(superseded.job_id), supersede) if superseded else None

    def _cost(self, event: ObjectCreated) -> int:
        """Return the estimated cost of a training, in bytes of CSV."""
        try:
            size_bytes = self._trainer.store.info(event.name).size_bytes
        except ObjectNotFound:
            return OVERHEAD_BYTES
        return OVERHEAD_BYTES + size_bytes * (GZIP_RATIO if event.name.lower().endswith(".gz") else 1)

    def _is_known(self, key_id: str) -> bool:
        try:
            return rules.is_known(self._trainer.registry.get_key(key_id))
        except KeyNotFound:
            return False


def _arrived_s(event: ObjectCreated) -> float:
    moment = event.data_timestamp.partition("#")[0]
    return to_datetime(Timestamp(moment)).timestamp()
