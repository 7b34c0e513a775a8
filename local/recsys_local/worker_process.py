"""Start the training workers, and replace a worker that ends or hangs."""

from __future__ import annotations

import contextlib
import logging
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from recsys.settings import set_default_environment

_logger: Final = logging.getLogger("recsys.service")

SCRATCH: Final = ".scratch"
"""Folder in the data directory for the state of the queue, and for the temporary files and the heartbeats of the
workers."""
HEARTBEAT_EVERY_S: Final = 2.0
RESTART_AFTER_S: Final = 1.0
"""Pause before a worker that ended is started again, in seconds. Without the pause, a worker that cannot start
would use a whole CPU core."""
STOP_TIMEOUT_S: Final = 5.0
"""Seconds that a worker may take to put its job back into the queue. A worker that imports TensorFlow does not respond
in this time and is killed."""
START_TIMEOUT_S: Final = 600.0
"""Seconds that a worker may take until its first heartbeat. The worker imports TensorFlow before that."""
_BLAS_THREADS: Final = "OPENBLAS_NUM_THREADS"
"""Environment variable with the number of threads of NumPy's linear algebra. A worker has one thread, unless the
variable is set. Several threads wait actively for each other, so that a training beside other programs takes several
times as long (docs/decisions/0053-worker-processes.md)."""
_POLL_S: Final = 0.5


def scratch_of(data_dir: Path, number: int) -> Path:
    """Return the folder for the temporary files of a worker. The worker empties the folder when it starts."""
    return data_dir / SCRATCH / f"worker-{number}"


def heartbeat_of(data_dir: Path, number: int) -> Path:
    """Return the file that a worker touches every `HEARTBEAT_EVERY_S` seconds, even during a training."""
    return scratch_of(data_dir, number) / "heartbeat"


class WorkerPool:
    """Context manager that keeps `n_workers` training workers running.

    Parameters
    ----------
    data_dir
        Data directory that the workers read and write. The caller must hold the lock of the directory.
    n_workers
        Number of workers.
    hung_after_s
        Seconds without a heartbeat after which a worker is killed and replaced. The value must be at least the duration
        of a lease.
    """

    def __init__(self, data_dir: Path, n_workers: int, *, hung_after_s: float) -> None:
        self._scratch = data_dir / SCRATCH
        self._workers = [
            WorkerProcess(data_dir, number, n_workers, hung_after_s=hung_after_s) for number in range(1, n_workers + 1)
        ]
        self._running = contextlib.ExitStack()

    def silent_s(self) -> list[float]:
        """Return the seconds since each worker's last heartbeat, in order of worker number."""
        return [worker.silent_s for worker in self._workers]

    def __enter__(self) -> Self:
        shutil.rmtree(self._scratch, ignore_errors=True)  # the state of a queue whose workers have ended
        self._scratch.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as started:
            for worker in self._workers:
                started.enter_context(worker)
            self._running = started.pop_all()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        for worker in self._workers:  # all of them first, so that they stop at the same time
            worker.request_stop()
        self._running.close()


class WorkerProcess:
    """Context manager that keeps one training worker running.

    The standard input of the worker is a pipe from this process, so that the worker also ends if this process is
    killed.

    Parameters
    ----------
    data_dir
        Data directory that the worker reads and writes.
    number
        Number of the worker, from 1 to `n_workers`.
    n_workers
        Total number of workers.
    hung_after_s
        Seconds without a heartbeat after which a worker is killed and replaced. The value must be at least the duration
        of a lease, so that the lease of the worker's job has expired.
    """

    def __init__(self, data_dir: Path, number: int, n_workers: int, *, hung_after_s: float) -> None:
        options = ("--data-dir", str(data_dir), "--number", str(number), "--n-workers", str(n_workers))
        self._command = [sys.executable, "-m", "recsys_local.worker", *options]
        self._name = worker_name(number, n_workers)
        self._heartbeat = heartbeat_of(data_dir, number)
        self._heartbeat_ns = 0
        # Monotonic time, because it stops while the machine is suspended.
        self._heard_s = self._spawned_s = time.monotonic()
        self._hung_after_s = hung_after_s
        self._stopping = threading.Event()
        self._spawning = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor = threading.Thread(target=self._supervise, name=f"supervisor-{number}", daemon=True)

    @property
    def silent_s(self) -> float:
        """Seconds since the last heartbeat of the worker. The creation of this object counts as a heartbeat."""
        return time.monotonic() - self._heard_s

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._spawned_s = time.monotonic()
        # The worker gets its own process group, because a terminal sends Ctrl-C to a whole group. The pipe ends the
        # worker.
        set_default_environment(_BLAS_THREADS, "1")  # the worker inherits the variable
        self._process = subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603  # our own
        return self._process

    def _supervise(self) -> None:
        process = self._process
        while process is not None:
            status = self._wait_for_end(process)
            if self._stopping.wait(RESTART_AFTER_S):
                return
            with self._spawning:
                if self._stopping.is_set():
                    return
                _logger.warning("%s ended with status %s. Starting it again.", self._name, status)
                _close_pipe(process)
                process = self._spawn()

    def _wait_for_end(self, process: subprocess.Popen[bytes]) -> int:
        """Wait until the worker ends, and return its exit status. A worker without heartbeats is killed."""
        while True:
            try:
                return process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                self._look_at_heartbeat()
            has_started = self._heard_s > self._spawned_s
            silent_s = time.monotonic() - max(self._heard_s, self._spawned_s)
            is_hung = silent_s > (self._hung_after_s if has_started else START_TIMEOUT_S)
            if is_hung and not self._stopping.is_set():
                _logger.warning("%s has not reported for %.0f seconds. Replacing it.", self._name, silent_s)
                process.kill()

    def _look_at_heartbeat(self) -> None:
        try:
            modified_ns = self._heartbeat.stat().st_mtime_ns
        except OSError:  # the worker is still starting, or the data directory was deleted
            return
        if modified_ns != self._heartbeat_ns:
            self._heartbeat_ns, self._heard_s = modified_ns, time.monotonic()

    def __enter__(self) -> Self:
        self._spawn()
        self._supervisor.start()
        return self

    def request_stop(self) -> None:
        """Tell the worker to put its job back into the queue and to end."""
        with self._spawning:
            self._stopping.set()
        if self._process is not None:
            _close_pipe(self._process)

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self.request_stop()
        if self._process is not None:
            try:
                self._process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.kill()  # safe at any moment
        self._supervisor.join()


def worker_name(number: int, n_workers: int) -> str:
    """Return the name of a worker for messages. The name contains the number if there are several workers."""
    return "The training worker" if n_workers == 1 else f"Training worker {number} of {n_workers}"


def _close_pipe(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
