"""The worker process of the local service: trains on the files that appear in the data directory.

It ends when its standard input is closed, which happens when the process that started it ends for any reason.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from recsys.clock import utc_now
from recsys.errors import JobBusy, LeaseLost, RecsysError, Unavailable
from recsys.registry.records import Job, JobState, Lease, Progress
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_local.adapters import open_registry, open_store
from recsys_local.catalogue_worker import CatalogueWorker
from recsys_local.disk_space import DiskSpace, is_full_disk
from recsys_local.garbage import collect_garbage, log_collection
from recsys_local.progress import TrainingProgress
from recsys_local.queue_file import QueueFile
from recsys_local.readiness import FreeSpaceCheck
from recsys_local.training_queue import EndJob, TrainingQueue
from recsys_local.watcher import ObjectWatcher
from recsys_local.worker_process import HEARTBEAT, HEARTBEAT_EVERY_S, SCRATCH
from recsys_train.events import ObjectCreated, process
from recsys_train.job import Trainer

_logger: Final = logging.getLogger("recsys.worker")

LOOK_EVERY_S: Final = 0.5
MAX_LOOK_SHARE: Final = 0.05
"""Share of the time that an idle worker may spend on listing files, even if the inbox contains many."""
COLLECT_EVERY_S: Final = 3600.0
RETRY_AFTER_S: Final = 5.0
NICENESS: Final = 10
"""Lowers the priority of trainings, so that they take the time that answering requests leaves: docs/benchmarks.md."""
_STDIN: Final = 0


def main() -> None:
    """Run training jobs until the parent process ends."""
    data_dir = _parse_arguments()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # Blocked before any thread starts, so that the signal waits for `_stop_on_signal` even if TensorFlow is busy.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.nice(NICENESS)
    settings = Settings.from_environment(backend="local", data_dir=data_dir)
    registry = open_registry(data_dir, audit_days=settings.audit_days)
    current = CurrentJob(registry)
    for stop in (_stop_with_parent, _stop_on_signal):
        threading.Thread(target=stop, args=(current,), name=stop.__name__, daemon=True).start()
    _use_scratch(data_dir / SCRATCH)
    threading.Thread(target=_beat, args=(data_dir / HEARTBEAT,), name="heartbeat", daemon=True).start()
    store = open_store(data_dir)
    disk_space = DiskSpace(FreeSpaceCheck(data_dir, settings.min_free_bytes))
    trainer_of = partial(Trainer, store, registry, settings, counts_attempt=disk_space.counts_attempt)
    trainer = trainer_of(owner="local-worker", on_progress=current)
    watcher = ObjectWatcher(store, data_dir)
    queue = TrainingQueue(trainer, watcher, QueueFile(data_dir))
    CatalogueWorker(trainer_of(owner="local-catalogue-worker"), LogOnChange().log_on_change).start()
    looking, collecting = LogOnChange(), LogOnChange()
    next_collection_s = 0.0
    while True:
        started_s = time.monotonic()
        look_s, event = 0.0, None
        with looking.log_on_change():
            ended = queue.look()
            look_s = time.monotonic() - started_s
            for ended_event, end in ended:
                _work(ended_event, trainer, watcher, current, end)
            if disk_space.allows_training() and (event := queue.start()) is not None:
                _work(event, trainer, watcher, current)
                queue.finish()
        if time.monotonic() >= next_collection_s:
            next_collection_s = time.monotonic() + COLLECT_EVERY_S
            with collecting.log_on_change():
                log_collection(collect_garbage(data_dir, store, registry, settings))
        if event is None:
            time.sleep(max(LOOK_EVERY_S, look_s / MAX_LOOK_SHARE))


def _parse_arguments() -> Path:
    """Return the data directory."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir: Path = parser.parse_args().data_dir
    return data_dir


class LogOnChange:
    """Lets the worker continue while a store is unavailable, and logs the reason once instead of at each attempt."""

    def __init__(self) -> None:
        self._last: str | None = None

    @contextlib.contextmanager
    def log_on_change(self) -> Iterator[None]:
        """Suppress `Unavailable` raised in the context, and log it if it differs from the previous one."""
        try:
            yield
        except Unavailable as error:
            if error.detail != self._last:
                _logger.warning("%s %s Retrying.", error.detail, error.hint or "")
            self._last = error.detail
        else:
            self._last = None


def _work(
    event: ObjectCreated,
    trainer: Trainer,
    watcher: ObjectWatcher,
    current: CurrentJob,
    end: EndJob | None = None,
) -> None:
    """Train on one object, log the outcome, and mark the object as done unless it must be retried.

    If `end` is given, it is called to end the job instead of training.
    """
    started_at = utc_now()
    try:
        with contextlib.closing(current):
            job = (end or process)(event, trainer)
    except (JobBusy, LeaseLost, Unavailable) as error:
        _logger.warning("%s: %s Retrying.", event.name, error.detail)
        time.sleep(RETRY_AFTER_S)
        return
    except Exception as error:  # the other files get their turn; the attempts of a job are counted and bounded
        if is_full_disk(error):
            _logger.warning("%s: the disk became full during the training. Retrying.", event.name)
        else:
            _logger.exception("%s: the training failed. Retrying.", event.name)
        time.sleep(RETRY_AFTER_S)
        return
    watcher.mark_done(event)
    # After a restart, the files of earlier jobs are found again; their outcome was logged when they finished.
    if job is not None and job.updated_at >= started_at:
        _logger.info("%s: %s", event.name, _outcome(job))


def _outcome(job: Job) -> str:
    if job.state is JobState.SUCCEEDED and job.version is None:
        return "the file is valid"
    if job.state is JobState.SUCCEEDED:
        return f"version {job.version} is live"
    if job.state is JobState.HELD:
        reasons = " ".join(reason["text"] for reason in job.held_reasons or ())
        return f"version {job.version} is held. {reasons} Activate it, or send the file again with force=true."
    if job.problem is not None:
        return f"{job.state}: {job.problem.detail}"
    return str(job.state)


class CurrentJob:
    """Shows the progress of the current job, and puts the job back into the queue when the worker is stopped.

    Parameters
    ----------
    registry
        Registry of the job.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._job: Job | None = None
        self._display = contextlib.ExitStack()
        self._show = TrainingProgress()

    def __call__(self, job: Job, progress: Progress) -> None:
        """Show a progress report of `job`, which becomes the current job."""
        if self._job is None or (job.job_id, job.fence) != (self._job.job_id, self._job.fence):
            self.close()
            self._job = job
            self._show = self._display.enter_context(TrainingProgress(f"job {job.job_id[:6]}…"))
        self._show(progress)

    def close(self) -> None:
        """End the display of the current job, whether it succeeded or not."""
        self._display.close()
        self._job = None

    def release(self) -> None:
        """Put the current job back into the queue without counting the attempt. This is called from another thread."""
        job = self._job
        if job is not None:
            with contextlib.suppress(LeaseLost, Unavailable):  # it has just ended, or the attempt is counted after all
                self._registry.release_job(Lease(job))


def _use_scratch(folder: Path) -> None:
    """Empty `folder` and use it for temporary files, because a worker that is killed cannot remove its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)


def _beat(heartbeat: Path) -> None:
    """Update the modification time of the heartbeat file at regular intervals, which works even on a full disk."""
    while True:
        with contextlib.suppress(OSError):  # the service notices that the data directory is missing
            heartbeat.touch()
        time.sleep(HEARTBEAT_EVERY_S)


def _stop_with_parent(current: CurrentJob) -> None:
    # os.read, not sys.stdin: a thread that holds sys.stdin's lock would block the interpreter's shutdown.
    while os.read(_STDIN, 1024):
        pass
    _stop(current)


def _stop_on_signal(current: CurrentJob) -> None:
    # A service manager sends SIGTERM to every process of the service at once.
    signal.sigwait({signal.SIGTERM})
    _stop(current)


def _stop(current: CurrentJob) -> None:
    current.release()
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
    except RecsysError as error:
        sys.exit(f"{error.detail} {error.hint or ''}")
