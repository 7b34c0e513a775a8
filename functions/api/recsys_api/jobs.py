"""Jobs as their owner sees them: reading one, and waiting for one to end."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

import anyio.to_thread

from recsys.errors import JobNotFound, Unavailable
from recsys.keys.base62 import JOB_ID_LENGTH
from recsys.registry.records import Job, KeyRecord
from recsys.registry.registry import Registry

_JOB_ID: Final = re.compile(rf"[0-9A-Za-z]{{{JOB_ID_LENGTH}}}")
_FIRST_LOOK_S: Final = 0.1
_LAST_LOOK_S: Final = 0.5


def job_of_key(registry: Registry, key: KeyRecord, job_id: str) -> Job:
    """The job of that id.

    Raises
    ------
    JobNotFound
        There is none, or it is another key's; the message does not say which.
    """
    missing = JobNotFound("This key has no such job.", hint="Use the job_id that POST /v1/train returned.")
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
    """The job when nothing about it will change any more, or as it is after `timeout_s` (at once if negative).

    Neither a registry that does not answer nor a server that ends (it cancels what still waits) makes an error: the job
    was accepted, and the caller must learn its key.
    """
    deadline = timer() + timeout_s
    pause_s = _FIRST_LOOK_S
    while not job.state.is_final and (left_s := deadline - timer()) > 0:
        try:
            await sleep(min(pause_s, left_s))
        except asyncio.CancelledError:
            return job
        pause_s = min(pause_s * 1.5, _LAST_LOOK_S)
        try:
            job = await anyio.to_thread.run_sync(registry.get_job, job.job_id)
        except Unavailable:
            continue
    return job
