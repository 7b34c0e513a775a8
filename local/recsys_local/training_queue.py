"""The queue of the training worker: files that the watcher finds, in the order that the scheduler decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from recsys.clock import Timestamp, to_datetime
from recsys.errors import KeyNotFound, ObjectNotFound
from recsys.file_options import Mode
from recsys.registry.records import Job, JobPurpose
from recsys_local.queue_file import QueueFile, QueuePosition
from recsys_local.scheduler import FairQueue, QueuedJob
from recsys_local.watcher import ObjectWatcher
from recsys_train.events import ObjectCreated, find_or_create_job, process, supersede
from recsys_train.job import Trainer

EndJob = Callable[[ObjectCreated, Trainer], Job | None]
"""Ends the job of an object and returns it."""

GZIP_RATIO: Final = 8
"""Assumed bytes of CSV per byte of its gzip file; the bundled sample has 8.2."""
OVERHEAD_BYTES: Final = 1_000_000
"""Cost of every training however small its file: about two seconds, in which 1 MB of CSV is read and fitted."""


class TrainingQueue:
    """Files that wait for their training.

    The queue is not stored, because after a restart the watcher finds the same files again, and the registry contains
    the jobs that are done.

    Parameters
    ----------
    trainer
        Finds or creates the jobs of the files.
    watcher
        Finds the files.
    queue_file
        File in which the position of each job is published.
    """

    def __init__(self, trainer: Trainer, watcher: ObjectWatcher, queue_file: QueueFile) -> None:
        self._trainer = trainer
        self._watcher = watcher
        self._queue_file = queue_file
        self._queue = FairQueue()
        self._events: dict[str, ObjectCreated] = {}
        self._running: QueuedJob | None = None
        self._started_s = 0.0
        self._trained_s = self._trained_cost = 0.0

    def look(self) -> list[tuple[ObjectCreated, EndJob]]:
        """Add new files to the queue.

        Returns
        -------
        list of (ObjectCreated, EndJob)
            Files that need no training, with the function that ends their job: files whose job is in a final state,
            because its receipt may be missing, and files that a newer file of the same key supersedes.

        Raises
        ------
        Unavailable
            The data directory or the registry cannot be read.
        """
        waiting = {(event.name, event.version) for event in self._events.values()}
        new = [event for event in self._watcher.look() if (event.name, event.version) not in waiting]
        ended = [step for event in new if (step := self._add(event)) is not None]
        if new:
            self._publish()
        return ended

    def start(self) -> ObjectCreated | None:
        """Remove and return the file whose turn it is, or None if there is none. Call `finish` after its training."""
        job = self._queue.start()
        if job is None:
            return None
        self._running, self._started_s = job, time.monotonic()
        self._publish()
        return self._events.pop(job.job_id)

    def finish(self) -> None:
        """Record that the training on the started file ended. If it failed, the watcher finds the file again."""
        assert self._running is not None
        self._trained_s += time.monotonic() - self._started_s
        self._trained_cost += self._running.cost
        self._queue.finish(self._running.key_id, now_s=time.time())
        self._running = None
        self._publish()

    def _add(self, event: ObjectCreated) -> tuple[ObjectCreated, EndJob] | None:
        job = find_or_create_job(event, self._trainer)
        if job is None:
            self._watcher.mark_done(event)
            return None
        if job.state.is_final:
            return event, process
        # Validations have separate turns, so that a validation and a training of a key do not supersede each other.
        turn = job.key_id if job.purpose is JobPurpose.TRAIN else f"{job.key_id}/{job.purpose}"
        queued = QueuedJob(
            job.job_id,
            turn,
            _arrived_s(event),
            self._cost(event),
            self._is_known(job.key_id),
            is_append=job.mode is Mode.APPEND,
        )
        superseded = self._queue.add(queued)
        self._events[queued.job_id] = event
        return (self._events.pop(superseded.job_id), supersede) if superseded else None

    def _cost(self, event: ObjectCreated) -> int:
        """Estimate the cost of a training, in bytes of CSV."""
        try:
            size_bytes = self._trainer.store.info(event.name).size_bytes
        except ObjectNotFound:
            return OVERHEAD_BYTES
        return OVERHEAD_BYTES + size_bytes * (GZIP_RATIO if event.name.lower().endswith(".gz") else 1)

    def _is_known(self, key_id: str) -> bool:
        """Return whether the key has a model, or was created by the operator and therefore never expires."""
        try:
            key = self._trainer.registry.get_key(key_id)
        except KeyNotFound:
            return False
        return key.current_version is not None or key.expires_at is None

    def _publish(self) -> None:
        places: dict[str, QueuePosition] = {}
        cost_ahead = self._running.cost if self._running else 0.0
        for position, job in enumerate(self._queue.in_order(), start=1):
            wait_s = cost_ahead * self._trained_s / self._trained_cost if self._trained_cost else None
            places[job.job_id] = QueuePosition(position, None if wait_s is None else round(wait_s))
            cost_ahead += job.cost
        self._queue_file.write(places)


def _arrived_s(event: ObjectCreated) -> float:
    moment = event.data_timestamp.partition("#")[0]
    return to_datetime(Timestamp(moment)).timestamp()
