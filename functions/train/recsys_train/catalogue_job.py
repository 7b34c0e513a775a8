"""Run a catalogue job, which reads a file of items, builds the new catalogue, and uploads and publishes it."""

from __future__ import annotations

import copy
import hashlib
import logging
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO, Final

from recsys.catalogue.catalogue import EMPTY, Catalogue, FittedContent, read_catalogue, write_catalogue
from recsys.clock import Clock, after
from recsys.errors import ArtifactDamaged, InvalidData, InvalidRequest, KeyNotFound, ObjectNotFound
from recsys.file_options import FileOptions
from recsys.model import artifact
from recsys.model.array_file import write_npz
from recsys.model.neumf import Network
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.catalogues import CatalogueChanged, CatalogueVersion, is_outdated
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, Lease
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_train.catalogue.content_fit import fit_content
from recsys_train.catalogue.records import read_records
from recsys_train.catalogue.report import CatalogueReport
from recsys_train.catalogue.update import ItemUpdates, apply_updates, read_updates
from recsys_train.data.unpack import Limits, unpack
from recsys_train.lease import LeaseKeeper

_logger: Final = logging.getLogger("recsys.train")

MERGE: Final = "merge"
"""Value of the option `mode` with which items and attributes are kept if the file does not mention them."""
MAX_MODEL_BYTES: Final = 2**30
"""Largest serving bundle that a catalogue job loads, in bytes. A bundle of this size has 250,000 items of width 512.
The limit saves memory for a training that may run at the same time.
"""
_MERGE_ATTEMPTS: Final = 5
_KEPT_S: Final = 600.0
"""Time for which a replaced catalogue is kept. Servers notice a new catalogue much sooner."""


@dataclass(frozen=True, slots=True)
class CatalogueUpdater:
    """A worker that runs the attempts of catalogue jobs.

    Parameters
    ----------
    store, registry
        Object store with the files and catalogues, and registry with the jobs.
    settings
        Limits for reading, the duration of a lease, and the seed.
    clock
        Function that returns the current time.
    on_renewal
        Function that is called each time the lease of a job is renewed.
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
            A store did not respond, or another update was published during each of several merges. Retry later.
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
        base = current_catalogue(self.store, key) if is_merged else EMPTY
        report = copy.deepcopy(report)  # `apply_updates` changes it in every round
        catalogue = apply_updates(base, updates, report)
        describes_more = report.added > 0 or list(catalogue.columns) != list(base.columns)
        kept_content = None if describes_more else base.content
        content = write_catalogue(self._with_content(key, catalogue, kept_content))
        name = layout.catalogue_prefix(key.key_id, lease.version) + layout.CATALOGUE_FILE
        self.store.delete(name)  # left by the previous round, which was not published
        self.store.create(name, content)
        sha256 = hashlib.sha256(content).hexdigest()
        read_catalogue(self.store.read(name), sha256=sha256)
        new = CatalogueVersion(lease.version, sha256, base=key.catalogue_version, is_merged=is_merged)
        self.registry.publish_catalogue(lease, new, report.to_json())

    def _with_content(self, key: KeyRecord, catalogue: Catalogue, kept: FittedContent | None) -> Catalogue:
        """Return the catalogue with a content part for the key's current model.

        If `kept` was fitted for this model, it is used again. Otherwise a content part is fitted, unless the model's
        own files contain one. A model whose serving bundle is larger than `MAX_MODEL_BYTES` gets its content part with
        the next training.
        """
        name = key.current_version
        if name is None:
            return catalogue
        if kept is not None and kept.model_version == name:
            return replace(catalogue, content=kept)
        prefix, sha256 = layout.model_prefix(key.key_id, name), key.current_manifest_sha256

        def read(file: str) -> bytes:
            return self.store.read(prefix + file)

        try:
            if artifact.read_entry(read, artifact.CONTENT, manifest_sha256=sha256) is not None:
                return catalogue
            serving = artifact.read_entry(read, artifact.SERVING, manifest_sha256=sha256)
            if serving is None or serving["size_bytes"] > MAX_MODEL_BYTES:
                return catalogue
            model = artifact.read_model(read, manifest_sha256=sha256)
        except ArtifactDamaged as error:
            _logger.warning("The model %s gets no content part: %s", name, error.detail)
            return catalogue
        arrays = fit_content(catalogue, list(model.items), model.network, seed=self.settings.seed)
        return catalogue if arrays is None else replace(catalogue, content=FittedContent(name, arrays))

    def _remove_replaced(self, key_id: str) -> None:
        """Delete catalogues that were replaced more than `_KEPT_S` seconds ago, because no server reads them any more.

        A catalogue counts as replaced from the time at which the next catalogue was stored.
        """
        key = self.registry.get_key(key_id)
        current = layout.catalogue_prefix(key_id, key.catalogue_version) if key.catalogue_version else None
        oldest_kept = after(self.clock(), -_KEPT_S)
        infos = sorted(self.store.list(layout.catalogue_prefix(key_id)), key=lambda info: info.arrived_at)
        for info, following in pairwise(infos):
            is_current = current is not None and info.name.startswith(current)
            if not is_current and following.arrived_at < oldest_kept:
                self.store.delete(info.name)


def current_catalogue(store: ObjectStore, key: KeyRecord) -> Catalogue:
    """Return the catalogue of a key. If the key has no catalogue, the result is empty.

    Raises
    ------
    ObjectNotFound, ArtifactDamaged
        The file of the catalogue is missing or damaged.
    """
    if key.catalogue_version is None or key.catalogue_sha256 is None:
        return EMPTY
    name = layout.catalogue_prefix(key.key_id, key.catalogue_version) + layout.CATALOGUE_FILE
    return read_catalogue(store.read(name), sha256=key.catalogue_sha256)


def content_writer(
    store: ObjectStore, registry: Registry, key_id: str, seed: int
) -> Callable[[Path, Sequence[str], Network], None]:
    """Return a function that fits the content part of a model and writes it to a file.

    The function reads the catalogue of the key when it is called. If the key has no usable catalogue, the function
    writes no file. See `recsys_train.catalogue.content_fit`.
    """

    def write(path: Path, item_ids: Sequence[str], network: Network) -> None:
        try:
            catalogue = current_catalogue(store, registry.get_key(key_id))
        except (ArtifactDamaged, KeyNotFound, ObjectNotFound) as error:
            _logger.warning("The model gets no content part: %s", error.detail)
            return
        arrays = fit_content(catalogue, item_ids, network, seed=seed)
        if arrays is not None:
            write_npz(path, arrays)

    return write


def report_of(error: InvalidData) -> dict[str, Any] | None:
    """Return the report that an error contains, or None.

    An error contains a report if the file was read but cannot be used.
    """
    report = getattr(error, "report", None)
    return None if report is None else dict(report.to_json())
