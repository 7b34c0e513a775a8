"""Orders of trainings on AWS for the simulation in `fairness.py`: message groups of a FIFO queue, and turns."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import dataclass, field

from recsys.clock import Timestamp
from recsys.registry.table import Table
from recsys.registry.turns import ANONYMOUS, FileTurn, Turns
from recsys_local.scheduler import QueuedJob

_NOW = Timestamp("2026-03-01T12:00:00.000000Z")


@dataclass(slots=True)
class MessageGroups:
    """A FIFO queue of SQS: the oldest message whose group has none in flight.

    SQS documents the order only within a group. The oldest message is the order that FIFO suggests.
    """

    jobs: list[QueuedJob] = field(default_factory=list)
    running: set[str] = field(default_factory=set)

    def add(self, job: QueuedJob) -> QueuedJob | None:
        """Append a job."""
        self.jobs.append(job)

    def start(self) -> QueuedJob | None:
        """Return the oldest job whose group has none in flight."""
        job = next((job for job in self.jobs if _group(job) not in self.running), None)
        if job is not None:
            self.jobs.remove(job)
            self.running.add(_group(job))
        return job

    def finish(self, key_id: str, *, now_s: float) -> None:
        """Release the group of a key."""
        self.running.discard(key_id if key_id in self.running else ANONYMOUS)


class TurnsOnAws:
    """The code that runs on AWS, `recsys.registry.turns`, with a queue that keeps the order of its messages."""

    def __init__(self, table: Table) -> None:
        self._messages: deque[FileTurn] = deque()
        self._turns = Turns(table, self._send, lambda: _NOW)
        self._jobs: dict[str, QueuedJob] = {}
        self._waiting: dict[str, QueuedJob] = {}
        self._superseded: set[str] = set()
        self._running: dict[str, FileTurn] = {}

    def add(self, job: QueuedJob) -> QueuedJob | None:
        """Let a job wait for its turn. Return the waiting job of the same key that it makes obsolete."""
        turn = FileTurn(_group(job), f"{job.arrived_s:020.6f}#{job.job_id}")
        self._jobs[turn.file] = job
        previous = self._waiting.get(job.key_id)
        if previous is not None:
            self._superseded.add(previous.job_id)
        self._waiting[job.key_id] = job
        self._turns.wait(turn, {}, replaces=job.is_known)
        return previous

    def start(self) -> QueuedJob | None:
        """Return the job of the next message. Superseded jobs end at once."""
        while self._messages:
            turn = self._messages.popleft()
            job = self._jobs.pop(turn.file)
            if job.job_id not in self._superseded:
                self._running[job.key_id] = turn
                return job
            self._turns.end(turn)
        return None

    def finish(self, key_id: str, *, now_s: float) -> None:
        """End the turn of the running job of a key."""
        self._turns.end(self._running.pop(key_id))

    def _send(self, message: str) -> None:
        turn = FileTurn(**json.loads(message)["turn"])
        self._messages.append(turn)
        job = self._jobs[turn.file]
        if self._waiting.get(job.key_id) is job:
            del self._waiting[job.key_id]


def _group(job: QueuedJob) -> str:
    return job.key_id if job.is_known else ANONYMOUS
