"""The registry's decisions: given records and the time, what may happen and what the records become.

Nothing here reads or writes. `recsys.registry.registry` applies the rules, each together with a conditional write.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from recsys.clock import Timestamp, after
from recsys.errors import Gone, JobBusy, JobFinished, KeyNotFound, LeaseLost, Problem
from recsys.registry.records import Job, JobState, KeyRecord, Lease, ModelVersion, Progress


def is_expired(expires_at: Timestamp | None, now: Timestamp) -> bool:
    """Whether something that expires at `expires_at` (None: never) counts as absent."""
    return expires_at is not None and expires_at <= now


# -- keys


def rotated(key: KeyRecord, new_sha256: str, *, overlap_s: float, now: Timestamp) -> KeyRecord:
    """The key with a new secret, and the one before for `overlap_s` more."""
    check_not_revoked(key)
    return replace(
        key,
        revision=key.revision + 1,
        secret_sha256=new_sha256,
        previous_sha256=key.secret_sha256,
        previous_expires_at=after(now, overlap_s) if key.secret_sha256 is not None else None,
    )


def revoked(key: KeyRecord, *, now: Timestamp) -> KeyRecord:
    """The key, invalid for good; unchanged when it was so before."""
    if key.revoked_at is not None:
        return key
    return replace(key, revision=key.revision + 1, revoked_at=now)


def with_first_secret(key: KeyRecord, secret_sha256: str) -> KeyRecord:
    """The key of a drop, claimed; having a model, it stays.

    Raises
    ------
    Gone
        The key has a secret already, or is revoked.
    """
    if key.secret_sha256 is not None or key.revoked_at is not None:
        raise claim_gone()
    expires_at = key.expires_at if key.current_version is None else None
    return replace(key, revision=key.revision + 1, secret_sha256=secret_sha256, expires_at=expires_at)


def claim_gone() -> Gone:
    """The one answer to every claim token that does not work."""
    return Gone("The claim token is unknown, used or expired.")


def activated(key: KeyRecord, version: ModelVersion, *, now: Timestamp) -> KeyRecord:
    """The key with `version` as its current one; data that arrived before `now` cannot replace it."""
    # Never backwards: arrival times come from other clocks, and one may be ahead of this one.
    return _pointing_to(key, version, source=max(str(now), key.current_data_timestamp or ""))


def check_not_revoked(key: KeyRecord) -> None:
    """Raise `KeyNotFound` for a revoked key: nothing can be changed about it."""
    if key.revoked_at is not None:
        raise key_not_found(key.key_id)


def key_not_found(key_id: str) -> KeyNotFound:
    """There is no such key that could be used."""
    return KeyNotFound(f"There is no key with the id {key_id!r}, or it was revoked.")


# -- jobs


def claimed(job: Job, *, owner: str, data_timestamp: str, lease_s: float, now: Timestamp) -> Job:
    """The job as `owner`'s next attempt, its fence one higher.

    Raises
    ------
    JobFinished, JobBusy
    """
    if job.state.is_final:
        raise JobFinished(f"The job {job.job_id} is {job.state} already.")
    lease_runs = job.state is JobState.RUNNING and job.lease_until is not None and now < job.lease_until
    if lease_runs and job.lease_owner != owner:
        raise JobBusy(f"Another worker has the job {job.job_id} until {job.lease_until}.")
    return replace(
        job,
        state=JobState.RUNNING,
        fence=job.fence + 1,
        lease_owner=owner,
        lease_until=after(now, lease_s),
        data_timestamp=job.data_timestamp if job.data_timestamp is not None else data_timestamp,
        updated_at=now,
        problem=None,
        progress=None,
    )


def check_lease(job: Job, lease: Lease) -> None:
    """Raise `LeaseLost` unless the job still runs as this lease's attempt."""
    if job.state is not JobState.RUNNING or job.fence != lease.fence:
        raise lease_lost(lease)


def lease_lost(lease: Lease) -> LeaseLost:
    """The job is not this lease's any more."""
    return LeaseLost(f"Attempt {lease.fence} of the job {lease.job.job_id} is not the running one any more.")


def renewed(job: Job, *, lease_s: float, progress: Progress | None, now: Timestamp) -> Job:
    """The job with a later end of its lease; without `progress` it keeps the one it has."""
    return replace(job, lease_until=after(now, lease_s), updated_at=now, progress=progress or job.progress)


def released(job: Job, *, now: Timestamp) -> Job:
    """Return the job as queued again, without counting the interrupted attempt."""
    return replace(
        job,
        state=JobState.QUEUED,
        interruptions=job.interruptions + 1,
        lease_owner=None,
        lease_until=None,
        updated_at=now,
        progress=None,
    )


def failed(job: Job, problem: Problem, report: dict[str, Any] | None, *, now: Timestamp) -> Job:
    """The job, ended by `problem`."""
    return replace(_ended(job, JobState.FAILED, now), problem=problem, report=report)


def superseded(job: Job, *, now: Timestamp) -> Job:
    """The job, ended because newer data won."""
    return _ended(job, JobState.SUPERSEDED, now)


def _ended(job: Job, state: JobState, now: Timestamp) -> Job:
    return replace(job, state=state, updated_at=now, lease_owner=None, lease_until=None)


# -- publishing


def is_published(job: Job, version: ModelVersion) -> bool:
    """Whether the job succeeded with this very version: then publishing it again changes nothing."""
    return job.state is JobState.SUCCEEDED and job.version == version.version


def may_publish(key: KeyRecord | None, job: Job) -> bool:
    """Whether what the job makes may become the current version of `key` (None: gone)."""
    if key is None or key.revoked_at is not None:
        return False
    return key.current_data_timestamp is None or key.current_data_timestamp < source_of(job)


def source_of(job: Job) -> str:
    """The order of the job's data; the first claim set it."""
    return job.data_timestamp or ""


def succeeded(job: Job, version: ModelVersion, report: dict[str, Any], *, now: Timestamp) -> Job:
    """The job, ended by publishing `version`."""
    return replace(
        _ended(job, JobState.SUCCEEDED, now), version=version.version, metrics=version.metrics, report=report
    )


def published(key: KeyRecord, version: ModelVersion, job: Job) -> KeyRecord:
    """The key with the job's `version` as its current one; having a model, it stays, unless it waits to be claimed."""
    expires_at = key.expires_at if key.secret_sha256 is None else None
    return replace(_pointing_to(key, version, source=source_of(job)), expires_at=expires_at)


def _pointing_to(key: KeyRecord, version: ModelVersion, *, source: str) -> KeyRecord:
    return replace(
        key,
        revision=key.revision + 1,
        current_version=version.version,
        current_manifest_sha256=version.manifest_sha256,
        current_data_timestamp=source,
    )
