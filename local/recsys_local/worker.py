"""The worker process of the local service: trains on what appears in the data directory.

It ends when its standard input does, which is when the process that started it ends, however that ended.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from recsys.clock import DAY_S, after, utc_now
from recsys.errors import JobBusy, LeaseLost, RecsysError, Unavailable
from recsys.objects.layout import RECEIPTS, UPLOADS
from recsys.objects.store import ObjectStore
from recsys.registry.records import Job, JobState, Progress
from recsys.settings import Settings
from recsys_local.adapters import open_registry, open_store
from recsys_local.progress import TrainingProgress
from recsys_local.watcher import ObjectWatcher
from recsys_train.events import ObjectCreated, process
from recsys_train.job import Trainer

logger = logging.getLogger("recsys.worker")

LOOK_EVERY_S = 0.5
SWEEP_EVERY_S = 3600.0
RETRY_AFTER_S = 5.0
SCRATCH = ".scratch"
"""In the data directory: the files of a version until they are uploaded."""
_STDIN = 0


def main() -> None:
    """Run until the parent process is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    data_dir: Path = parser.parse_args().data_dir
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    threading.Thread(target=_end_with_parent, name="parent-watch", daemon=True).start()
    _take_scratch(data_dir / SCRATCH)
    settings = Settings.from_environment(backend="local", data_dir=data_dir)
    store = open_store(data_dir)
    registry, terminal = open_registry(data_dir), Terminal()
    trainer = Trainer(store, registry, settings, owner="local-worker", on_progress=terminal)
    watcher = ObjectWatcher(store)
    looking, sweeping = LogOnChange(), LogOnChange()
    next_sweep = 0.0
    while True:
        with looking.log_on_change():
            for event in watcher.look():
                _work(event, trainer, watcher, terminal)
        if time.monotonic() >= next_sweep:
            next_sweep = time.monotonic() + SWEEP_EVERY_S
            with sweeping.log_on_change():
                registry.remove_expired()
                sweep_expired(store, keep_days=settings.upload_days)
        time.sleep(LOOK_EVERY_S)


class LogOnChange:
    """Lets the worker go on where a store or the registry does not answer, and says why, once."""

    def __init__(self) -> None:
        self._last: str | None = None

    @contextlib.contextmanager
    def log_on_change(self) -> Iterator[None]:
        """Log `Unavailable` raised within, unless it was the last thing that was said."""
        try:
            yield
        except Unavailable as error:
            if error.detail != self._last:
                logger.warning("%s %s Trying again.", error.detail, error.hint or "")
            self._last = error.detail
        else:
            self._last = None


def _work(event: ObjectCreated, trainer: Trainer, watcher: ObjectWatcher, terminal: Terminal) -> None:
    try:
        with contextlib.closing(terminal):
            job = process(event, trainer)
    except (JobBusy, LeaseLost, Unavailable) as error:
        logger.warning("%s: %s Trying again.", event.name, error.detail)
        time.sleep(RETRY_AFTER_S)
        return
    except Exception:  # whatever it is, the other files' turn comes; the job's attempts are counted and bounded
        logger.exception("%s: the training failed. Trying again.", event.name)
        time.sleep(RETRY_AFTER_S)
        return
    watcher.done(event)
    if job is not None and job.receipted_at is None:
        logger.info("%s: %s", event.name, _outcome(job))


def _outcome(job: Job) -> str:
    if job.state is JobState.SUCCEEDED:
        return f"version {job.version} is live"
    if job.problem is not None:
        return f"{job.state}: {job.problem.detail}"
    return str(job.state)


def sweep_expired(store: ObjectStore, *, keep_days: int) -> None:
    """Delete uploads and receipts older than `keep_days`: what the bucket's lifecycle does on AWS.

    Drops stay: they are files of the owner of the machine, and their own times say nothing.
    """
    oldest_kept = after(utc_now(), -keep_days * DAY_S)
    for prefix in (UPLOADS, RECEIPTS):
        for info in list(store.list(prefix)):
            if info.modified_at < oldest_kept:
                store.delete(info.name)


class Terminal:
    """Shows each job's progress in turn, until it is closed."""

    def __init__(self) -> None:
        self._job_id: str | None = None
        self._display = contextlib.ExitStack()
        self._show = TrainingProgress()

    def __call__(self, job: Job, progress: Progress) -> None:
        """Show how far `job` is."""
        if job.job_id != self._job_id:
            self.close()
            self._job_id = job.job_id
            self._show = self._display.enter_context(TrainingProgress(f"job {job.job_id[:6]}…"))
        self._show(progress)

    def close(self) -> None:
        """End the display of the job, however the job ended."""
        self._display.close()
        self._job_id = None


def _take_scratch(folder: Path) -> None:
    """Have temporary files in a folder that is emptied with every start: a worker that is killed cannot clean up."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)


def _end_with_parent() -> None:
    # Not sys.stdin: its lock, held here, is wanted when the interpreter ends.
    while os.read(_STDIN, 1024):
        pass
    os._exit(0)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(0)
    except RecsysError as error:
        sys.exit(f"{error.detail} {error.hint or ''}")
