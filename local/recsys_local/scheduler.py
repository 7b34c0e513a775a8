"""Decide which training job starts next, so that no tenant waits long because of another tenant.

Keys take turns, so that no key starts a second job while another key waits for its first job. A turn of a key is one
training job. Among the keys that may have the next turn, fair queueing by the estimated cost of the jobs decides. This
module does no I/O.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_SIMULATED: Final = 100
"""Number of positions that are computed exactly. A simulation of 1,000 waiting jobs would take half a second."""


@dataclass(frozen=True, slots=True)
class QueuedJob:
    """A job that waits for its training.

    Parameters
    ----------
    job_id, key_id
        Id of the job, and id of its key.
    arrived_s
        Time at which the file of the job arrived, in seconds since 1970.
    cost
        Estimated cost, in any unit. The worker passes the size of the CSV in bytes.
    is_known
        Whether the key has a model or was created by the operator. All other keys are anonymous. Their number is not
        limited, because every request without a key creates one.
    is_append
        Whether the file is added to the interactions of its key. A newer job never supersedes such a job.
    """

    job_id: str
    key_id: str
    arrived_s: float
    cost: float
    is_known: bool
    is_append: bool = False


class FairQueue:
    """The queue of waiting jobs.

    A *known key* has a model or was created by the operator. All other keys are *anonymous keys*. Only the first
    waiting job of each key takes part in the order. The other jobs of the key wait until this job has started.

    These rules choose the next job, in this order:

    1. **Turns.** While a key waits, every other key gets at most one turn, which is one training job. A job that is
       already running counts as this turn. A known key therefore waits at most (number of keys with jobs) × (longest
       training).
    2. **One turn for all anonymous keys.** In rule 1, all anonymous keys together count as one key. A flood of
       anonymous jobs therefore delays a known key by at most one training job, and anonymous keys still get turns.
    3. **Fair queueing by cost.** Among the keys that may have a turn, the key with the smallest finish tag is next. A
       finish tag is the sum of the cost of the job and the start tag of the key. The start tag is the later of the
       key's previous finish tag and the current virtual time (self-clocked fair queueing, Golestani, INFOCOM 1994). A
       small job can overtake a large job, but only once per key.

    The file of a job either contains all data of a key (a complete file) or is added to the interactions of the key. If
    a key already has a waiting job with a complete file, a newer job with a complete file replaces this job and takes
    over its position in the order. A job with a complete file precedes the jobs of its key that add a file. Jobs that
    add a file keep their order and are never replaced. A key has at most one running job. Several workers can take jobs
    from one queue, and the same rules hold for every free worker.

    Examples
    --------
    >>> queue = FairQueue()
    >>> for job_id, key_id, cost in (("a1", "a", 900), ("b1", "b", 1)):
    ...     queue.add(QueuedJob(job_id, key_id, arrived_s=0, cost=cost, is_known=True))
    >>> queue.start().job_id
    'b1'
    >>> queue.finish("b", now_s=1)
    >>> queue.add(QueuedJob("b2", "b", arrived_s=1, cost=1, is_known=True))
    >>> queue.start().job_id  # b had a turn while a waited, so a is next
    'a1'
    """

    def __init__(self) -> None:
        self._known = _KeyClass()
        self._anonymous = _KeyClass()
        self._following: dict[str, list[QueuedJob]] = {}
        """Jobs that add a file and wait for another job of the key, by key id, in order of arrival."""

    def __len__(self) -> int:
        following = sum(map(len, self._following.values()))
        return len(self._known.waiting) + len(self._anonymous.waiting) + following

    def add(self, job: QueuedJob) -> QueuedJob | None:
        """Add a job. Return the superseded job, which can be the added job. Return None if no job is superseded."""
        previous = self._class_of(job.key_id).waiting.get(job.key_id)
        if previous is not None and (job.is_append or previous.is_append):
            follower, first = (previous, job) if _precedes(job, previous) else (job, previous)
            followers = [*self._following.get(job.key_id, ()), follower]
            self._following[job.key_id] = sorted(followers, key=lambda each: each.arrived_s)
            if first is job:
                self._put(job, previous)
            return None
        if previous is not None and previous.arrived_s > job.arrived_s:
            return job
        self._put(job, previous)
        return previous

    def _put(self, job: QueuedJob, previous: QueuedJob | None) -> None:
        """Add `job` to the waiting jobs. If `previous` is given, `job` takes over the position of `previous`."""
        # While an anonymous key trains its first model, the next job of the key stays among the anonymous jobs, so that
        # only one of the two jobs runs.
        keys = self._known if job.is_known and job.key_id not in self._anonymous.running else self._anonymous
        if previous is not None and job.key_id not in keys.waiting:
            for each in (self._known, self._anonymous):
                each.remove(job.key_id)
        keys.add(job)

    def remove(self, key_id: str) -> None:
        """Remove the waiting jobs of a key, for example because their files were deleted."""
        self._following.pop(key_id, None)
        for keys in (self._known, self._anonymous):
            keys.remove(key_id)

    def start(self) -> QueuedJob | None:
        """Remove and return the next job, or return None if no waiting job may start.

        Call `finish` when the job ends.
        """
        job = self._next()
        if job is not None:
            self._class_of(job.key_id).start(job.key_id)
            if followers := self._following.pop(job.key_id, None):
                self.add(followers[0])
                if followers[1:]:
                    self._following[job.key_id] = followers[1:]
        return job

    def finish(self, key_id: str, *, now_s: float) -> None:
        """Record that the running job of a key has ended, regardless of its outcome."""
        for keys in (self._known, self._anonymous):
            keys.finish(key_id, now_s=now_s)
        if not any(keys.waiting or keys.running for keys in (self._known, self._anonymous)):
            self._known.forget()
            self._anonymous.forget()

    def to_json(self) -> dict[str, Any]:
        """Return the queue as a JSON object."""
        return {
            "known": self._known.to_json(),
            "anonymous": self._anonymous.to_json(),
            "following": {key_id: [asdict(job) for job in jobs] for key_id, jobs in self._following.items()},
        }

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Restore a queue from the JSON object that `to_json` returned."""
        queue = cls()
        queue._known = _KeyClass.from_json(document["known"])
        queue._anonymous = _KeyClass.from_json(document["anonymous"])
        queue._following = {
            key_id: [QueuedJob(**job) for job in jobs] for key_id, jobs in document["following"].items()
        }
        return queue

    def in_order(self) -> list[QueuedJob]:
        """Return the waiting jobs in the order in which they will start if no other job arrives.

        The first `MAX_SIMULATED` positions are exact. The other positions are estimates.
        """
        ahead = list(islice(self._copy()._simulated(), MAX_SIMULATED))
        listed = {job.job_id for job in ahead}
        rest = [
            job
            for keys in (self._known, self._anonymous)
            for job in sorted(keys.waiting.values(), key=lambda job: keys.finish_tag(job.key_id))
        ]
        following = [job for followers in self._following.values() for job in followers]
        return ahead + [job for job in rest + following if job.job_id not in listed]

    def _next(self) -> QueuedJob | None:
        waits_since_s = self._anonymous.waits_since_s()
        return self._known.next(unless_since_s=waits_since_s) or self._anonymous.next() or self._known.next()

    def _class_of(self, key_id: str) -> _KeyClass:
        return self._known if key_id in self._known.waiting else self._anonymous

    def _simulated(self) -> Iterator[QueuedJob]:
        now_s = 0.0
        for keys in (self._known, self._anonymous):
            for key_id in list(keys.running):
                keys.finish(key_id, now_s=keys.latest_s())
            now_s = max(now_s, keys.latest_s())
        while (job := self.start()) is not None:
            yield job
            now_s += 1.0
            self.finish(job.key_id, now_s=now_s)

    def _copy(self) -> Self:
        copy = type(self)()
        copy._known, copy._anonymous = self._known.copy(), self._anonymous.copy()
        copy._following = dict(self._following)
        return copy


def _precedes(job: QueuedJob, other: QueuedJob) -> bool:
    """Return whether a job precedes another job of its key.

    A job whose file contains all data of the key precedes the jobs that add a file. Among jobs of the same kind, the
    job that arrived first precedes.
    """
    return (job.is_append, job.arrived_s) < (other.is_append, other.arrived_s)


@dataclass(slots=True)
class _KeyClass:
    """The waiting and running jobs of one class of keys, which is either all known keys or all anonymous keys."""

    waiting: dict[str, QueuedJob] = field(default_factory=dict)
    running: set[str] = field(default_factory=set)
    start_tags: dict[str, float] = field(default_factory=dict)
    """Virtual time at which the wait of each key began, or the previous finish tag of the key if it is later."""
    finish_tags: dict[str, float] = field(default_factory=dict)
    """Finish tag of the last started job of each key."""
    turn_ended_s: dict[str, float] = field(default_factory=dict)
    since_s: dict[str, float] = field(default_factory=dict)
    """Time at which the wait of each key began."""
    virtual_time: float = 0.0
    class_turn_ended_s: float = -math.inf

    def add(self, job: QueuedJob) -> None:
        self.waiting[job.key_id] = job
        self.since_s.setdefault(job.key_id, job.arrived_s)
        previous_tag = self.finish_tags.get(job.key_id, 0.0)
        self.start_tags.setdefault(job.key_id, max(self.virtual_time, previous_tag))

    def remove(self, key_id: str) -> None:
        for member in (self.waiting, self.start_tags, self.since_s):
            member.pop(key_id, None)

    def start(self, key_id: str) -> None:
        self.virtual_time = max(self.virtual_time, self.finish_tag(key_id))
        self.finish_tags[key_id] = self.finish_tag(key_id)
        self.remove(key_id)
        self.running.add(key_id)

    def finish(self, key_id: str, *, now_s: float) -> None:
        if key_id not in self.running:
            return
        self.running.remove(key_id)
        self.turn_ended_s[key_id] = self.class_turn_ended_s = now_s

    def forget(self) -> None:
        """Forget past turns. When no job waits or runs, past turns have no effect on keys that arrive later."""
        self.turn_ended_s.clear()
        self.finish_tags.clear()
        self.virtual_time = 0.0

    def next(self, *, unless_since_s: float = math.inf) -> QueuedJob | None:
        """Return the job with the smallest finish tag among the eligible keys, or None if no key is eligible.

        A key with a running job is not eligible. A key is also not eligible if one of its jobs has ended since another
        key of its class began to wait, or since the other class began to wait, at `unless_since_s`.
        """
        waits = {key_id: self._waits_since_s(key_id) for key_id in self.waiting if key_id not in self.running}
        first, second = [*sorted(waits.values())[:2], math.inf, math.inf][:2]
        allowed = []
        for key_id, since_s in waits.items():
            others_since_s = min(second if since_s == first else first, unless_since_s)
            if self.turn_ended_s.get(key_id, -math.inf) <= others_since_s:
                allowed.append(key_id)
        if not allowed:
            return None
        return self.waiting[min(allowed, key=lambda key_id: (self.finish_tag(key_id), waits[key_id], key_id))]

    def finish_tag(self, key_id: str) -> float:
        return self.start_tags[key_id] + self.waiting[key_id].cost

    def waits_since_s(self) -> float:
        """Return the time at which the class of keys began to wait for a turn, in seconds since 1970.

        A turn is one training job. The result is infinity if a job of the class is running, or if no key of the class
        waits for a turn.
        """
        waits = [self._waits_since_s(key_id) for key_id in self.waiting if key_id not in self.running]
        if not waits or self.running:
            return math.inf
        return max(min(waits), self.class_turn_ended_s)

    def latest_s(self) -> float:
        """Return the latest time at which a key of the class began to wait or a turn of the class ended."""
        return max((self.class_turn_ended_s, *self.since_s.values(), 0.0))

    def copy(self) -> _KeyClass:
        return _KeyClass(
            dict(self.waiting),
            set(self.running),
            dict(self.start_tags),
            dict(self.finish_tags),
            dict(self.turn_ended_s),
            dict(self.since_s),
            self.virtual_time,
            self.class_turn_ended_s,
        )

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "running": sorted(self.running)}

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        waiting = {key_id: QueuedJob(**job) for key_id, job in document["waiting"].items()}
        return cls(**{**document, "waiting": waiting, "running": set(document["running"])})

    def _waits_since_s(self, key_id: str) -> float:
        return max(self.since_s[key_id], self.turn_ended_s.get(key_id, -math.inf))
