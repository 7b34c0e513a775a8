"""Run a job, which trains a model on a file, and uploads and publishes the version.

A validation job only reads its file. A catalogue job updates the item catalogue instead of training.

Invalid data makes the job fail. Any other error is raised, so that the queue delivers the message again. After the last
attempt, such an error makes the job fail, too.
"""

from __future__ import annotations

import contextlib
import logging
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Final

from recsys.clock import Clock, utc_now
from recsys.errors import (
    InvalidData,
    JobFinished,
    KeyNotFound,
    LeaseLost,
    RecsysError,
    Unavailable,
)
from recsys.file_options import FileOptions, Mode
from recsys.model import artifact
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry import excluded_items, rules
from recsys.registry.erasures import Erasures
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose, Lease, ModelVersion, Progress
from recsys.registry.registry import Published, Registry
from recsys.settings import Settings
from recsys_train.append_base import key_data_of
from recsys_train.assessment import assess
from recsys_train.build import BuiltVersion, build_version
from recsys_train.catalogue_job import CatalogueUpdater, content_writer, report_of
from recsys_train.data.upload import read_upload
from recsys_train.failures import kill_reason, log_last_failure, reason_of, training_failed
from recsys_train.job_file import file_options, open_file
from recsys_train.lease import LeaseKeeper

_logger: Final = logging.getLogger("recsys.train")

OnJobProgress = Callable[[Job, Progress], None]
"""Function that is called with a job and its progress. The local service uses the call to draw a progress bar."""

_METRICS_OF_VERSION_ONLY: Final = ("data", "protocol", "format")
"""Parts of `metrics.json` that the registry does not store. The job already contains `data`, the data report."""
_MAX_REBASES: Final = 5
"""Largest number of trainings per event, if another version is published during each training. Not tuned."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """A worker that runs training jobs.

    Parameters
    ----------
    store, registry
        Object store of the files and the model versions, and registry of the jobs.
    settings
        Limits, lease and time budget.
    owner
        Name of this worker. A worker that restarts may resume a job whose lease it still holds.
    clock
        Function that returns the current time.
    on_progress
        Function that is called with the progress of every job.
    time_left_s
        Function that returns the seconds until the worker is terminated from outside.
    on_renewal
        Function that is called each time the lease of a job is renewed.
    max_kills
        Number of killed attempts after which a job fails. An attempt is killed when it runs out of memory or time, for
        example.
    max_kill_age_s
        Age of an attempt, in seconds. If an attempt is killed at a greater age, the job fails, because another attempt
        would end in the same way.
    counts_attempt
        Function that returns whether an attempt that ended with this error counts towards the limit of attempts. If
        not, the job returns to the queue.
    """

    store: ObjectStore
    registry: Registry
    settings: Settings
    owner: str
    clock: Clock = utc_now
    on_progress: OnJobProgress = lambda _job, _progress: None
    time_left_s: Callable[[], float] = lambda: math.inf
    on_renewal: Callable[[], None] = lambda: None
    max_kills: float = math.inf
    max_kill_age_s: float = math.inf
    counts_attempt: Callable[[Exception], bool] = lambda _error: True

    def run(self, job_id: str, *, data_timestamp: str) -> Job:
        """Run a job until it is in a final state.

        Parameters
        ----------
        job_id
            Id of the job. If the job is already in a final state, nothing is done.
        data_timestamp
            Time at which the data arrived, as `<timestamp>#<tiebreak>`. The job is superseded if the current version of
            its key was trained on newer data.

        Returns
        -------
        Job
            The job in its final state, which is succeeded, held, failed or superseded. Objects of its unpublished
            attempts have been deleted.

        Raises
        ------
        JobNotFound
            The job does not exist.
        JobBusy
            Another worker holds the lease. Retry later, because that worker may have died.
        LeaseLost
            Another worker took the job over during the training.
        Unavailable
            A store did not respond. Retry later. Also raised in the mode `append` if another version was published
            during each of five trainings.
        Exception
            Any other error, unless the attempt was the last one. Retry later.
        """
        for _ in range(_MAX_REBASES):
            try:
                lease = self.registry.claim_job(
                    job_id, owner=self.owner, data_timestamp=data_timestamp, lease_s=self.settings.lease_s
                )
            except JobFinished:
                return self._finished(job_id)
            if self._run_attempt(lease):
                return self._finished(job_id)
        raise Unavailable(f"Other versions were published during each of {_MAX_REBASES} trainings of the job {job_id}.")

    def _run_attempt(self, lease: Lease) -> bool:
        """Run an attempt. Return False if the job was queued again, because its base version is no longer current."""
        try:
            return self._attempt(lease)
        except InvalidData as error:
            self.registry.fail_job(lease, error.to_problem(), report_of(error))
        except LeaseLost:
            self._remove_version(lease.job, lease.version)
            raise
        except Exception as error:
            if not self.counts_attempt(error):
                self._release(lease)
                raise
            if lease.job.counted_attempts < self.settings.max_attempts:
                self._record_error(lease)
                raise
            log_last_failure(lease, error)
            self.registry.fail_job(lease, training_failed(lease.job.counted_attempts, reason_of(error)), None)
        return True

    def supersede(self, job_id: str, *, data_timestamp: str) -> Job:
        """End a job as superseded without training, unless it is already in a final state.

        Parameters
        ----------
        job_id, data_timestamp
            The same as in `run`.

        Returns
        -------
        Job
            The finished job. Objects of its unpublished attempts have been deleted.

        Raises
        ------
        JobNotFound
            The job does not exist.
        JobBusy
            Another worker holds the lease.
        LeaseLost
            Another worker has taken the job over in the meantime.
        """
        with contextlib.suppress(JobFinished):
            lease = self.registry.claim_job(
                job_id, owner=self.owner, data_timestamp=data_timestamp, lease_s=self.settings.lease_s
            )
            self.registry.supersede_job(lease)
        return self._finished(job_id)

    def _record_error(self, lease: Lease) -> None:
        """Record that this attempt failed with an error. An attempt that ends without this record counts as killed."""
        try:
            self.registry.record_error(lease)
        except RecsysError as error:
            # The attempt then counts as killed. This matters only if further attempts are killed.
            _logger.warning("Attempt %s could not be marked: %s", lease.version, error.detail)

    def _release(self, lease: Lease) -> None:
        """Put the job back into the queue, and delete the objects that this attempt has stored."""
        try:
            self.registry.release_job(lease)  # first, because it fails if the version was published after all
            self._remove_version(lease.job, lease.version)
        except RecsysError as error:
            _logger.warning("Attempt %s could not be taken back: %s", lease.version, error.detail)

    def _finished(self, job_id: str) -> Job:
        """Return the finished job after deleting the objects of all its versions except the published version."""
        job = self.registry.get_job(job_id)
        for fence in range(1, job.fence + 1):
            version = f"{job_id}.{fence}"
            if version != job.version:
                self._remove_version(job, version)
        return job

    def _attempt(self, lease: Lease) -> bool:
        if self._is_given_up(lease):
            reason = kill_reason(lease.job, time_limit_s=self.time_left_s())
            self.registry.fail_job(lease, training_failed(lease.job.counted_attempts - 1, reason), None)
            return True
        key = self._check_key(lease.job.key_id)
        if lease.job.purpose is JobPurpose.CATALOGUE:
            updater = CatalogueUpdater(self.store, self.registry, self.settings, self.clock, self.on_renewal)
            updater.attempt(lease, key, self._source(lease.job))
            return True
        validates = lease.job.purpose is JobPurpose.VALIDATE
        if rules.is_outdated(key, lease.job) and not validates:
            self.registry.supersede_job(lease)
            return True
        options = file_options(self.store, lease.job, key)
        with LeaseKeeper(self.registry, lease, lease_s=self.settings.lease_s, on_renewal=self.on_renewal) as keeper:

            def on_progress(progress: Progress) -> None:
                keeper.report(progress)
                self.on_progress(lease.job, progress)

            if validates:
                self._validate(lease, options, on_progress)
                return True
            with tempfile.TemporaryDirectory(prefix="recsys-train-") as folder:
                built = self._train(lease, key, Path(folder), options, on_progress)
                self._upload(lease, Path(folder), built.manifest_sha256)
            keeper.check()
            return self._publish(lease, key, built, options)

    def _is_given_up(self, lease: Lease) -> bool:
        """Return whether the job must fail without another attempt.

        This is the case after too many attempts, after too many killed attempts, or if the last attempt was killed so
        late that another attempt would end in the same way.
        """
        job = lease.job
        was_late = job.killed_after_s is not None and job.killed_after_s > self.max_kill_age_s
        return job.counted_attempts > self.settings.max_attempts or job.kills >= self.max_kills or was_late

    def _check_key(self, key_id: str) -> KeyRecord:
        """Return the job's key. Raise `InvalidData` if the key does not exist or was revoked."""
        try:
            key = self.registry.get_key(key_id)
        except KeyNotFound:
            key = None
        if key is None or key.revoked_at is not None:
            raise InvalidData(
                f"The key {key_id} does not exist, has expired or was revoked.",
                code="unknown-key",
                hint="To get a new key, drop the file directly into inbox/, or send it to POST /v1/train without a "
                "key.",
            )
        return key

    def _validate(self, lease: Lease, options: FileOptions, on_progress: Callable[[Progress], None]) -> None:
        on_progress(Progress("reading"))
        _, report = read_upload(self._source(lease.job), self.settings, options=options, time_left_s=self.time_left_s)
        self.registry.finish_validation(lease, report.to_json())

    def _train(
        self, lease: Lease, key: KeyRecord, folder: Path, options: FileOptions, on_progress: Callable[[Progress], None]
    ) -> BuiltVersion:
        return build_version(
            self._source(lease.job),
            folder,
            lease.version,
            self.settings,
            on_progress,
            options=options,
            time_left_s=self.time_left_s,
            key_data=key_data_of(self.store, key, lease.job, folder),
            write_content=content_writer(self.store, self.registry, key.key_id, self.settings.seed),
        )

    def _source(self, job: Job) -> Callable[[], BinaryIO]:
        return partial(open_file, self.store, job, max_bytes=self.settings.max_upload_bytes)

    def _upload(self, lease: Lease, folder: Path, manifest_sha256: str) -> None:
        """Store the files of the version, the manifest last. Check them by loading the version as a server does."""
        prefix = layout.model_prefix(lease.job.key_id, lease.version)
        for name in (*artifact.files_in(folder), artifact.MANIFEST):
            with (folder / name).open("rb") as content:
                self.store.create(prefix + name, content)
        artifact.read_model(lambda name: self.store.read(prefix + name), manifest_sha256=manifest_sha256)

    def _publish(self, lease: Lease, key: KeyRecord, built: BuiltVersion, options: FileOptions) -> bool:
        """Publish or hold the version. Return False if the job was queued again instead.

        `key` is the record of the key at the start of the attempt. If another version has become current since then,
        the new version is compared with that version. If the job has added its file to a base version that is no longer
        current, the job is queued again.
        """
        job = lease.job
        version = ModelVersion(
            job.key_id,
            lease.version,
            job.job_id,
            self.clock(),
            built.manifest_sha256,
            _summary(built.metrics),
            base_version=key.current_version if job.mode is Mode.APPEND else None,
            erasures=Erasures.parse(key.erasures).last or None,
            excluded_items=excluded_items.to_text(options.exclude_items or ()),
        )
        may_hold = self.settings.hold_versions and not options.force
        published = Published.OUTDATED
        while published is Published.OUTDATED:
            assessment = assess(built, job.key_id, self.store, self.registry, may_hold=may_hold)
            published = self.registry.publish_version(lease, version, built.report.to_json(), assessment)
        if published is Published.OUTDATED_BASE:
            self.registry.release_job(lease)
        return published is not Published.OUTDATED_BASE

    def _remove_version(self, job: Job, version: str) -> None:
        prefix = layout.catalogue_prefix if job.purpose is JobPurpose.CATALOGUE else layout.model_prefix
        for info in list(self.store.list(prefix(job.key_id, version))):
            self.store.delete(info.name)


def _summary(metrics: dict[str, Any]) -> dict[str, Any]:
    """Return the part of the metrics that the registry stores."""
    return {name: value for name, value in metrics.items() if name not in _METRICS_OF_VERSION_ONLY}
