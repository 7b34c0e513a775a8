"""Supervise the training worker: start it, and start it again when it ends."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Self

_logger: Final = logging.getLogger("recsys.service")

RESTART_AFTER_S: Final = 1.0
"""Pause before a worker that ended is started again, so that one that cannot start does not use a whole core."""


class WorkerProcess:
    """Context manager that keeps one training worker running.

    The worker's standard input is a pipe from this process, so that the worker also ends when this process is killed.

    Parameters
    ----------
    data_dir
        Data directory that the worker reads and writes.
    """

    def __init__(self, data_dir: Path) -> None:
        self._command = [sys.executable, "-m", "recsys_local.worker", "--data-dir", str(data_dir)]
        self._ending = threading.Event()
        self._starting = threading.Lock()
        self._process = self._spawn()
        self._supervisor = threading.Thread(target=self._supervise, name="worker-supervisor", daemon=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # Its own process group, because a terminal sends Ctrl-C to the whole group; the worker ends by its pipe.
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603  # our own module

    def _supervise(self) -> None:
        while True:
            status = self._process.wait()
            if self._ending.wait(RESTART_AFTER_S):
                return
            with self._starting:
                if self._ending.is_set():
                    return
                _logger.warning("The training worker ended with status %s. Starting it again.", status)
                self._close_pipe()
                self._process = self._spawn()

    def _close_pipe(self) -> None:
        if self._process.stdin is not None:
            self._process.stdin.close()

    def __enter__(self) -> Self:
        self._supervisor.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        with self._starting:
            self._ending.set()
        self._close_pipe()
        self._process.kill()  # safe at any moment; while it imports TensorFlow, it would not notice its closed pipe
        self._supervisor.join()
