"""Operations that publish, list, activate and pin model versions, and that erase users from the versions."""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from functools import partial
from typing import Any

from recsys.clock import Timestamp
from recsys.errors import VersionNotFound
from recsys.registry import audit, erasures, rules
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import VERSION_PREFIX, key_address, read_key, unexpired, version_address
from recsys.registry.records import Assessment, JobState, Lease, ModelVersion
from recsys.registry.table import Change, Row
from recsys.registry.transactions import TableOperations


class Published(StrEnum):
    """Outcome of publishing a model version."""

    CURRENT = "current"
    """The version is now the current version."""
    HELD = "held"
    """The version is stored. The current version stays current until the held version is activated."""
    OUTDATED = "outdated"
    """Another version became current after the comparison. Nothing was written, and the caller must compare again.
    """
    SUPERSEDED = "superseded"
    """The current version of the key is based on newer data, or the key is revoked. The version was not published."""
    OUTDATED_BASE = "outdated-base"
    """The base version of the training is no longer current. Nothing was written, and the caller must train again.
    """


class VersionOperations(TableOperations):
    """The part of `Registry` for versions. Every method raises `Unavailable` if the database does not respond."""

    def publish_version(
        self, lease: Lease, version: ModelVersion, report: dict[str, Any], assessment: Assessment | None = None
    ) -> Published:
        """Make `version` the current version of its key and end the job as succeeded, in one transaction.

        If `assessment` has reasons to hold the version, the version is stored without becoming current, and the job
        ends as held.

        If the key does not exist, is revoked or has a current version with newer data, the job ends as superseded and
        nothing else changes (see `rules.may_publish`). If the version becomes current and the key has a secret, the
        expiry of the key is removed. Publishing the same version again has no effect.

        Parameters
        ----------
        lease
            The lease of the attempt that trained the version.
        version
            The new version. Its files must already be in the object store.
        report
            Data report to store with the job.
        assessment
            Comparison with the current version. If None, the version is published without a comparison.

        Returns
        -------
        Published
            The outcome.

        Raises
        ------
        LeaseLost
            The job is not running, another attempt has started, or the version was marked as deleted
            because the attempt seemed to have ended. Nothing was written.
        """

        def decide(now: Timestamp) -> tuple[Published, list[Change]]:
            job_row, job = self._read_leased_job(lease, now)
            if rules.is_stored(job, version):
                return Published.HELD if job.state is JobState.HELD else Published.CURRENT, []
            rules.check_lease(job, lease)
            version_row = self._table.get(version_address(job.key_id, version.version))
            if version_row.document is not None:  # retired, because the attempt seemed to have ended
                raise rules.lease_lost(lease)
            key_row = self._table.get(key_address(job.key_id))
            document = unexpired(key_row, now)
            key = KeyRecord.from_document(document) if document is not None else None
            if key is None or not rules.may_publish(key, job):
                return Published.SUPERSEDED, [job_row.changed_to(rules.superseded(job, now=now).to_document())]
            if not rules.has_current_base(key, version, job):
                return Published.OUTDATED_BASE, []
            if assessment is not None and assessment.current_version != key.current_version:
                return Published.OUTDATED, []
            stored, changed_key = rules.outcome(key, erasures.with_erase_by(version, key), job, assessment)
            outcome, event = Published.CURRENT, "version.published"
            if stored.held_reasons:
                outcome, event = Published.HELD, "version.held"
            detail = {"version": version.version, "job_id": job.job_id}
            return outcome, [
                job_row.changed_to(rules.succeeded(job, version, report, assessment, now=now).to_document()),
                key_row.changed_to(changed_key.to_document()),
                version_row.changed_to(stored.to_document()),
                self._event_change(job.key_id, event, detail, now=now),
                *audit.kept_creation_change(self._table, key, changed_key, keep_days=self._audit_days),
            ]

        return self._commit_with_retry(decide)

    def list_versions(self, key_id: str) -> list[ModelVersion]:
        """Return the published and held versions of a key, newest first. Deleted versions are left out."""
        versions = [version for _, version in self._read_versions(key_id)]
        return sorted(versions, key=lambda version: (version.created_at, version.version), reverse=True)

    def activate_version(self, key_id: str, version: str) -> KeyRecord:
        """Make a published or held version the current version. A held version is no longer held afterwards.

        A training job whose data arrived before the activation can no longer replace the activated version. The row of
        the version is also written, so that an activation and a concurrent deletion of the version cannot both succeed.

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
            The key does not exist, has expired or is revoked.
        VersionNotFound
            The key has no version of this name, or the version is due for deletion because of an erasure.
        """

        def decide(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            key_row, key = read_key(self._table, key_id, now)
            rules.check_not_revoked(key)
            row, found = self._read_version(key_id, version)
            changed = rules.activated(key, rules.unerased(found, now=now), now=now)
            detail = {"version": version, "previous_version": key.current_version}
            return changed, [
                key_row.changed_to(changed.to_document()),
                row.changed_to(replace(found, held_reasons=None).to_document()),
                self._event_change(key_id, "version.activated", detail, now=now),
            ]

        return self._commit_with_retry(decide)

    def pin_version(self, key_id: str, version: str) -> ModelVersion:
        """Pin a published or held version, so that it is kept regardless of the number of newer versions.

        The row of the key is also written, so that concurrent calls cannot exceed the limit.

        Returns
        -------
        ModelVersion
            The pinned version.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        VersionNotFound
            The key has no published or held version of this name.
        TooManyPinnedVersions
            `rules.MAX_PINNED_VERSIONS` other versions of the key are pinned.
        """

        def decide(now: Timestamp) -> tuple[ModelVersion, list[Change]]:
            key_row, key = read_key(self._table, key_id, now)
            rules.check_not_revoked(key)
            row, found = self._read_version(key_id, version)
            others = [other for _, other in self._read_versions(key_id) if other.version != version]
            changed = rules.pinned(found, others=others, now=now)
            if changed == found:
                return found, []
            return changed, [key_row.changed_to(key.to_document()), row.changed_to(changed.to_document())]

        return self._commit_with_retry(decide)

    def unpin_version(self, key_id: str, version: str) -> ModelVersion:
        """Unpin a version, so that it may be deleted. A repeated call has no effect.

        Returns
        -------
        ModelVersion
            The unpinned version.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        VersionNotFound
            The key has no published or held version of this name.
        """

        def decide(now: Timestamp) -> tuple[ModelVersion, list[Change]]:
            rules.check_not_revoked(read_key(self._table, key_id, now)[1])
            row, found = self._read_version(key_id, version)
            changed = rules.unpinned(found)
            return changed, [row.changed_to(changed.to_document())] if changed != found else []

        return self._commit_with_retry(decide)

    def erase_user(self, key_id: str, user_id: str) -> KeyRecord:
        """Hide a user at once, leave the user out of later trainings, and mark the existing versions for deletion.

        The versions are marked one by one. If the call is interrupted, repeat the call. The changed key is returned.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        TooManyErasures
            The key already has the largest permitted number of erased users.
        """

        def erased(key: KeyRecord, now: Timestamp) -> KeyRecord:
            rules.check_not_revoked(key)
            return erasures.with_erased_user(key, user_id, now=now)

        key = self._change_key(key_id, erased, "user.erased")
        for _, version in self._read_versions(key_id):
            self._commit_with_retry(partial(self._mark_version, version, key))
        return key

    def _mark_version(self, version: ModelVersion, key: KeyRecord, _now: Timestamp) -> tuple[None, list[Change]]:
        """Return None, and a list with the change that writes the time by which a version must be deleted.

        The list is empty if the version already has this time, or has been deleted in the meantime.
        """
        row = self._table.get(version_address(version.key_id, version.version))
        stored = ModelVersion.from_document(row.document) if row.document is not None else None
        if stored is None or stored.deleted_at is not None:
            return None, []
        marked = erasures.with_erase_by(stored, key)
        return None, [row.changed_to(marked.to_document())] if marked != stored else []

    def _read_version(self, key_id: str, version: str) -> tuple[Row, ModelVersion]:
        row = self._table.get(version_address(key_id, version))
        found = ModelVersion.from_document(row.document) if row.document is not None else None
        if found is None or found.deleted_at is not None:
            raise VersionNotFound(f"The key has no model version {version!r}.")
        return row, found

    def _read_versions(self, key_id: str) -> list[tuple[Row, ModelVersion]]:
        rows = self._table.list(key_address(key_id).partition, VERSION_PREFIX)
        versions = [(row, ModelVersion.from_document(row.document)) for row in rows if row.document is not None]
        return [(row, version) for row, version in versions if version.deleted_at is None]
