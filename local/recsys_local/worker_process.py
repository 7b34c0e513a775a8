"""Supervise the training worker: start it, and replace it when it ends or hangs."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_logger: Final = logging.getLogger("recsys.service")

SCRATCH: Final = ".scratch"
"""Folder in the data directory for the worker's temporary files and its heartbeat."""
HEARTBEAT: Final = f"{SCRATCH}/heartbeat"
"""File whose modification time the worker updates every `HEARTBEAT_EVERY_S` seconds, also during training."""
HEARTBEAT_EVERY_S: Final = 2.0
RESTART_AFTER_S: Final = 1.0
"""Pause before a worker that ended is started again, so that one that cannot start does not use a whole core."""
STOP_TIMEOUT_S: Final = 5.0
"""Time that a worker may take to put its job back into the queue, which it cannot do while it imports TensorFlow."""
START_TIMEOUT_S: Final = 600.0
"""Time that a worker may take until its first heartbeat, because it first imports TensorFlow."""
_POLL_S: Final = 0.5


class WorkerProcess:
    """Context manager that keeps one training worker running.

    The worker's standard input is a pipe from this process, so that the worker also ends when this process is killed.

    Parameters
    ----------
    data_dir
        Data directory that the worker reads and writes.
    hung_after_s
        Seconds without a heartbeat after which a worker is killed and replaced. Its lease has expired by then.
    """

    def __init__(self, data_dir: Path, *, hung_after_s: float) -> None:
        self._command = [sys.executable, "-m", "recsys_local.worker", "--data-dir", str(data_dir)]
        self._heartbeat = data_dir / HEARTBEAT
        self._heartbeat_ns = 0
        # Monotonic time, because it stands still while the machine is suspended.
        self._heard_s = self._spawned_s = time.monotonic()
        self._hung_after_s = hung_after_s
        self._stopping = threading.Event()
        self._spawning = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._supervisor = threading.Thread(target=self._supervise, name="worker-supervisor", daemon=True)

    @property
    def silent_s(self) -> float:
        """Seconds since the last heartbeat of a worker, or since the start of this process if there was none."""
        return time.monotonic() - self._heard_s

    def _spawn(self) -> subprocess.Popen[bytes]:
        self._spawned_s = time.monotonic()
        # Its own process group, because a terminal sends Ctrl-C to the whole group; the worker ends by its pipe.
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
                _logger.warning("The training worker ended with status %s. Starting it again.", status)
                _close_pipe(process)
                process = self._spawn()

    def _wait_for_end(self, process: subprocess.Popen[bytes]) -> int:
        """Wait until the worker ends, and return its exit status. If its heartbeat stops, the worker is killed."""
        while True:
            try:
                return process.wait(_POLL_S)
            except subprocess.TimeoutExpired:
                self._look_at_heartbeat()
            has_started = self._heard_s > self._spawned_s
            silent_s = time.monotonic() - max(self._heard_s, self._spawned_s)
            is_hung = silent_s > (self._hung_after_s if has_started else START_TIMEOUT_S)
            if is_hung and not self._stopping.is_set():
                _logger.warning("The training worker has not reported for %.0f seconds. Replacing it.", silent_s)
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

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        with self._spawning:
            self._stopping.set()
        process = self._process
        if process is not None:
            _close_pipe(process)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()  # safe at any moment
        self._supervisor.join()


def _close_pipe(process: subprocess.Popen[bytes]) -> None:
    if process.stdin is not None:
        process.stdin.close()
