"""Find the versions and objects that the retention policy no longer keeps, and delete them."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from typing import Final

from recsys.clock import Clock, utc_now
from recsys.errors import NotReady, Unavailable
from recsys.objects import layout
from recsys.objects.sources import ItemsUpload, Upload, parse_source
from recsys.objects.store import ObjectInfo, ObjectStore
from recsys.registry.audit import event_change
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import VERSION_PREFIX, job_address, key_address
from recsys.registry.records import Job
from recsys.registry.table import Change, Table
from recsys.retention.plan import (
    Deletion,
    KeyContents,
    RetentionPolicy,
    job_id_of,
    plan_aged,
    plan_catalogue,
    plan_upload,
    plan_versions,
)

_logger: Final = logging.getLogger("recsys.retention")


@dataclass(frozen=True, slots=True)
class Collection:
    """The outcome of `Collector.run`.

    Parameters
    ----------
    deletions
        Steps that were carried out. Each step deleted objects or marked a version as deleted.
    n_failed
        Number of deletions that failed because a store was unavailable. The next run retries them.
    """

    deletions: tuple[Deletion, ...]
    n_failed: int = 0

    @property
    def freed_bytes(self) -> int:
        """Total size of the objects that were deleted, in bytes."""
        return sum(deletion.size_bytes for deletion in self.deletions if not deletion.is_mark)


class Collector:
    """A garbage collector that deletes the versions and objects that the retention policy no longer keeps.

    Runs may overlap. If a run is killed, the next run completes its work.

    Parameters
    ----------
    table, store
        The database of the registry, and the object store.
    policy
        The retention policy.
    clock
        Function that returns the current time.
    """

    def __init__(self, table: Table, store: ObjectStore, policy: RetentionPolicy, clock: Clock = utc_now) -> None:
        self._table = table
        self._store = store
        self._policy = policy
        self._clock = clock

    def plan(self) -> Iterator[Deletion]:
        """Yield the deletions that a run would carry out now, without carrying them out.

        Raises
        ------
        Unavailable
            A store did not respond.
        """
        now = self._clock()
        for contents in self._keys():
            yield from plan_versions(contents, self._policy, now)
            catalogue = plan_catalogue(contents, self._policy, now)
            if catalogue is not None:
                yield catalogue
        # Keys are cached, because many uploads belong to one key. The cache is per plan, so that the next sees changes.
        key_of = lru_cache(maxsize=1024)(self._key)
        for info in self._store.list(layout.UPLOADS):
            source = parse_source(info.name)
            try:
                job = self._job(source.job_id) if isinstance(source, Upload | ItemsUpload) else None
            except NotReady:
                continue
            deletion = plan_upload(info, job, key_of(job.key_id) if job is not None else None, self._policy, now)
            if deletion is not None:
                yield deletion
        if self._policy.upload_days is not None:
            for info in self._store.list(layout.RECEIPTS):
                deletion = plan_aged(info, self._policy, now)
                if deletion is not None:
                    yield deletion

    def run(self) -> Collection:
        """Carry out the deletions of the plan.

        Returns
        -------
        Collection
            The deletions that were carried out. A version that was activated, pinned or published in the meantime is
            kept and is not listed.

        Raises
        ------
        Unavailable
            A store did not respond to the reads that the plan needs.
        """
        done, n_failed = [], 0
        for deletion in self.plan():
            try:
                if self._carry_out(deletion):
                    done.append(deletion)
            except Unavailable as error:
                n_failed += 1
                _logger.warning("%s was not deleted: %s", deletion.what, error.detail)
        return Collection(tuple(done), n_failed)

    def _carry_out(self, deletion: Deletion) -> bool:
        """Carry out one step of the plan, and return whether the step took effect.

        If a concurrent writer changed the version that the step marks as deleted, the version is kept and the result
        is False.
        """
        if deletion.mark is not None and not self._table.write([deletion.mark, *self._event(deletion)]):
            return False
        for name in deletion.object_names:
            self._store.delete(name)
        return True

    def _event(self, deletion: Deletion) -> list[Change]:
        """Return a list with the change that records a step of the plan in the audit log of the key.

        The list is empty unless the step marks a published or held version as deleted.
        """
        version = deletion.retired
        if version is None:
            return []
        detail = {"version": version.version, "reason": deletion.reason.name.lower()}
        now, keep_days = self._clock(), self._policy.audit_days
        return [event_change(version.key_id, "version.deleted", detail, now=now, keep_days=keep_days)]

    def _keys(self) -> Iterator[KeyContents]:
        """Yield the records and objects of each key that has objects below `models/`."""
        # The listing is sorted by name, so that the objects of a key are adjacent.
        for key_id, infos in groupby(self._store.list(layout.MODELS), key=lambda info: info.name.split("/")[1]):
            files: dict[str, list[ObjectInfo]] = defaultdict(list)
            catalogue = []
            for info in infos:
                parts = info.name.split("/")
                if info.name.startswith(layout.catalogue_prefix(key_id)):
                    catalogue.append(info)
                elif len(parts) > 3:  # models/<key_id>/<version>/<file>
                    files[parts[2]].append(info)
            contents = self._contents(key_id, files, catalogue)
            if contents is not None:
                yield contents

    def _contents(
        self, key_id: str, files: dict[str, list[ObjectInfo]], catalogue: list[ObjectInfo]
    ) -> KeyContents | None:
        """Return the records and objects of a key, or None if this release cannot read a record of a newer release."""
        rows = self._table.list(key_address(key_id).partition, VERSION_PREFIX)
        with_row = {row.address.sort.removeprefix(VERSION_PREFIX) for row in rows}
        jobs = {}
        try:
            for job_id in {job_id_of(version) for version in files.keys() - with_row}:
                job = self._job(job_id)
                if job is not None:
                    jobs[job_id] = job
        except NotReady as error:
            _logger.warning("Nothing of the key %s is deleted: %s", key_id, error.detail)
            return None
        # The key is read after the rows, so that no activation is missed. An activation before this read is visible in
        # the key. A later activation changes a row, and the conditional write then fails.
        return KeyContents(key_id, self._key(key_id), rows, files, jobs, catalogue)

    def _key(self, key_id: str) -> KeyRecord | None:
        document = self._table.get(key_address(key_id)).document
        return KeyRecord.from_document(document) if document is not None else None

    def _job(self, job_id: str) -> Job | None:
        document = self._table.get(job_address(job_id)).document
        return Job.from_document(document) if document is not None else None
