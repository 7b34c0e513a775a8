"""Run a catalogue job: read its file, merge it into the current catalogue, and upload and publish the result."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, BinaryIO, Final

from recsys.catalogue.catalogue import EMPTY, Catalogue, read_catalogue, write_catalogue
from recsys.clock import Clock, after
from recsys.errors import InvalidData, InvalidRequest
from recsys.file_options import FileOptions
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.catalogues import CatalogueChanged, CatalogueVersion, is_outdated
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, Lease
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_train.catalogue.records import read_records
from recsys_train.catalogue.report import CatalogueReport
from recsys_train.catalogue.update import ItemUpdates, apply_updates, read_updates
from recsys_train.data.unpack import Limits, unpack
from recsys_train.lease import LeaseKeeper

MERGE: Final = "merge"
"""Value of the option `mode` of a job that keeps the items and attributes that its file does not mention."""
_MERGE_ATTEMPTS: Final = 5
_KEPT_S: Final = 600.0
"""Time for which a replaced catalogue is kept. It is far longer than a server uses an outdated key record."""


@dataclass(frozen=True, slots=True)
class CatalogueUpdater:
    """Runs the attempts of catalogue jobs.

    Parameters
    ----------
    store, registry
        Object store with the files and catalogues, and registry with the jobs.
    settings
        Limits and the lease.
    clock
        Source of the current time.
    on_renewal
        Called each time the lease of a job is renewed.
    """

    store: ObjectStore
    registry: Registry
    settings: Settings
    clock: Clock
    on_renewal: Callable[[], None]

    def attempt(self, lease: Lease, key: KeyRecord, open_file: Callable[[], BinaryIO]) -> None:
        """Update the catalogue of `key` with the file of a job, and end the job.

        Raises
        ------
        InvalidData
            The file cannot be used.
        LeaseLost
            Another worker took the job over.
        Unavailable
            A store did not respond, or every attempt conflicted with another update. Retry later.
        """
        job = lease.job
        if is_outdated(key, job):
            self.registry.supersede_job(lease)
            return
        with LeaseKeeper(self.registry, lease, lease_s=self.settings.lease_s, on_renewal=self.on_renewal) as keeper:
            report = CatalogueReport()
            updates = self._read(job, open_file, report)
            for attempts_left in reversed(range(_MERGE_ATTEMPTS)):
                keeper.check()
                try:
                    self._publish(lease, updates, report)
                    break
                except CatalogueChanged:
                    if attempts_left == 0:
                        raise
        self._remove_replaced(job.key_id)

    def _read(self, job: Job, open_file: Callable[[], BinaryIO], report: CatalogueReport) -> ItemUpdates:
        options = {name: value for name, value in (job.options or {}).items() if name != "mode"}
        try:
            file_options = FileOptions.of(options)
        except InvalidRequest as error:
            raise InvalidData(error.detail, code=error.problem_code, hint=error.hint) from error
        limits = Limits(self.settings.max_unpacked_bytes, self.settings.read_budget_s)
        with closing(open_file()) as stream, unpack(stream, limits) as unpacked:
            return read_updates(read_records(unpacked, file_options, report), file_options.item, report)

    def _publish(self, lease: Lease, updates: ItemUpdates, report: CatalogueReport) -> None:
        is_merged = (lease.job.options or {}).get("mode") == MERGE
        key = self.registry.get_key(lease.job.key_id)
        base = self._current(key) if is_merged else EMPTY
        report = copy.deepcopy(report)  # `apply_updates` changes it in every round
        content = write_catalogue(apply_updates(base, updates, report))
        name = layout.catalogue_prefix(key.key_id, lease.version) + layout.CATALOGUE_FILE
        self.store.delete(name)  # left by the previous round, which was not published
        self.store.create(name, content)
        sha256 = hashlib.sha256(content).hexdigest()
        read_catalogue(self.store.read(name), sha256=sha256)
        new = CatalogueVersion(lease.version, sha256, base=key.catalogue_version, is_merged=is_merged)
        self.registry.publish_catalogue(lease, new, report.to_json())

    def _current(self, key: KeyRecord) -> Catalogue:
        if key.catalogue_version is None or key.catalogue_sha256 is None:
            return EMPTY
        name = layout.catalogue_prefix(key.key_id, key.catalogue_version) + layout.CATALOGUE_FILE
        return read_catalogue(self.store.read(name), sha256=key.catalogue_sha256)

    def _remove_replaced(self, key_id: str) -> None:
        """Delete the catalogues that were replaced so long ago that no server reads them any more.

        A catalogue counts as replaced from the time at which the next one arrived.
        """
        key = self.registry.get_key(key_id)
        current = layout.catalogue_prefix(key_id, key.catalogue_version) if key.catalogue_version else None
        oldest_kept = after(self.clock(), -_KEPT_S)
        infos = sorted(self.store.list(layout.catalogue_prefix(key_id)), key=lambda info: info.arrived_at)
        for info, following in pairwise(infos):
            is_current = current is not None and info.name.startswith(current)
            if not is_current and following.arrived_at < oldest_kept:
                self.store.delete(info.name)


def report_of(error: InvalidData) -> dict[str, Any] | None:
    """Return the report of a file that was read but cannot be used; None for other errors."""
    report = getattr(error, "report", None)
    return None if report is None else dict(report.to_json())
