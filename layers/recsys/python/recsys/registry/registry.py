"""Registry of keys, jobs and model versions, over any database that implements `Table`.

Every operation is an optimistic transaction: it reads rows, decides by `recsys.registry.rules` what they become, and
writes the result on the condition that no row has changed. If a row has changed, it starts over.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, TypeVar

from recsys.clock import Clock, Timestamp, utc_now
from recsys.errors import JobNotFound, KeyExists, KeyNotFound, Problem, Unavailable, VersionNotFound
from recsys.registry import rules, scoped_keys
from recsys.registry.reading import (
    VERSION_PREFIX,
    claim_address,
    job_address,
    key_address,
    read_key,
    unexpired,
    version_address,
)
from recsys.registry.records import Job, KeyRecord, Lease, ModelVersion, Progress
from recsys.registry.scoped_keys import ScopedKey
from recsys.registry.table import Change, Row, Table

T = TypeVar("T")
Decision = Callable[[Timestamp], tuple[T, list[Change]]]
"""Reads rows and returns the result of an operation with the changes to write. It is called again after a conflict."""

# Not tuned. A conflict means that another writer made progress, so this many in a row indicate a bug.
_COMMIT_ATTEMPTS: Final = 50


class Published(StrEnum):
    """Outcome of a publication."""

    CURRENT = "current"
    """The version is now the one that is served."""
    SUPERSEDED = "superseded"
    """The current version of the key is based on newer data, or the key is revoked. The version was not published."""


class Registry:
    """Keys, jobs and model versions, stored in a `Table`.

    Every method raises `Unavailable` if the database does not respond.

    Parameters
    ----------
    table
        The database.
    clock
        Returns the current time.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from recsys.registry.sqlite import SqliteTable
    >>> with TemporaryDirectory() as folder:
    ...     table = SqliteTable(Path(folder) / "registry.sqlite3")
    ...     registry = Registry(table)
    ...     registry.create_key(KeyRecord("key1", utc_now()))
    ...     registry.get_key("key1").revision
    ...     table.close()
    0
    """

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self._table = table
        self._clock = clock

    # -- keys

    def create_key(self, key: KeyRecord) -> None:
        """Store a new key.

        Raises
        ------
        KeyExists
            If a key with the same id exists and has not expired. It remains unchanged.
        """

        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row = self._table.get(key_address(key.key_id))
            if unexpired(row, now) is not None:
                raise KeyExists(f"A key with the id {key.key_id!r} exists.")
            return None, [row.changed_to(key.to_document())]

        self._commit_with_retry(decide)

    def get_key(self, key_id: str) -> KeyRecord:
        """Return a key, even if it is revoked. The read is strongly consistent.

        Raises
        ------
        KeyNotFound
            If the key does not exist or has expired.
        """
        return read_key(self._table, key_id, self._clock())[1]

    def rotate_key(self, key_id: str, new_sha256: str, *, overlap_s: float) -> KeyRecord:
        """Replace the secret of a key.

        Parameters
        ----------
        key_id, new_sha256
            Id of the key, and hash of its new secret.
        overlap_s
            Time for which the previous secret stays valid, in seconds.

        Returns
        -------
        KeyRecord
            The changed key.

        Raises
        ------
        KeyNotFound
            If the key does not exist, has expired or is revoked.
        """
        return self._change_key(key_id, lambda key, now: rules.rotated(key, new_sha256, overlap_s=overlap_s, now=now))

    def revoke_key(self, key_id: str) -> None:
        """Revoke a key permanently. Revoking it again has no effect.

        Raises
        ------
        KeyNotFound
            If the key does not exist or has expired.
        """
        self._change_key(key_id, lambda key, now: rules.revoked(key, now=now))

    def add_scoped_key(self, key_id: str, scoped_key: ScopedKey) -> KeyRecord:
        """Add a scoped key to a key.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        TooManyScopedKeys
        """
        return self._change_scoped_keys(key_id, lambda keys: scoped_keys.added(keys, scoped_key))

    def remove_scoped_key(self, key_id: str, scoped_key_id: str) -> KeyRecord:
        """Remove a scoped key, which makes it invalid. Raises `KeyNotFound` (revoked ones too), `ScopedKeyNotFound`."""
        return self._change_scoped_keys(key_id, lambda keys: scoped_keys.removed(keys, scoped_key_id))

    def offer_claim(self, token_sha256: str, key_id: str, *, expires_at: Timestamp) -> None:
        """Store a claim token, which `claim_key` exchanges for the first secret of `key_id` until `expires_at`."""

        def decide(_: Timestamp) -> tuple[None, list[Change]]:
            row = self._table.get(claim_address(token_sha256))
            return None, [row.changed_to({"key_id": key_id, "expires_at": expires_at})]

        self._commit_with_retry(decide)

    def claim_key(self, token_sha256: str, secret_sha256: str) -> KeyRecord:
        """Redeem a claim token: delete it and set the first secret of its key, in one transaction.

        Parameters
        ----------
        token_sha256, secret_sha256
            Hashes of the claim token and of the new secret.

        Returns
        -------
        KeyRecord
            The changed key. If it has a model, it no longer expires.

        Raises
        ------
        Gone
            If the token is unknown, used or expired, or if its key already has a secret, is revoked or does not exist.
        """

        def decide(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            claim_row = self._table.get(claim_address(token_sha256))
            claim = unexpired(claim_row, now)
            if claim is None:
                raise rules.claim_gone()
            try:
                key_row, key = read_key(self._table, str(claim["key_id"]), now)
            except KeyNotFound:
                raise rules.claim_gone() from None
            changed = rules.with_first_secret(key, secret_sha256)
            return changed, [claim_row.changed_to(None), key_row.changed_to(changed.to_document())]

        return self._commit_with_retry(decide)

    # -- jobs

    def create_job(self, job: Job) -> Job:
        """Store a new job, or return the existing job with the same id unchanged, so that a request can be repeated."""

        def decide(now: Timestamp) -> tuple[Job, list[Change]]:
            row = self._table.get(job_address(job.job_id))
            existing = unexpired(row, now)
            if existing is not None:
                return Job.from_document(existing), []
            return job, [row.changed_to(job.to_document())]

        return self._commit_with_retry(decide)

    def get_job(self, job_id: str) -> Job:
        """Return a job, with a consistent read.

        Raises
        ------
        JobNotFound
            If the job does not exist or has expired.
        """
        return self._read_job(job_id, self._clock())[1]

    def claim_job(self, job_id: str, *, owner: str, data_timestamp: str, lease_s: float) -> Lease:
        """Claim a job: start its next attempt and take its lease, in one conditional write.

        The job must be queued, or running with a lease that has expired or is held by the same owner. The problem and
        the progress of a previous attempt are removed.

        Parameters
        ----------
        job_id, owner
            Id of the job, and name of the worker.
        data_timestamp
            When the data arrived, see `Job.data_timestamp`. It is ignored if an earlier attempt has set it.
        lease_s
            Duration of the lease, in seconds.

        Returns
        -------
        Lease
            The running job, with its fence incremented.

        Raises
        ------
        JobNotFound
            If the job does not exist or has expired.
        JobFinished
            If the job is in a final state.
        JobBusy
            If another worker holds the lease.
        """

        def decide(now: Timestamp) -> tuple[Lease, list[Change]]:
            row, job = self._read_job(job_id, now)
            claimed = rules.claimed(job, owner=owner, data_timestamp=data_timestamp, lease_s=lease_s, now=now)
            return Lease(claimed), [row.changed_to(claimed.to_document())]

        return self._commit_with_retry(decide)

    def renew_lease(self, lease: Lease, *, lease_s: float, progress: Progress | None) -> None:
        """Extend a lease and store the progress of the training.

        An expired lease can be renewed as long as no other worker has claimed the job.

        Parameters
        ----------
        lease
            The lease, as returned by `claim_job`.
        lease_s
            New duration of the lease from now, in seconds.
        progress
            Progress to store, or None to keep the stored one.

        Raises
        ------
        LeaseLost
            If the job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.renewed(job, lease_s=lease_s, progress=progress, now=now))

    def release_job(self, lease: Lease) -> None:
        """Put the job back into the queue because its worker is being stopped; the attempt is not counted.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.released(job, now=now))

    def record_error(self, lease: Lease) -> None:
        """Record that this attempt failed with an error, so that the next claim does not count it as killed.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.with_reported_error(job, now=now))

    def fail_job(self, lease: Lease, problem: Problem, report: dict[str, Any] | None) -> None:
        """End a job as failed.

        Raises
        ------
        LeaseLost
            If the job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.failed(job, problem, report, now=now))

    def supersede_job(self, lease: Lease) -> None:
        """End a job as superseded.

        Raises
        ------
        LeaseLost
            If the job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.superseded(job, now=now))

    def mark_receipted(self, job_id: str) -> None:
        """Record that the final receipt of a drop was written.

        Raises
        ------
        JobNotFound
            If the job does not exist or has expired.
        """

        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_job(job_id, now)
            return None, [row.changed_to({**job.to_document(), "receipted_at": now})]

        self._commit_with_retry(decide)

    # -- versions

    def publish_version(self, lease: Lease, version: ModelVersion, report: dict[str, Any]) -> Published:
        """Make `version` the current version of its key and end the job as succeeded, in one transaction.

        The key must exist, must not be revoked, and its `current_data_timestamp` must be absent or older than the
        `data_timestamp` of the job. Otherwise the job ends as superseded and nothing else changes. A key that has a
        secret no longer expires. Publishing the same version again has no effect.

        Parameters
        ----------
        lease
            The lease of the attempt that trained the version.
        version
            The new version. Its files must already be in the object store.
        report
            Data report to store with the job.

        Returns
        -------
        Published
            Whether the version became current.

        Raises
        ------
        LeaseLost
            If the job is not running, or another attempt has started. Nothing changed.
        """

        def decide(now: Timestamp) -> tuple[Published, list[Change]]:
            job_row, job = self._read_leased_job(lease, now)
            if rules.is_published(job, version):
                return Published.CURRENT, []
            rules.check_lease(job, lease)
            key_row = self._table.get(key_address(job.key_id))
            document = unexpired(key_row, now)
            key = KeyRecord.from_document(document) if document is not None else None
            if key is None or not rules.may_publish(key, job):
                return Published.SUPERSEDED, [job_row.changed_to(rules.superseded(job, now=now).to_document())]
            return Published.CURRENT, [
                job_row.changed_to(rules.succeeded(job, version, report, now=now).to_document()),
                key_row.changed_to(rules.published(key, version, job).to_document()),
                Change(version_address(job.key_id, version.version), None, version.to_document()),
            ]

        return self._commit_with_retry(decide)

    def list_versions(self, key_id: str) -> list[ModelVersion]:
        """Return the published versions of a key, newest first."""
        rows = self._table.list(key_address(key_id).partition, VERSION_PREFIX)
        versions = [ModelVersion.from_document(row.document) for row in rows if row.document is not None]
        return sorted(versions, key=lambda version: (version.created_at, version.version), reverse=True)

    def activate_version(self, key_id: str, version: str) -> KeyRecord:
        """Make a published version the current one.

        A training job whose data arrived before the activation can no longer replace it.

        Parameters
        ----------
        key_id, version
            Id of the key, and name of the version.

        Returns
        -------
        KeyRecord
            The changed key.

        Raises
        ------
        KeyNotFound
            If the key does not exist, has expired or is revoked.
        VersionNotFound
            If the key has no published version of this name.
        """

        def activated(key: KeyRecord, now: Timestamp) -> KeyRecord:
            rules.check_not_revoked(key)
            document = self._table.get(version_address(key_id, version)).document
            if document is None:
                raise VersionNotFound(f"The key has no model version {version!r}.")
            return rules.activated(key, ModelVersion.from_document(document), now=now)

        return self._change_key(key_id, activated)

    # -- transactions

    def _commit_with_retry(self, decide: Decision[T]) -> T:
        for _ in range(_COMMIT_ATTEMPTS):
            result, changes = decide(self._clock())
            if not changes or self._table.write(changes):
                return result
        raise Unavailable(f"A registry transaction conflicted with other writers {_COMMIT_ATTEMPTS} times.")

    def _change_key(self, key_id: str, rule: Callable[[KeyRecord, Timestamp], KeyRecord]) -> KeyRecord:
        def decide(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            row, key = read_key(self._table, key_id, now)
            changed = rule(key, now)
            return changed, [row.changed_to(changed.to_document())] if changed != key else []

        return self._commit_with_retry(decide)

    def _change_scoped_keys(
        self, key_id: str, change: Callable[[tuple[ScopedKey, ...]], tuple[ScopedKey, ...]]
    ) -> KeyRecord:
        def changed(key: KeyRecord, _: Timestamp) -> KeyRecord:
            rules.check_not_revoked(key)
            return rules.with_scoped_keys(key, change(key.scoped_keys))

        return self._change_key(key_id, changed)

    def _change_leased_job(self, lease: Lease, rule: Callable[[Job, Timestamp], Job]) -> None:
        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_leased_job(lease, now)
            rules.check_lease(job, lease)
            return None, [row.changed_to(rule(job, now).to_document())]

        self._commit_with_retry(decide)

    def _read_job(self, job_id: str, now: Timestamp) -> tuple[Row, Job]:
        row = self._table.get(job_address(job_id))
        document = unexpired(row, now)
        if document is None:
            raise JobNotFound(f"There is no job with the id {job_id!r}.")
        return row, Job.from_document(document)

    def _read_leased_job(self, lease: Lease, now: Timestamp) -> tuple[Row, Job]:
        try:
            return self._read_job(lease.job.job_id, now)
        except JobNotFound:
            raise rules.lease_lost(lease) from None
