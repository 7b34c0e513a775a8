"""The worker process of the local service, which trains on the files that appear in the data directory.

A worker ends when its standard input is closed. This happens when the process that started the worker ends for any
reason.
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
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Final, NoReturn

from recsys.errors import RecsysError, Unavailable
from recsys.settings import Settings
from recsys_local.adapters import open_registry, open_store
from recsys_local.catalogue_worker import CatalogueWorker
from recsys_local.disk_space import DiskSpace
from recsys_local.garbage import collect_and_log
from recsys_local.job_runner import CurrentJob, JobRunner
from recsys_local.readiness import FreeSpaceCheck
from recsys_local.training_queue import TrainingQueue
from recsys_local.watcher import ObjectWatcher
from recsys_local.worker_process import HEARTBEAT_EVERY_S, heartbeat_of, scratch_of
from recsys_train.job import Trainer

_logger: Final = logging.getLogger("recsys.worker")

LOOK_EVERY_S: Final = 0.5
MAX_LOOK_SHARE: Final = 0.05
"""Largest share of the time that an idle worker spends on listing files, even if the inbox contains many files."""
COLLECT_EVERY_S: Final = 3600.0
RETRY_AFTER_S: Final = 5.0
NICENESS: Final = 10
"""Niceness of the worker. Trainings have a low priority and get the CPU time that requests leave, see
docs/benchmarks.md."""
_STDIN: Final = 0


def main() -> None:
    """Run training jobs until the parent process ends or the worker receives SIGTERM."""
    arguments = _parse_arguments()
    data_dir: Path = arguments.data_dir
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    # SIGTERM is blocked before any thread starts, so that `_stop_on_signal` receives it even if TensorFlow is busy.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    os.nice(NICENESS)
    settings = Settings.from_environment(backend="local", data_dir=data_dir)
    registry = open_registry(data_dir, audit_days=settings.audit_days)
    current = CurrentJob(registry, draws_bars=arguments.n_workers == 1)
    for stop in (_stop_with_parent, _stop_on_signal):
        threading.Thread(target=stop, args=(current,), name=stop.__name__, daemon=True).start()
    _use_scratch(scratch_of(data_dir, arguments.number))
    heartbeat = heartbeat_of(data_dir, arguments.number)
    threading.Thread(target=_beat, args=(heartbeat,), name="heartbeat", daemon=True).start()
    store = open_store(data_dir)
    disk_space = DiskSpace(FreeSpaceCheck(data_dir, settings.min_free_bytes))
    trainer_of = partial(Trainer, store, registry, settings, counts_attempt=disk_space.counts_attempt)
    # All workers use the same name as the owner of leases, because the queue gives a job to only one worker at a time.
    # If a worker is killed, another worker can therefore claim the job at once.
    trainer = trainer_of(owner="local-worker", on_progress=current)
    watcher = ObjectWatcher(store, data_dir)
    queue = TrainingQueue(trainer, watcher, data_dir, worker=str(arguments.number), n_workers=arguments.n_workers)
    collect = None
    if arguments.number == 1:
        CatalogueWorker(trainer_of(owner="local-catalogue-worker"), LogOnChange().log_on_change).start()
        collect = partial(collect_and_log, data_dir, store, registry, settings)
    _run_jobs(queue, JobRunner(trainer, watcher, current), disk_space, collect)


def _parse_arguments() -> argparse.Namespace:
    """Return the arguments `data_dir`, `number` (of this worker, from 1) and `n_workers`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--number", type=int, required=True)
    parser.add_argument("--n-workers", type=int, required=True)
    return parser.parse_args()


def _run_jobs(
    queue: TrainingQueue, runner: JobRunner, disk_space: DiskSpace, collect: Callable[[], None] | None
) -> NoReturn:
    """Take one file after another from the queue that all workers share, and run the job of each file.

    Call `collect` once an hour.
    """
    looking, collecting = LogOnChange(), LogOnChange()
    next_collection_s = 0.0
    while True:
        is_done, event, look_s = True, None, 0.0
        with looking.log_on_change():
            with queue.turn() as turn:
                started_s = time.monotonic()
                ended = turn.look()
                look_s = time.monotonic() - started_s
                for ended_event, end in ended:
                    is_done &= runner.run(ended_event, end)
                next_event = turn.start() if disk_space.allows_training() else None
            event = next_event  # the queue has been stored, so that no other worker starts the same file
        if event is not None:
            is_done &= runner.run(event)
        if collect is not None and time.monotonic() >= next_collection_s:
            next_collection_s = time.monotonic() + COLLECT_EVERY_S
            with collecting.log_on_change():
                collect()
        if not is_done:
            time.sleep(RETRY_AFTER_S)
        elif event is None:
            time.sleep(max(LOOK_EVERY_S, look_s / MAX_LOOK_SHARE))


class LogOnChange:
    """A handler of `Unavailable` errors that lets the worker continue and logs each reason once.

    If successive attempts fail for the same reason, only the first failure is logged.
    """

    def __init__(self) -> None:
        self._last: str | None = None

    @contextlib.contextmanager
    def log_on_change(self) -> Iterator[None]:
        """Suppress an `Unavailable` error in the context, and log the error if it differs from the previous one."""
        try:
            yield
        except Unavailable as error:
            if error.detail != self._last:
                _logger.warning("%s %s Retrying.", error.detail, error.hint or "")
            self._last = error.detail
        else:
            self._last = None


def _use_scratch(folder: Path) -> None:
    """Delete the temporary files that a killed worker left in `folder`, and create all new temporary files there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(folder)


def _beat(heartbeat: Path) -> None:
    """Update the modification time of the heartbeat file at regular intervals. This works even on a full disk."""
    while True:
        with contextlib.suppress(OSError):  # the service notices that the data directory is missing
            heartbeat.touch()
        time.sleep(HEARTBEAT_EVERY_S)


def _stop_with_parent(current: CurrentJob) -> None:
    # os.read is used because a thread that holds the lock of sys.stdin would block the shutdown of the interpreter.
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
