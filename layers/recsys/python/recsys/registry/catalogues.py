"""Operations that publish or delete the item catalogue of a key."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from recsys.clock import Timestamp
from recsys.errors import Unavailable
from recsys.registry import rules
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import key_address, unexpired
from recsys.registry.records import Job, JobState, Lease
from recsys.registry.table import Change
from recsys.registry.transactions import TableOperations


@dataclass(frozen=True, slots=True)
class CatalogueVersion:
    """A version of an item catalogue that a job has stored in the object store, but not yet made current.

    Parameters
    ----------
    version
        Name of the version.
    sha256
        SHA-256 of the version's file, in hexadecimal.
    base
        Version that was current when the job read the catalogue. None if the key had no catalogue.
    is_merged
        Whether the file of the job was merged into `base`. If so, `base` must still be current at the publication. If
        not, the file replaces the catalogue.
    """

    version: str
    sha256: str
    base: str | None
    is_merged: bool


class CatalogueChanged(Unavailable):
    """Raised when another update of the item catalogue was published during a merge. The merge must be repeated."""


class CatalogueOperations(TableOperations):
    """The part of `Registry` for catalogues. Every method raises `Unavailable` if the database does not respond."""

    def publish_catalogue(self, lease: Lease, new: CatalogueVersion, report: dict[str, Any]) -> bool:
        """Make a version of an item catalogue current and end its job as succeeded, in one transaction.

        Publishing the same version again has no effect.

        Parameters
        ----------
        lease
            The lease of the attempt that wrote the version.
        new
            The version. Its file must already be in the object store.
        report
            Report to store with the job.

        Returns
        -------
        bool
            Whether the version became current. The job ends as superseded instead if the key is revoked or has expired,
            or if the catalogue was replaced or deleted after the file of the job had arrived.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        CatalogueChanged
            The file was merged into a version that is no longer current.
        """

        def decide(now: Timestamp) -> tuple[bool, list[Change]]:
            job_row, job = self._read_leased_job(lease, now)
            if job.state is JobState.SUCCEEDED and job.version == new.version:
                return True, []
            rules.check_lease(job, lease)
            key_row = self._table.get(key_address(job.key_id))
            document = unexpired(key_row, now)
            key = KeyRecord.from_document(document) if document is not None else None
            if key is None or key.revoked_at is not None or is_outdated(key, job):
                return False, [job_row.changed_to(rules.superseded(job, now=now).to_document())]
            if new.is_merged and key.catalogue_version != new.base:
                raise CatalogueChanged("Another update of the item catalogue was published during this update.")
            events = [] if new.is_merged else [self._replaced_event(key, new, now)]
            return True, [
                job_row.changed_to(succeeded_with(job, new, report, now).to_document()),
                key_row.changed_to(with_catalogue(key, new, job.data_timestamp or "").to_document()),
                *events,
            ]

        return self._commit_with_retry(decide)

    def delete_catalogue(self, key_id: str) -> KeyRecord:
        """Remove the item catalogue of a key, and return the changed key.

        Raises
        ------
        KeyNotFound
            The key does not exist, has expired or is revoked.
        """

        def detail(before: KeyRecord, _changed: KeyRecord) -> dict[str, Any]:
            return {"previous_version": before.catalogue_version}

        return self._change_key(key_id, without_catalogue, "catalogue.deleted", detail)

    def _replaced_event(self, key: KeyRecord, new: CatalogueVersion, now: Timestamp) -> Change:
        """Return the change that records the replacement of a catalogue in the audit log.

        The caller does not record merges, because frequent merges would fill the log.
        """
        detail = {"version": new.version, "previous_version": key.catalogue_version}
        return self._event_change(key.key_id, "catalogue.replaced", detail, now=now)


def succeeded_with(job: Job, new: CatalogueVersion, report: dict[str, Any], now: Timestamp) -> Job:
    """Return the job in the state `succeeded`, with the published version of the catalogue and the report."""
    return replace(
        job,
        state=JobState.SUCCEEDED,
        updated_at=now,
        lease_owner=None,
        lease_until=None,
        version=new.version,
        report=report,
    )


def with_catalogue(key: KeyRecord, new: CatalogueVersion, data_timestamp: str) -> KeyRecord:
    """Return the key with `new` as its catalogue.

    `data_timestamp` becomes the data timestamp of the catalogue. A merge keeps the previous data timestamp.
    """
    return replace(
        key,
        revision=key.revision + 1,
        catalogue_version=new.version,
        catalogue_sha256=new.sha256,
        catalogue_data_timestamp=key.catalogue_data_timestamp if new.is_merged else data_timestamp,
    )


def without_catalogue(key: KeyRecord, now: Timestamp) -> KeyRecord:
    """Return the key without a catalogue. A file that arrived before `now` can no longer create a catalogue.

    Raises
    ------
    KeyNotFound
        The key is revoked.
    """
    rules.check_not_revoked(key)
    return replace(
        key,
        revision=key.revision + 1,
        catalogue_version=None,
        catalogue_sha256=None,
        catalogue_data_timestamp=max(str(now), key.catalogue_data_timestamp or ""),
    )


def is_outdated(key: KeyRecord, job: Job) -> bool:
    """Return whether the catalogue of `key` was replaced or deleted after the file of `job` arrived.

    Merges do not count, so that a file that replaces the catalogue is used even if a newer file was merged before.
    """
    newest = key.catalogue_data_timestamp
    return newest is not None and (job.data_timestamp or "") < newest
