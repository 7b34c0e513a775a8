"""Pure functions that check whether a change of a key, a job or a version is allowed, and return the changed record.

The functions neither read nor write rows. The methods of `Registry` write the changed records with conditional writes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from recsys.clock import Timestamp, after, to_datetime
from recsys.errors import (
    Gone,
    JobBusy,
    JobFinished,
    LeaseLost,
    Problem,
    TooManyPinnedVersions,
    VersionNotFound,
)
from recsys.file_options import Mode
from recsys.registry.key_record import KeyRecord, key_not_found
from recsys.registry.records import Assessment, Job, JobState, Lease, ModelVersion, Progress
from recsys.registry.scoped_keys import ScopedKey

MAX_PINNED_VERSIONS: Final = 10
"""Largest number of pinned versions per key, so that a key cannot fill the store."""


# -- keys


def rotated(key: KeyRecord, new_sha256: str, *, overlap_s: float, now: Timestamp) -> KeyRecord:
    """Return the key with a new secret. The previous secret stays valid for `overlap_s` seconds.

    Raises
    ------
    KeyNotFound
        The key is revoked.
    """
    check_not_revoked(key)
    return replace(
        key,
        revision=key.revision + 1,
        secret_sha256=new_sha256,
        previous_sha256=key.secret_sha256,
        previous_expires_at=after(now, overlap_s) if key.secret_sha256 is not None else None,
    )


def is_known(key: KeyRecord) -> bool:
    """Return whether the key is known, which means that it has a model or that the operator created it."""
    return key.current_version is not None or key.expires_at is None


def revoked(key: KeyRecord, *, now: Timestamp) -> KeyRecord:
    """Return the key with `now` as the time of its revocation. A revoked key is returned unchanged."""
    if key.revoked_at is not None:
        return key
    return replace(key, revision=key.revision + 1, revoked_at=now)


def with_first_secret(key: KeyRecord, secret_sha256: str) -> KeyRecord:
    """Return the key with its first secret. If the key has a model, its expiry is removed.

    Raises
    ------
    Gone
        The key already has a secret, or is revoked.
    """
    if key.secret_sha256 is not None or key.revoked_at is not None:
        raise claim_gone()
    expires_at = key.expires_at if key.current_version is None else None
    return replace(key, revision=key.revision + 1, secret_sha256=secret_sha256, expires_at=expires_at)


def with_scoped_keys(key: KeyRecord, scoped_keys: tuple[ScopedKey, ...]) -> KeyRecord:
    """Return the key with the given scoped keys, which replace its previous scoped keys."""
    return replace(key, revision=key.revision + 1, scoped_keys=scoped_keys) if scoped_keys != key.scoped_keys else key


def claim_gone() -> Gone:
    """Return the error that is raised for every kind of invalid claim token.

    The error is always the same, so that it does not reveal whether the token is unknown, used or expired.
    """
    return Gone("The claim token is unknown, used or expired.")


def activated(key: KeyRecord, version: ModelVersion, *, now: Timestamp) -> KeyRecord:
    """Return the key with `version` as its current version.

    A version that is trained on data from before `now` can no longer replace `version`.
    """
    # The timestamp never decreases, because arrival times come from other clocks, which may be ahead of this clock.
    data_timestamp = max(str(now), key.current_data_timestamp or "")
    return _pointing_to(key, version, data_timestamp=data_timestamp, replaced_data_timestamp=data_timestamp)


def unerased(version: ModelVersion, *, now: Timestamp) -> ModelVersion:
    """Return the version unchanged if it may still be used.

    Raises
    ------
    VersionNotFound
        The version contains erased users and should already be deleted.
    """
    if version.erase_by is not None and version.erase_by <= now:
        raise VersionNotFound(
            f"The model version {version.version!r} can no longer be used, because it contains erased users."
        )
    return version


def check_not_revoked(key: KeyRecord) -> None:
    """Check that the key is not revoked.

    Raises
    ------
    KeyNotFound
        The key is revoked.
    """
    if key.revoked_at is not None:
        raise key_not_found(key.key_id)


# -- jobs


def claimed(job: Job, *, owner: str, data_timestamp: str, lease_s: float, now: Timestamp) -> Job:
    """Return the job with its next attempt started. The fence is incremented, and the lease is new.

    Raises
    ------
    JobFinished
        The job is in a final state.
    JobBusy
        Another owner holds a lease that has not expired.
    """
    if job.state.is_final:
        raise JobFinished(f"The job {job.job_id} is already {job.state}.")
    is_leased = job.state is JobState.RUNNING and job.lease_until is not None and now < job.lease_until
    if is_leased and job.lease_owner != owner:
        raise JobBusy(f"Another worker holds the lease of the job {job.job_id} until {job.lease_until}.")
    was_killed = job.state is JobState.RUNNING and job.error_fence != job.fence
    return replace(
        job,
        state=JobState.RUNNING,
        fence=job.fence + 1,
        started_at=now,
        kills=job.kills + was_killed,
        killed_after_s=_lifetime_s(job) if was_killed else job.killed_after_s,
        lease_owner=owner,
        lease_until=after(now, lease_s),
        data_timestamp=job.data_timestamp if job.data_timestamp is not None else data_timestamp,
        updated_at=now,
        problem=None,
        progress=None,
    )


def _lifetime_s(job: Job) -> int:
    """Return the seconds from the start of the job's attempt to the last renewal of its lease."""
    if job.started_at is None:
        return 0
    return int((to_datetime(job.updated_at) - to_datetime(job.started_at)).total_seconds())


def with_reported_error(job: Job, *, now: Timestamp) -> Job:
    """Return the job with a note that its attempt reported an error, so that the attempt does not count as killed."""
    return replace(job, error_fence=job.fence, updated_at=now)


def check_lease(job: Job, lease: Lease) -> None:
    """Check that the attempt of the lease is still running.

    Raises
    ------
    LeaseLost
        The job is not running, or another attempt has started.
    """
    if job.state is not JobState.RUNNING or job.fence != lease.fence:
        raise lease_lost(lease)


def lease_lost(lease: Lease) -> LeaseLost:
    """Return the error for a worker that has lost its lease."""
    return LeaseLost(f"Attempt {lease.fence} of the job {lease.job.job_id} is no longer running.")


def renewed(job: Job, *, lease_s: float, progress: Progress | None, now: Timestamp) -> Job:
    """Return the job with an extended lease. If `progress` is None, the stored progress is kept."""
    return replace(job, lease_until=after(now, lease_s), updated_at=now, progress=progress or job.progress)


def released(job: Job, *, now: Timestamp) -> Job:
    """Return the job in the state `queued`, without counting the interrupted attempt."""
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
    """Return the job in the state `failed`, with `problem` as the cause."""
    return replace(_ended(job, JobState.FAILED, now), problem=problem, report=report)


def superseded(job: Job, *, now: Timestamp) -> Job:
    """Return the job in the state `superseded`, which means that its file is not used."""
    return _ended(job, JobState.SUPERSEDED, now)


def _ended(job: Job, state: JobState, now: Timestamp) -> Job:
    return replace(job, state=state, updated_at=now, lease_owner=None, lease_until=None)


# -- publishing


def is_stored(job: Job, version: ModelVersion) -> bool:
    """Return whether the job already ended with this version. If so, publishing the version again has no effect."""
    return job.state in (JobState.SUCCEEDED, JobState.HELD) and job.version == version.version


def may_publish(key: KeyRecord, job: Job) -> bool:
    """Return whether the model that the job trained may become the current version of `key`."""
    return key.revoked_at is None and not is_outdated(key, job)


def is_outdated(key: KeyRecord, job: Job) -> bool:
    """Return whether the current version of `key` makes the job's data obsolete.

    A file with mode `replace` is obsolete if any newer data was published. A file with mode `append` is obsolete only
    if a newer file with mode `replace` was published or if a version was activated later, because no added data may be
    lost.
    """
    newest = _replaced_data_timestamp(key) if job.mode is Mode.APPEND else key.current_data_timestamp
    return newest is not None and newest >= _data_timestamp(job)


def has_current_base(key: KeyRecord, version: ModelVersion, job: Job) -> bool:
    """Return whether the base version of `version` is still current. The result is always True for mode `replace`."""
    return job.mode is not Mode.APPEND or version.base_version == key.current_version


def succeeded(
    job: Job, version: ModelVersion, report: dict[str, Any], assessment: Assessment | None, *, now: Timestamp
) -> Job:
    """Return the job with `version`, in the state `succeeded`, or `held` if the assessment has reasons to hold it."""
    is_held = assessment is not None and bool(assessment.held_reasons)
    return replace(
        _ended(job, JobState.HELD if is_held else JobState.SUCCEEDED, now),
        version=version.version,
        metrics=version.metrics,
        report=report,
        comparison=assessment.comparison if assessment is not None else None,
        held_reasons=assessment.held_reasons if assessment is not None and is_held else None,
    )


def validated(job: Job, report: dict[str, Any], *, now: Timestamp) -> Job:
    """Return the job in the state `succeeded`, with a data report and without a version."""
    return replace(_ended(job, JobState.SUCCEEDED, now), report=report)


def published(key: KeyRecord, version: ModelVersion, job: Job) -> KeyRecord:
    """Return the key with `version` as its current version. If the key has a secret, its expiry is removed."""
    expires_at = key.expires_at if key.secret_sha256 is None else None
    data_timestamp = max(_data_timestamp(job), key.current_data_timestamp or "")
    replaced = _replaced_data_timestamp(key) or "" if job.mode is Mode.APPEND else data_timestamp
    pointing = _pointing_to(key, version, data_timestamp=data_timestamp, replaced_data_timestamp=replaced)
    return replace(pointing, expires_at=expires_at)


def _replaced_data_timestamp(key: KeyRecord) -> str | None:
    """Return the data timestamp of the last file with mode `replace`, or the time of the last activation.

    Releases without the mode `append` did not store this time. For their records, the result is the timestamp of the
    current version.
    """
    return key.current_data_timestamp if key.replaced_data_timestamp is None else key.replaced_data_timestamp


def outcome(
    key: KeyRecord, version: ModelVersion, job: Job, assessment: Assessment | None
) -> tuple[ModelVersion, KeyRecord]:
    """Return the version to store, and the changed key.

    The version is current in the changed key unless the assessment has reasons to hold it.
    """
    if assessment is not None and assessment.held_reasons:
        return replace(version, held_reasons=assessment.held_reasons), key
    return version, published(key, version, job)


def retired(version: ModelVersion, *, now: Timestamp, kept_s: float) -> ModelVersion:
    """Return the version marked as deleted. The record remains for `kept_s` seconds, without the metrics."""
    return replace(version, metrics={}, pinned_at=None, deleted_at=now, expires_at=after(now, kept_s))


def pinned(version: ModelVersion, *, others: Sequence[ModelVersion], now: Timestamp) -> ModelVersion:
    """Return the version with `now` as the time at which it was pinned. A pinned version is returned unchanged.

    Raises
    ------
    TooManyPinnedVersions
        At least `MAX_PINNED_VERSIONS` of the `others` are pinned.
    """
    if version.pinned_at is not None:
        return version
    n_pinned = sum(other.pinned_at is not None for other in others)
    if n_pinned >= MAX_PINNED_VERSIONS:
        raise TooManyPinnedVersions(f"The key has {n_pinned} pinned versions, which is the limit.")
    return replace(version, pinned_at=now)


def unpinned(version: ModelVersion) -> ModelVersion:
    """Return the version without the time at which it was pinned."""
    return replace(version, pinned_at=None)


def _data_timestamp(job: Job) -> str:
    """Return the timestamp that the first claim set.

    Without a timestamp, return an empty text, which is older than any timestamp.
    """
    return job.data_timestamp or ""


def _pointing_to(
    key: KeyRecord, version: ModelVersion, *, data_timestamp: str, replaced_data_timestamp: str
) -> KeyRecord:
    return replace(
        key,
        revision=key.revision + 1,
        current_version=version.version,
        current_manifest_sha256=version.manifest_sha256,
        current_data_timestamp=data_timestamp,
        replaced_data_timestamp=replaced_data_timestamp,
        current_erasures=version.erasures,
        excluded_items=version.excluded_items,
    )
