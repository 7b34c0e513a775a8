"""Operations on model versions: publishing, listing and activating them."""

from __future__ import annotations

from enum import StrEnum
from functools import partial
from typing import Any

from recsys.clock import Timestamp
from recsys.errors import VersionNotFound
from recsys.registry import audit, erasures, rules
from recsys.registry.reading import VERSION_PREFIX, key_address, unexpired, version_address
from recsys.registry.records import KeyRecord, Lease, ModelVersion
from recsys.registry.table import Change
from recsys.registry.transactions import TableOperations


class Published(StrEnum):
    """Outcome of publishing a model version."""

    CURRENT = "current"
    """The version is now the one that is served."""
    SUPERSEDED = "superseded"
    """The current version of the key is based on newer data, or the key is revoked. The version was not published."""
    OUTDATED_BASE = "outdated-base"
    """Another version became current since a file was added to its predecessor. Nothing was written: train again."""


class VersionOperations(TableOperations):
    """The part of `Registry` for versions. Every method raises `Unavailable` if the database does not respond."""

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
            if not rules.has_current_base(key, version, job):
                return Published.OUTDATED_BASE, []
            published = rules.published(key, version, job)
            marked = erasures.with_erase_by(version, key)
            detail = {"version": version.version, "job_id": job.job_id}
            return Published.CURRENT, [
                job_row.changed_to(rules.succeeded(job, version, report, now=now).to_document()),
                key_row.changed_to(published.to_document()),
                Change(version_address(job.key_id, version.version), None, marked.to_document()),
                self._event_change(job.key_id, "version.published", detail, now=now),
                *audit.kept_creation_change(self._table, key, published, keep_days=self._audit_days),
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
            return rules.activated(key, rules.unerased(ModelVersion.from_document(document), now=now), now=now)

        return self._change_key(
            key_id,
            activated,
            "version.activated",
            lambda key, _: {"version": version, "previous_version": key.current_version},
        )

    def erase_user(self, key_id: str, user_id: str) -> KeyRecord:
        """Erase a user: hide it from answers, keep it out of later trainings, and mark the versions that contain it.

        If it is interrupted, repeat it.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        TooManyErasures
        """

        def erased(key: KeyRecord, now: Timestamp) -> KeyRecord:
            rules.check_not_revoked(key)
            return erasures.with_erased_user(key, user_id, now=now)

        key = self._change_key(key_id, erased, "user.erased")
        for version in self.list_versions(key_id):
            self._commit_with_retry(partial(self._mark_version, version, key))
        return key

    def _mark_version(self, version: ModelVersion, key: KeyRecord, _now: Timestamp) -> tuple[None, list[Change]]:
        row = self._table.get(version_address(version.key_id, version.version))
        stored = ModelVersion.from_document(row.document) if row.document is not None else None
        marked = erasures.with_erase_by(stored, key) if stored is not None else None
        return None, [row.changed_to(marked.to_document())] if marked is not None and marked != stored else []
