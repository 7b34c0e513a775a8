"""Orders of trainings on AWS for the simulation in `fairness.py`: message groups of a FIFO queue, and turns."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from recsys.clock import Timestamp
from recsys.registry.table import Address, Change, Row
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


class MemoryTable:
    """The rows of the registry in memory. Their etags are numbers."""

    def __init__(self) -> None:
        self._rows: dict[str, dict[str, Row]] = {}
        self._n_writes = 0

    def get(self, address: Address) -> Row:
        """Return the row at an address."""
        return self._rows.get(address.partition, {}).get(address.sort, Row(address))

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        """Return the rows of a partition whose `sort` has a prefix."""
        return [row for sort, row in self._rows.get(partition, {}).items() if sort.startswith(sort_prefix)]

    def list_latest(self, partition: str, sort_prefix: str, *, before: str | None, limit: int) -> Sequence[Row]:
        """Turns do not need it."""
        raise NotImplementedError

    def write(self, changes: Sequence[Change]) -> bool:
        """Apply all changes, or none."""
        if any(self.get(change.address).etag != change.etag for change in changes):
            return False
        for change in changes:
            partition = self._rows.setdefault(change.address.partition, {})
            partition.pop(change.address.sort, None)
            if change.document is not None:
                self._n_writes += 1
                partition[change.address.sort] = Row(change.address, change.document, str(self._n_writes))
        return True


class TurnsOnAws:
    """The code that runs on AWS, `recsys.registry.turns`, over a table in memory and a queue that keeps the order."""

    def __init__(self) -> None:
        self._messages: deque[FileTurn] = deque()
        self._turns = Turns(MemoryTable(), self._send, lambda: _NOW)
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
