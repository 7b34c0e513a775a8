"""The registry's verbs over any database: read, decide by `recsys.registry.rules`, write if nothing changed.

Each verb is a plan. When a row that it read has another etag by the time it writes, it reads and decides again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from recsys.clock import Clock, Timestamp
from recsys.errors import JobNotFound, KeyExists, KeyNotFound, Problem, Unavailable, VersionNotFound
from recsys.registry import rules
from recsys.registry.port import Published
from recsys.registry.records import Document, Job, KeyRecord, Lease, ModelVersion, Progress
from recsys.registry.rows import Address, Change, Row, RowReader, Rows

T = TypeVar("T")
Plan = Callable[[Timestamp], tuple[T, list[Change]]]
"""Reads and decides: what the verb returns, and the changes that make it true."""

# A plan meets a change only when somebody else got something done, so this many in a row is a fault.
_PLAN_ATTEMPTS: Final = 50
_VERSION_PREFIX: Final = "VERSION#"


class StoredRegistry:
    """A `Registry` over `rows`."""

    def __init__(self, rows: Rows, clock: Clock) -> None:
        self._rows = rows
        self._clock = clock

    # -- keys

    def create_key(self, key: KeyRecord) -> None:
        """See `Registry.create_key`."""

        def plan(now: Timestamp) -> tuple[None, list[Change]]:
            row = self._rows.get(_key_address(key.key_id))
            if _live(row, now) is not None:
                raise KeyExists(f"A key with the id {key.key_id!r} exists.")
            return None, [row.changed_to(key.to_document())]

        self._carry_out(plan)

    def get_key(self, key_id: str) -> KeyRecord:
        """See `Registry.get_key`."""
        return read_key(self._rows, key_id, self._clock())[1]

    def rotate_key(self, key_id: str, new_sha256: str, *, overlap_s: float) -> KeyRecord:
        """See `Registry.rotate_key`."""
        return self._change_key(key_id, lambda key, now: rules.rotated(key, new_sha256, overlap_s=overlap_s, now=now))

    def revoke_key(self, key_id: str) -> None:
        """See `Registry.revoke_key`."""
        self._change_key(key_id, lambda key, now: rules.revoked(key, now=now))

    def offer_claim(self, token_sha256: str, key_id: str, *, expires_at: Timestamp) -> None:
        """See `Registry.offer_claim`."""

        def plan(_: Timestamp) -> tuple[None, list[Change]]:
            row = self._rows.get(_claim_address(token_sha256))
            return None, [row.changed_to({"key_id": key_id, "expires_at": expires_at})]

        self._carry_out(plan)

    def claim_key(self, token_sha256: str, secret_sha256: str) -> KeyRecord:
        """See `Registry.claim_key`."""

        def plan(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            claim_row = self._rows.get(_claim_address(token_sha256))
            claim = _live(claim_row, now)
            if claim is None:
                raise rules.claim_gone()
            try:
                key_row, key = read_key(self._rows, str(claim["key_id"]), now)
            except KeyNotFound:
                raise rules.claim_gone() from None
            changed = rules.with_first_secret(key, secret_sha256)
            return changed, [claim_row.changed_to(None), key_row.changed_to(changed.to_document())]

        return self._carry_out(plan)

    # -- jobs

    def create_job(self, job: Job) -> Job:
        """See `Registry.create_job`."""

        def plan(now: Timestamp) -> tuple[Job, list[Change]]:
            row = self._rows.get(_job_address(job.job_id))
            existing = _live(row, now)
            if existing is not None:
                return Job.from_document(existing), []
            return job, [row.changed_to(job.to_document())]

        return self._carry_out(plan)

    def get_job(self, job_id: str) -> Job:
        """See `Registry.get_job`."""
        return self._read_job(job_id, self._clock())[1]

    def claim_job(self, job_id: str, *, owner: str, source_order: str, lease_s: float) -> Lease:
        """See `Registry.claim_job`."""

        def plan(now: Timestamp) -> tuple[Lease, list[Change]]:
            row, job = self._read_job(job_id, now)
            claimed = rules.claimed(job, owner=owner, source_order=source_order, lease_s=lease_s, now=now)
            return Lease(claimed), [row.changed_to(claimed.to_document())]

        return self._carry_out(plan)

    def renew_lease(self, lease: Lease, *, lease_s: float, progress: Progress | None) -> None:
        """See `Registry.renew_lease`."""
        self._change_leased_job(lease, lambda job, now: rules.renewed(job, lease_s=lease_s, progress=progress, now=now))

    def fail_job(self, lease: Lease, problem: Problem, report: dict[str, Any] | None) -> None:
        """See `Registry.fail_job`."""
        self._change_leased_job(lease, lambda job, now: rules.failed(job, problem, report, now=now))

    def supersede_job(self, lease: Lease) -> None:
        """See `Registry.supersede_job`."""
        self._change_leased_job(lease, lambda job, now: rules.superseded(job, now=now))

    def mark_receipted(self, job_id: str) -> None:
        """See `Registry.mark_receipted`."""

        def plan(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_job(job_id, now)
            return None, [row.changed_to({**job.to_document(), "receipted_at": now})]

        self._carry_out(plan)

    # -- versions

    def publish_version(self, lease: Lease, version: ModelVersion, report: dict[str, Any]) -> Published:
        """See `Registry.publish_version`; publishing twice what was published is no error."""

        def plan(now: Timestamp) -> tuple[Published, list[Change]]:
            job_row, job = self._read_leased_job(lease, now)
            if rules.is_published(job, version):
                return Published.CURRENT, []
            rules.check_lease(job, lease)
            key_row = self._rows.get(_key_address(job.key_id))
            document = _live(key_row, now)
            key = KeyRecord.from_document(document) if document is not None else None
            if key is None or not rules.may_publish(key, job):
                return Published.SUPERSEDED, [job_row.changed_to(rules.superseded(job, now=now).to_document())]
            return Published.CURRENT, [
                job_row.changed_to(rules.succeeded(job, version, report, now=now).to_document()),
                key_row.changed_to(rules.published(key, version, job).to_document()),
                Change(_version_address(job.key_id, version.version), None, version.to_document()),
            ]

        return self._carry_out(plan)

    def list_versions(self, key_id: str) -> list[ModelVersion]:
        """See `Registry.list_versions`."""
        rows = self._rows.list(_key_address(key_id).partition, _VERSION_PREFIX)
        versions = [ModelVersion.from_document(row.document) for row in rows if row.document is not None]
        return sorted(versions, key=lambda version: (version.created_at, version.version), reverse=True)

    def activate_version(self, key_id: str, version: str) -> KeyRecord:
        """See `Registry.activate_version`."""

        def activated(key: KeyRecord, now: Timestamp) -> KeyRecord:
            rules.check_not_revoked(key)
            document = self._rows.get(_version_address(key_id, version)).document
            if document is None:
                raise VersionNotFound(f"The key has no model version {version!r}.")
            return rules.activated(key, ModelVersion.from_document(document), now=now)

        return self._change_key(key_id, activated)

    # -- the one way to read, decide and write

    def _carry_out(self, plan: Plan[T]) -> T:
        for _ in range(_PLAN_ATTEMPTS):
            result, changes = plan(self._clock())
            if not changes or self._rows.write(changes):
                return result
        raise Unavailable(f"The registry changed {_PLAN_ATTEMPTS} times while one change was tried.")

    def _change_key(self, key_id: str, rule: Callable[[KeyRecord, Timestamp], KeyRecord]) -> KeyRecord:
        def plan(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            row, key = read_key(self._rows, key_id, now)
            changed = rule(key, now)
            return changed, [row.changed_to(changed.to_document())] if changed != key else []

        return self._carry_out(plan)

    def _change_leased_job(self, lease: Lease, rule: Callable[[Job, Timestamp], Job]) -> None:
        def plan(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_leased_job(lease, now)
            rules.check_lease(job, lease)
            return None, [row.changed_to(rule(job, now).to_document())]

        self._carry_out(plan)

    def _read_job(self, job_id: str, now: Timestamp) -> tuple[Row, Job]:
        row = self._rows.get(_job_address(job_id))
        document = _live(row, now)
        if document is None:
            raise JobNotFound(f"There is no job with the id {job_id!r}.")
        return row, Job.from_document(document)

    def _read_leased_job(self, lease: Lease, now: Timestamp) -> tuple[Row, Job]:
        try:
            return self._read_job(lease.job.job_id, now)
        except JobNotFound:
            raise rules.lease_lost(lease) from None


def read_key(rows: RowReader, key_id: str, now: Timestamp) -> tuple[Row, KeyRecord]:
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
