"""Decide which versions and objects are deleted and why, without accessing a store.

A version is deleted in two steps. The first step retires the version. A conditional write marks the row of the version
as deleted, so that the version can no longer be activated or published. Readers may still load the version during a
grace period. The second step then deletes the files. If a run is killed between the steps, the next run finds the mark
and continues. The mark stays for a month, so that a worker that was suspended cannot publish a version without files.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Self

from recsys.clock import DAY_S, Timestamp, after
from recsys.objects import layout
from recsys.objects.store import ObjectInfo
from recsys.registry import rules
from recsys.registry.audit import DEFAULT_DAYS
from recsys.registry.documents import is_expired
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import version_address
from recsys.registry.records import Job, JobState, ModelVersion
from recsys.registry.table import Change, Row

READER_GRACE_S: Final = 3600.0
"""Seconds for which a reader may still load a version that is no longer current. Loading a model takes far less time.
"""
UNKNOWN_DAYS: Final = 7
"""Days after which the files of a job are deleted if the registry does not know the job. Such files exist only if the
registry was lost, and the operator has this time to restore it."""
MARK_DAYS: Final = 30
"""Days after which the database may delete the row of a retired version."""


class Reason(StrEnum):
    """Reason why a version or an object is deleted, as a clause for logs and listings."""

    REVOKED = "its key was revoked"
    EXPIRED = "its key expired"
    ERASED = "it contains users who were erased"
    REPLACED = "newer versions replaced it"
    UNPUBLISHED = "its attempt published no version"
    UNKNOWN = "the registry does not know its job"
    RETIRED = "its version was retired and the grace period is over"
    OLD = "it is older than RECSYS_UPLOAD_DAYS"


@dataclass(frozen=True, slots=True)
class RetentionPolicy:
    """Rules for how long versions and uploads are kept.

    Parameters
    ----------
    versions_kept
        Versions per key that are kept besides the current one and the pinned ones, newest first.
    grace_s
        Seconds between the time at which a version is marked as deleted and the deletion of its files. It must exceed
        the time for which any reader caches the name of a version.
    upload_days
        Days after which uploads and receipts are deleted. None if the object store deletes them itself, as S3 does.
    audit_days
        Days for which the audit log keeps the event of a deletion.
    """

    versions_kept: int = 5
    grace_s: float = READER_GRACE_S
    upload_days: int | None = None
    audit_days: int = DEFAULT_DAYS

    @classmethod
    def of(cls, *, versions_kept: int, key_cache_s: float, upload_days: int | None, audit_days: int) -> Self:
        """Return the policy of a service whose readers cache the record of a key for `key_cache_s` seconds."""
        return cls(versions_kept, READER_GRACE_S + key_cache_s, upload_days, audit_days)


@dataclass(frozen=True, slots=True)
class Deletion:
    """A step of the cleanup, which either marks a version as deleted or deletes objects.

    Parameters
    ----------
    what
        Name of the object, or common prefix of the objects.
    reason
        Reason for the deletion.
    size_bytes
        Total size of the objects, in bytes. If the step marks a version as deleted, this is the size of the objects
        that a later run deletes after the grace period.
    mark
        Change that marks a version as deleted. If a concurrent writer changed the row, the version is kept. None if the
        step deletes objects.
    object_names
        Names of the objects to delete. Empty if the step marks a version as deleted.
    retired
        The published or held version that the step marks as deleted. None if the step deletes objects, or if the
        version was never published.
    """

    what: str
    reason: Reason
    size_bytes: int
    mark: Change | None = None
    object_names: tuple[str, ...] = ()
    retired: ModelVersion | None = None

    @property
    def is_mark(self) -> bool:
        """Whether this step only marks a version as deleted. A step of a later run deletes the files of the version."""
        return self.mark is not None


@dataclass(frozen=True, slots=True)
class KeyContents:
    """The records and objects of one key from which its deletions are planned.

    Parameters
    ----------
    key_id
        Id of the key.
    key
        Record of the key, even if the key has expired or is revoked. None if there is no record.
    rows
        Rows of the key's versions.
    files
        Objects under the prefix of each version, by version.
    jobs
        Jobs that wrote files of versions without a row, by job id. Jobs that the registry does not know are missing.
    catalogue
        Objects of the current and of previous item catalogues of the key.
    """

    key_id: str
    key: KeyRecord | None
    rows: Sequence[Row] = ()
    files: Mapping[str, Sequence[ObjectInfo]] = field(default_factory=dict)
    jobs: Mapping[str, Job] = field(default_factory=dict)
    catalogue: Sequence[ObjectInfo] = ()


def plan_versions(contents: KeyContents, policy: RetentionPolicy, now: Timestamp) -> list[Deletion]:
    """Return the steps that are due at `now` to delete versions of one key."""
    versions = [(row, ModelVersion.from_document(row.document)) for row in contents.rows if row.document is not None]
    live = [(row, version) for row, version in versions if version.deleted_at is None]
    marked = [version for _, version in versions if version.deleted_at is not None]
    return [
        *_purges(contents, marked, policy, now),
        *_retirements(contents, live, policy, now),
        *_leftovers(contents, {version.version for _, version in versions}, policy, now),
    ]


def plan_upload(
    upload: ObjectInfo, job: Job | None, key: KeyRecord | None, policy: RetentionPolicy, now: Timestamp
) -> Deletion | None:
    """Return the deletion of an upload that is due at `now`, or None if the upload is kept.

    An upload whose job is not final is kept, unless the key of the job has expired or is revoked.

    Parameters
    ----------
    upload
        The object.
    job, key
        Job of the upload, and key of that job. None if they do not exist.
    policy, now
        The retention policy and the current time.
    """
    if job is not None and upload.arrived_at <= after(now, -policy.grace_s):
        reason = reason_of_lost_key(key, policy, now)
        if reason is not None:
            return Deletion(upload.name, reason, upload.size_bytes, object_names=(upload.name,))
    if job is not None and not job.state.is_final:
        return None
    return plan_aged(upload, policy, now)


def plan_catalogue(contents: KeyContents, policy: RetentionPolicy, now: Timestamp) -> Deletion | None:
    """Return the deletion of a key's item catalogue, or None if the key is in use or has no catalogue."""
    reason = reason_of_lost_key(contents.key, policy, now)
    if reason is None or not contents.catalogue:
        return None
    names = tuple(info.name for info in contents.catalogue)
    return Deletion(
        layout.catalogue_prefix(contents.key_id), reason, _size_bytes(contents.catalogue), object_names=names
    )


def plan_aged(info: ObjectInfo, policy: RetentionPolicy, now: Timestamp) -> Deletion | None:
    """Return the deletion of an upload or a receipt if it is older than the policy allows, otherwise None."""
    if policy.upload_days is None or info.modified_at >= after(now, -policy.upload_days * DAY_S):
        return None
    return Deletion(info.name, Reason.OLD, info.size_bytes, object_names=(info.name,))


def reason_of_lost_key(key: KeyRecord | None, policy: RetentionPolicy, now: Timestamp) -> Reason | None:
    """Return the reason why the data of a key is no longer needed, or None if the key is in use.

    A key counts as expired only after its expiry and the grace period, because a process with a slow clock may make the
    key permanent after the expiry.
    """
    if key is None or is_expired(key.expires_at, after(now, -policy.grace_s)):
        return Reason.EXPIRED
    return Reason.REVOKED if key.revoked_at is not None else None


def _purges(
    contents: KeyContents, marked: Sequence[ModelVersion], policy: RetentionPolicy, now: Timestamp
) -> Iterator[Deletion]:
    """Yield the deletions of the files of versions that were marked as deleted at least a grace period ago."""
    for version in marked:
        infos = contents.files.get(version.version, ())
        if infos and version.deleted_at is not None and version.deleted_at <= after(now, -policy.grace_s):
            yield Deletion(
                layout.model_prefix(contents.key_id, version.version),
                Reason.RETIRED,
                _size_bytes(infos),
                object_names=tuple(info.name for info in infos),
            )


def _retirements(
    contents: KeyContents, live: Sequence[tuple[Row, ModelVersion]], policy: RetentionPolicy, now: Timestamp
) -> Iterator[Deletion]:
    """Yield one step for each version of a key that must be marked as deleted.

    If the key has expired or is revoked, these are all its versions. Otherwise, these are the versions with erased
    users and the versions in excess of `RetentionPolicy.versions_kept`.

    The current version is kept even if it contains erased users, because otherwise the key would have no model. A
    pinned version with erased users is not kept.
    """
    lost = reason_of_lost_key(contents.key, policy, now)
    if lost is not None or contents.key is None:
        for row, version in live:
            yield _retirement(contents, row, version, lost or Reason.EXPIRED, now)
        return
    others = [entry for entry in live if entry[1].version != contents.key.current_version]
    for row, version in others:
        if _has_erased_users(version, now):
            yield _retirement(contents, row, version, Reason.ERASED, now)
    unpinned = [entry for entry in others if entry[1].pinned_at is None and not _has_erased_users(entry[1], now)]
    newest_first = sorted(unpinned, key=lambda entry: (entry[1].created_at, entry[1].version), reverse=True)
    for row, version in newest_first[policy.versions_kept :]:
        yield _retirement(contents, row, version, Reason.REPLACED, now)


def _has_erased_users(version: ModelVersion, now: Timestamp) -> bool:
    """Return whether the version must be deleted by now because it contains users who were erased."""
    return version.erase_by is not None and version.erase_by <= now


def _leftovers(contents: KeyContents, known: set[str], policy: RetentionPolicy, now: Timestamp) -> Iterator[Deletion]:
    """Yield one step for each version that has files but no row in the registry.

    An attempt that was killed or lost its lease left such files. The step adds a row that marks the version as deleted,
    so that the attempt cannot publish it. Recent files, and files of an attempt that may still publish, are kept.
    """
    for name, infos in contents.files.items():
        if name in known:
            continue
        job = contents.jobs.get(job_id_of(name))
        grace_s = policy.grace_s if job is not None else UNKNOWN_DAYS * DAY_S
        is_recent = max(info.arrived_at for info in infos) > after(now, -grace_s)
        if is_recent or (job is not None and _may_publish(job, name, policy, now)):
            continue
        row = Row(version_address(contents.key_id, name))
        version = ModelVersion(contents.key_id, name, job_id_of(name), now, manifest_sha256="", metrics={})
        reason = Reason.UNPUBLISHED if job is not None else Reason.UNKNOWN
        yield _retirement(contents, row, version, reason, now)


def _may_publish(job: Job, version: str, policy: RetentionPolicy, now: Timestamp) -> bool:
    """Return whether the attempt that wrote the version may still publish it.

    The latest attempt of a running job may publish, unless its lease expired longer ago than the grace period.
    """
    is_leased = job.lease_until is None or job.lease_until > after(now, -policy.grace_s)
    return job.state is JobState.RUNNING and version == f"{job.job_id}.{job.fence}" and is_leased


def _retirement(contents: KeyContents, row: Row, version: ModelVersion, reason: Reason, now: Timestamp) -> Deletion:
    retired = rules.retired(version, now=now, kept_s=MARK_DAYS * DAY_S)
    return Deletion(
        layout.model_prefix(contents.key_id, version.version),
        reason,
        _size_bytes(contents.files.get(version.version, ())),
        mark=row.changed_to(retired.to_document()),
        retired=retired if row.document is not None else None,
    )


def job_id_of(version: str) -> str:
    """Return the id of the job that trained a version, which is the name of the version without the fence."""
    return version.rpartition(".")[0]


def _size_bytes(infos: Sequence[ObjectInfo]) -> int:
    return sum(info.size_bytes for info in infos)
