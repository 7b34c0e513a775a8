"""Wait for the outcome of a job within the request that created the job."""

from __future__ import annotations

from fastapi import Request

from recsys.http.middleware import request_context
from recsys.registry.records import Job
from recsys.registry.registry import Registry
from recsys_api import jobs, prefer


async def waited(request: Request, registry: Registry, job: Job, *, max_wait_s: int) -> tuple[Job, dict[str, str]]:
    """Wait until a job is in a final state, but no longer than the `Prefer` header requests and `max_wait_s` permits.

    The job and its key are added to the request's log line.

    Returns
    -------
    Job
        The job after the wait.
    dict
        Headers for the response. They contain `Preference-Applied`, or nothing if no wait was requested.
    """
    context = request_context(request.scope)
    context.key_id, context.job_id = job.key_id, job.job_id
    wait_s = prefer.wait_s(request.headers.getlist("prefer"))
    if not wait_s:
        return job, {}
    wait_s = min(wait_s, max_wait_s)
    # The time for storing the file is part of the wait, because API Gateway limits the duration of the whole request.
    job = await jobs.wait_until_final(registry, job, timeout_s=wait_s - context.elapsed_s)
    return job, {"Preference-Applied": f"wait={wait_s}"}
