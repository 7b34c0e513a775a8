"""One training job from its file to its published version: claim, read, fit, write, upload, commit.

Bad data fails the job and the message is done. Anything else that goes wrong is raised, so that the message comes back;
the attempt after the last one fails the job too.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from recsys.clock import Clock, utc_now
from recsys.errors import InvalidData, JobFinished, KeyNotFound, LeaseLost, ObjectNotFound, Problem, RecsysError
from recsys.model import artifact
from recsys.objects import layout
from recsys.objects.store import ObjectInfo, ObjectStore
from recsys.registry.records import Job, Lease, ModelVersion, Progress
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_train.build import Built, build_version
from recsys_train.data.csv_reader import UntrainableCsv
from recsys_train.lease import LeaseKeeper

Watcher = Callable[[Job, Progress], None]
"""Told how far a job is, beside the registry: a terminal's progress bar."""


@dataclass(frozen=True, slots=True)
class Trainer:
    """What a training needs of the outside. `owner` names this worker: it may take up again what it left behind."""

    store: ObjectStore
    registry: Registry
    settings: Settings
    owner: str
    clock: Clock = utc_now
    watch: Watcher = lambda _job, _progress: None
    time_left_s: Callable[[], float] = lambda: math.inf
    """Seconds until the worker is ended from outside."""

    def run(self, job_id: str, *, data_timestamp: str) -> Job:
        """Work on a job until it is final; a job that is final already is returned as it is.

        Raises
        ------
        JobNotFound
            No such job; the object that asked for it is none of ours.
        JobBusy
            Another worker is on it; if that one dies, ask again.
        LeaseLost
            Another worker took it over.
        """
        try:
            lease = self.registry.claim_job(
                job_id, owner=self.owner, data_timestamp=data_timestamp, lease_s=self.settings.lease_s
            )
        except JobFinished:
            return self._finished(job_id)
        try:
            self._attempt(lease)
        except InvalidData as error:
            report = error.report.to_json() if isinstance(error, UntrainableCsv) else None
            self.registry.fail_job(lease, error.to_problem(), report)
        except LeaseLost:
            self._remove_version(lease.job.key_id, lease.version)
            raise
        except Exception as error:
            if lease.job.counted_attempts < self.settings.max_attempts:
                raise
            self.registry.fail_job(lease, _given_up(error, lease), None)
        return self._finished(job_id)

    def _finished(self, job_id: str) -> Job:
        """The job, final, after removing what its attempts left behind: everything but the version it published."""
        job = self.registry.get_job(job_id)
        for fence in range(1, job.fence + 1):
            version = f"{job_id}.{fence}"
            if version != job.version:
                self._remove_version(job.key_id, version)
        return job

    def _attempt(self, lease: Lease) -> None:
        # Then the previous attempts ended without an error: the worker was killed or ran out of memory.
        if lease.job.counted_attempts > self.settings.max_attempts:
            self.registry.fail_job(lease, _given_up(None, lease), None)
            return
        if self._is_outdated(lease):
            self.registry.supersede_job(lease)
            return
        with LeaseKeeper(self.registry, lease, lease_s=self.settings.lease_s) as keeper:

            def on_progress(progress: Progress) -> None:
                keeper.report(progress)
                self.watch(lease.job, progress)

            with tempfile.TemporaryDirectory(prefix="recsys-train-") as folder:
                built = self._train(lease, Path(folder), on_progress)
                self._upload(lease, Path(folder), built.manifest_sha256)
            keeper.check()
            self._publish(lease, built)

    def _is_outdated(self, lease: Lease) -> bool:
        try:
            key = self.registry.get_key(lease.job.key_id)
        except KeyNotFound:
            key = None
        if key is None or key.revoked_at is not None:
            raise InvalidData(
                f"There is no key {lease.job.key_id}, or it expired or was revoked.",
                code="unknown-key",
                hint="Drop the file into inbox/ itself, or POST it without a key, to get a new one.",
            )
        current = key.current_data_timestamp
        return current is not None and lease.job.data_timestamp is not None and lease.job.data_timestamp < current

    def _train(self, lease: Lease, folder: Path, on_progress: Callable[[Progress], None]) -> Built:
        return build_version(
            partial(self._open, lease.job),
            folder,
            lease.version,
            self.settings,
            on_progress,
            time_left_s=self.time_left_s,
        )

    def _open(self, job: Job) -> BinaryIO:
        try:
            stream = self.store.open(job.object_name)
            try:
                # Looked up while it is open: a write in between shows as another version.
                self._check_source(job, self.store.info(job.object_name))
            except BaseException:
                stream.close()
                raise
        except ObjectNotFound as error:
            raise InvalidData(
                "The uploaded file is gone.", code="upload-missing", hint="Send the file again."
            ) from error
        return stream

    def _check_source(self, job: Job, info: ObjectInfo) -> None:
        if job.object_version not in (None, info.version):
            raise InvalidData(
                "The file was replaced before it was read; the newer one trains by itself.",
                code="upload-replaced",
                hint="Look at the receipt again once the newer file was trained on.",
            )
        if info.size_bytes > self.settings.max_upload_bytes:
            raise InvalidData(
                f"The file has {info.size_bytes:,} bytes; at most {self.settings.max_upload_bytes:,} are taken.",
                code="upload-too-large",
                hint="Compress it with gzip or send fewer rows: the most recent ones count most.",
            )

    def _upload(self, lease: Lease, folder: Path, manifest_sha256: str) -> None:
        """Create the version's objects, the manifest last; then read them back as a server would."""
        prefix = layout.model_prefix(lease.job.key_id, lease.version)
        for name in (*artifact.LISTED_FILES, artifact.MANIFEST):
            with (folder / name).open("rb") as content:
                self.store.create(prefix + name, content)
        artifact.read_model(lambda name: self.store.read(prefix + name), manifest_sha256=manifest_sha256)

    def _publish(self, lease: Lease, built: Built) -> None:
        job = lease.job
        version = ModelVersion(
            job.key_id, lease.version, job.job_id, self.clock(), built.manifest_sha256, _summary(built.metrics)
        )
        self.registry.publish_version(lease, version, built.report.to_json())

    def _remove_version(self, key_id: str, version: str) -> None:
        for info in list(self.store.list(layout.model_prefix(key_id, version))):
            self.store.delete(info.name)


def _summary(metrics: dict[str, Any]) -> dict[str, Any]:
    """What of the metrics goes into the registry: all but the data report, which the job keeps."""
    return {name: value for name, value in metrics.items() if name not in ("data", "protocol", "format")}


def _given_up(error: Exception | None, lease: Lease) -> Problem:
    if error is None:
        reason = "the worker was ended from outside, most likely for want of memory or time"
    else:
        reason = error.detail if isinstance(error, RecsysError) else f"an unexpected {type(error).__name__}"
    return Problem(
        "training-failed",
        "The training did not come to an end",
        f"Training was tried {lease.job.counted_attempts} times without success; the last time: {reason}.",
        "Send the file again; if it fails again, send fewer rows or give the training more memory and time.",
    )
