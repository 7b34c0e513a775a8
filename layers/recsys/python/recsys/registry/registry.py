"""The registry's verbs over any database: read, decide by `recsys.registry.rules`, write if nothing changed.

Each verb is a decide. When a row that it read has another etag by the time it writes, it reads and decides again.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final, Protocol, TypeVar

from recsys.clock import Clock, Timestamp, utc_now
from recsys.errors import JobNotFound, KeyExists, KeyNotFound, Problem, Unavailable, VersionNotFound
from recsys.registry import rules
from recsys.registry.records import Document, Job, KeyRecord, Lease, ModelVersion, Progress
from recsys.registry.table import Address, Change, Row, Table, TableReader

T = TypeVar("T")
Decision = Callable[[Timestamp], tuple[T, list[Change]]]
"""Reads and decides: what the verb returns, and the changes that make it true."""

# A decide meets a change only when somebody else got something done, so this many in a row is a fault.
_COMMIT_ATTEMPTS: Final = 50
_VERSION_PREFIX: Final = "VERSION#"


class Published(StrEnum):
    """How a publication ended."""

    CURRENT = "current"
    """The version is what readers get from now on."""
    SUPERSEDED = "superseded"
    """The key's current version was made from newer data, or the key was revoked: this version was not kept."""


class KeyReader(Protocol):
    """Keys that can be read: all that recommending needs of a registry."""

    def get_key(self, key_id: str) -> KeyRecord:
        """Read a key, revoked ones included; what was written before the call is seen (a consistent read).

        Raises
        ------
        KeyNotFound
            There is none, or it expired (`expires_at` ≤ now), whether or not it was removed yet.
        """


class Registry:
    """Keys, jobs and model versions, over the `table` of one database."""

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self._table = table
        self._clock = clock

    # -- keys

    def create_key(self, key: KeyRecord) -> None:
        """Add a key.

        Raises
        ------
        KeyExists
            A key of this id exists (an expired one counts as absent); it is left as it is.
        """

        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row = self._table.get(_key_address(key.key_id))
            if _live(row, now) is not None:
                raise KeyExists(f"A key with the id {key.key_id!r} exists.")
            return None, [row.changed_to(key.to_document())]

        self._commit_with_retry(decide)

    def get_key(self, key_id: str) -> KeyRecord:
        """Read a key, revoked ones included; what was written before the call is seen (a consistent read).

        Raises
        ------
        KeyNotFound
            There is none, or it expired (`expires_at` ≤ now), whether or not it was removed yet.
        """
        return read_key(self._table, key_id, self._clock())[1]

    def rotate_key(self, key_id: str, new_sha256: str, *, overlap_s: float) -> KeyRecord:
        """Replace the secret; the one before works for `overlap_s` more. Raises `KeyNotFound` (revoked ones too)."""
        return self._change_key(key_id, lambda key, now: rules.rotated(key, new_sha256, overlap_s=overlap_s, now=now))

    def revoke_key(self, key_id: str) -> None:
        """Make the key invalid for good; the second time is no error. Raises `KeyNotFound`."""
        self._change_key(key_id, lambda key, now: rules.revoked(key, now=now))

    def offer_claim(self, token_sha256: str, key_id: str, *, expires_at: Timestamp) -> None:
        """Remember that whoever shows the token may set the first secret of `key_id`."""

        def decide(_: Timestamp) -> tuple[None, list[Change]]:
            row = self._table.get(_claim_address(token_sha256))
            return None, [row.changed_to({"key_id": key_id, "expires_at": expires_at})]

        self._commit_with_retry(decide)

    def claim_key(self, token_sha256: str, secret_sha256: str) -> KeyRecord:
        """Use up a claim token and set the key's first secret, in one transaction; `expires_at` goes if it has a model.

        Raises
        ------
        Gone
            The token is unknown, used or expired, or its key has a secret, is revoked or is gone.
        """

        def decide(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            claim_row = self._table.get(_claim_address(token_sha256))
            claim = _live(claim_row, now)
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
        """Add a job, or return the one that has its id already, unchanged: asking twice is asking once."""

        def decide(now: Timestamp) -> tuple[Job, list[Change]]:
            row = self._table.get(_job_address(job.job_id))
            existing = _live(row, now)
            if existing is not None:
                return Job.from_document(existing), []
            return job, [row.changed_to(job.to_document())]

        return self._commit_with_retry(decide)

    def get_job(self, job_id: str) -> Job:
        """Read a job (a consistent read). Raises `JobNotFound` (expired ones too)."""
        return self._read_job(job_id, self._clock())[1]

    def claim_job(self, job_id: str, *, owner: str, data_timestamp: str, lease_s: float) -> Lease:
        """Take the job: one conditional write that raises its fence by one and makes it running.

        It succeeds while the job is queued, or running with a lease that ran out or is held by the same `owner`.
        `data_timestamp` is kept if the job has none yet. `problem` and `progress` of an earlier attempt are dropped.

        Raises
        ------
        JobNotFound
        JobFinished
            The job is in a final state.
        JobBusy
            Another owner's lease still runs.
        """

        def decide(now: Timestamp) -> tuple[Lease, list[Change]]:
            row, job = self._read_job(job_id, now)
            claimed = rules.claimed(job, owner=owner, data_timestamp=data_timestamp, lease_s=lease_s, now=now)
            return Lease(claimed), [row.changed_to(claimed.to_document())]

        return self._commit_with_retry(decide)

    def renew_lease(self, lease: Lease, *, lease_s: float, progress: Progress | None) -> None:
        """Extend the lease and store `progress`.

        Raises
        ------
        LeaseLost
            The job is not running, or its fence is another one. (A lease that ran out with nobody taking the job over
            can be renewed.)
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

    def fail_job(self, lease: Lease, problem: Problem, report: dict[str, Any] | None) -> None:
        """End the job as failed. Raises `LeaseLost` as `renew_lease` does."""
        self._change_leased_job(lease, lambda job, now: rules.failed(job, problem, report, now=now))

    def supersede_job(self, lease: Lease) -> None:
        """End the job as superseded. Raises `LeaseLost` as `renew_lease` does."""
        self._change_leased_job(lease, lambda job, now: rules.superseded(job, now=now))

    def mark_receipted(self, job_id: str) -> None:
        """Note that the outcome of a drop was written. Raises `JobNotFound`."""

        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_job(job_id, now)
            return None, [row.changed_to({**job.to_document(), "receipted_at": now})]

        self._commit_with_retry(decide)

    # -- versions

    def publish_version(self, lease: Lease, version: ModelVersion, report: dict[str, Any]) -> Published:
        """Make `version` the current one of its key and the job succeeded, in one transaction.

        Conditions: the job is running with this lease's fence; the key exists at the revision that was read, is not
        revoked, and its `current_data_timestamp` is absent or older than the job's `data_timestamp`. The key's
        revision increases, and its `expires_at` is removed if it has a secret; the version is added; the job keeps
        `version`, `metrics` and `report`. If the key changed in between, it is read again and the commit is retried.
        If the key is missing or revoked, or its data is newer, the job ends as superseded and nothing else changes.

        Raises
        ------
        LeaseLost
            The job is not running, or its fence is another one; nothing changed.
        """

        def decide(now: Timestamp) -> tuple[Published, list[Change]]:
            job_row, job = self._read_leased_job(lease, now)
            if rules.is_published(job, version):
                return Published.CURRENT, []
            rules.check_lease(job, lease)
            key_row = self._table.get(_key_address(job.key_id))
            document = _live(key_row, now)
            key = KeyRecord.from_document(document) if document is not None else None
            if key is None or not rules.may_publish(key, job):
                return Published.SUPERSEDED, [job_row.changed_to(rules.superseded(job, now=now).to_document())]
            return Published.CURRENT, [
                job_row.changed_to(rules.succeeded(job, version, report, now=now).to_document()),
                key_row.changed_to(rules.published(key, version, job).to_document()),
                Change(_version_address(job.key_id, version.version), None, version.to_document()),
            ]

        return self._commit_with_retry(decide)

    def list_versions(self, key_id: str) -> list[ModelVersion]:
        """Published versions of a key, newest first."""
        rows = self._table.list(_key_address(key_id).partition, _VERSION_PREFIX)
        versions = [ModelVersion.from_document(row.document) for row in rows if row.document is not None]
        return sorted(versions, key=lambda version: (version.created_at, version.version), reverse=True)

    def activate_version(self, key_id: str, version: str) -> KeyRecord:
        """Make a published version current; what was claimed from older data cannot replace it any more.

        Raises
        ------
        KeyNotFound
            The key is gone or revoked.
        VersionNotFound
        """

        def activated(key: KeyRecord, now: Timestamp) -> KeyRecord:
            rules.check_not_revoked(key)
            document = self._table.get(_version_address(key_id, version)).document
            if document is None:
                raise VersionNotFound(f"The key has no model version {version!r}.")
            return rules.activated(key, ModelVersion.from_document(document), now=now)

        return self._change_key(key_id, activated)

    # -- the one way to read, decide and write

    def _commit_with_retry(self, decide: Decision[T]) -> T:
        for _ in range(_COMMIT_ATTEMPTS):
            result, changes = decide(self._clock())
            if not changes or self._table.write(changes):
                return result
        raise Unavailable(f"The registry changed {_COMMIT_ATTEMPTS} times while one change was tried.")

    def _change_key(self, key_id: str, rule: Callable[[KeyRecord, Timestamp], KeyRecord]) -> KeyRecord:
        def decide(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            row, key = read_key(self._table, key_id, now)
            changed = rule(key, now)
            return changed, [row.changed_to(changed.to_document())] if changed != key else []

        return self._commit_with_retry(decide)

    def _change_leased_job(self, lease: Lease, rule: Callable[[Job, Timestamp], Job]) -> None:
        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_leased_job(lease, now)
            rules.check_lease(job, lease)
            return None, [row.changed_to(rule(job, now).to_document())]

        self._commit_with_retry(decide)

    def _read_job(self, job_id: str, now: Timestamp) -> tuple[Row, Job]:
        row = self._table.get(_job_address(job_id))
        document = _live(row, now)
        if document is None:
            raise JobNotFound(f"There is no job with the id {job_id!r}.")
        return row, Job.from_document(document)

    def _read_leased_job(self, lease: Lease, now: Timestamp) -> tuple[Row, Job]:
        try:
            return self._read_job(lease.job.job_id, now)
        except JobNotFound:
            raise rules.lease_lost(lease) from None


def read_key(rows: TableReader, key_id: str, now: Timestamp) -> tuple[Row, KeyRecord]:
    """The key of that id, and the row that holds it.

    Raises
    ------
    KeyNotFound
        There is none, or it expired.
    """
    row = rows.get(_key_address(key_id))
    document = _live(row, now)
    if document is None:
        raise rules.key_not_found(key_id)
    return row, KeyRecord.from_document(document)


def _live(row: Row, now: Timestamp) -> Document | None:
    """The row's document, unless it expired: databases remove expired rows late."""
    if row.document is None:
        return None
    expires_at = row.document.get("expires_at")
    return None if rules.is_expired(Timestamp(str(expires_at)) if expires_at else None, now) else row.document


def _key_address(key_id: str) -> Address:
    return Address(f"KEY#{key_id}", "KEY")


def _version_address(key_id: str, version: str) -> Address:
    return Address(f"KEY#{key_id}", f"{_VERSION_PREFIX}{version}")


def _job_address(job_id: str) -> Address:
    return Address(f"JOB#{job_id}", "JOB")


def _claim_address(token_sha256: str) -> Address:
    return Address(f"CLAIM#{token_sha256}", "CLAIM")
