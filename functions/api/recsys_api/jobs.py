"""Look up a job for the owner of the job's key, and wait until the job is in a final state."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import anyio.to_thread

from recsys.errors import JobNotFound, Unavailable
from recsys.keys.base62 import JOB_ID_LENGTH
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job
from recsys.registry.registry import Registry

_JOB_ID: Final = re.compile(rf"[0-9A-Za-z]{{{JOB_ID_LENGTH}}}")
# Not tuned: small training jobs end within seconds, and one lookup takes a few milliseconds.
_FIRST_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 0.5
_PAUSE_GROWTH: Final = 1.5


@dataclass(frozen=True, slots=True)
class QueuePosition:
    """Position of a queued job, and its estimated waiting time.

    Parameters
    ----------
    position
        Position in the queue. The job that starts next has position 1.
    wait_s
        Estimated time until the job starts, in seconds. None if no estimate is possible yet.
    """

    position: int
    wait_s: int | None


FindPosition = Callable[[str], QueuePosition | None]
"""Function that returns the position of the job with the given id, or None if the position is unknown."""


def job_of_key(registry: Registry, key: KeyRecord, job_id: str) -> Job:
    """Return the job with this id if it belongs to `key`.

    Raises
    ------
    JobNotFound
        The job does not exist or belongs to another key. The message is the same in both cases.
    """
    missing = JobNotFound(
        "This key has no such job.", hint="Use the job_id from the response to the request that created the job."
    )
    if not _JOB_ID.fullmatch(job_id):
        raise missing
    try:
        job = registry.get_job(job_id)
    except JobNotFound:
        raise missing from None
    if job.key_id != key.key_id:
        raise missing
    return job


async def wait_until_final(
    registry: Registry,
    job: Job,
    *,
    timeout_s: float,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    timer: Callable[[], float] = time.monotonic,
) -> Job:
    """Poll a job until its state is final or `timeout_s` has elapsed, and return the job.

    An interrupted wait is not an error, because the job was accepted and the response must contain the new API key. If
    the registry does not respond, the function polls again. If the server cancels the request during a shutdown, the
    function returns early.

    Parameters
    ----------
    registry
        Registry that contains the job. It is read in a thread.
    job
        The job, as the caller read it last.
    timeout_s
        Longest time to wait, in seconds. If it is 0 or negative, `job` is returned at once.
    sleep, timer
        Pause function and monotonic clock; replaced in tests.

    Returns
    -------
    Job
        The job, as it was read last. Its state is final unless the time has elapsed or the request was cancelled.

    Examples
    --------
    >>> from recsys.registry.records import JobState
    >>> job = Job("job", "key", "uploads/job.csv", "2026-03-01T12:00:00.000000Z", "2026-03-01T12:00:00.000000Z")
    >>> asyncio.run(wait_until_final(None, job, timeout_s=0)).state is JobState.QUEUED
    True
    """
    deadline = timer() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while not job.state.is_final and (left_s := deadline - timer()) > 0:
        try:
            await sleep(min(pause_s, left_s))
        except asyncio.CancelledError:
            return job
        pause_s = min(pause_s * _PAUSE_GROWTH, _MAX_PAUSE_S)
        try:
            job = await anyio.to_thread.run_sync(registry.get_job, job.job_id)
        except Unavailable:
            continue
    return job
