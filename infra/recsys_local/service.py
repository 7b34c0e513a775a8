"""The whole service in one place: HTTP in this process, training in a worker process, state in one directory."""

from __future__ import annotations

import logging
import socket
import subprocess
import sys
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from recsys.errors import RecsysError
from recsys.settings import Settings
from recsys_local.adapters import lock_data_dir, open_registry, open_store
from recsys_local.http import create_app
from recsys_local.sample import SampleRun

logger = logging.getLogger("recsys.service")

RESTART_AFTER_S = 1.0


class AddressInUse(RecsysError):
    """Another program listens on the port."""

    code = "address-in-use"
    title = "The port is taken"
    default_hint = "Stop the other program or give this one another --port."


def run_service(host: str, port: int, data_dir: Path, *, sample: bool) -> None:
    """Serve until interrupted.

    Raises
    ------
    DataDirInUse, AddressInUse, InvalidSetting
    """
    settings = Settings.from_environment(backend="local", data_dir=data_dir)
    with lock_data_dir(data_dir), _listen(host, port) as listener:
        bound_port = listener.getsockname()[1]
        base_url = f"http://{host}:{bound_port}"
        store, registry = open_store(data_dir, base_url=base_url), open_registry(data_dir)
        app = create_app(registry, store, settings)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
        print(
            f"recsys serves on {base_url} (docs at {base_url}/docs), state in {data_dir}/. Ctrl-C ends it.", flush=True
        )
        print(f"Copy a CSV into {data_dir}/inbox/ to train on it.", flush=True)
        with WorkerProcess(data_dir):
            if sample:
                SampleRun(store, registry, settings, base_url).start()
            server.run(sockets=[listener])


class WorkerProcess:
    """Keeps one training worker running between `with` and its end.

    The worker's standard input is a pipe from this process: when this process ends, however, so does the worker.
    """

    def __init__(self, data_dir: Path) -> None:
        self._command = [sys.executable, "-m", "recsys_local.worker", "--data-dir", str(data_dir)]
        self._ending = threading.Event()
        self._process = self._spawn()
        self._supervisor = threading.Thread(target=self._supervise, name="worker-supervisor", daemon=True)

    @property
    def pid(self) -> int:
        """Process id of the present worker."""
        return self._process.pid

    def _spawn(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command, stdin=subprocess.PIPE)  # noqa: S603  # our own module

    def _supervise(self) -> None:
        while True:
            status = self._process.wait()
            if self._ending.wait(RESTART_AFTER_S):
                return
            logger.warning("The training worker ended with status %s; starting it again.", status)
            self._process = self._spawn()

    def __enter__(self) -> Self:
        self._supervisor.start()
        return self

    def __exit__(
        self, _type: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._ending.set()
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process.wait()
        self._supervisor.join()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise AddressInUse(f"{host}:{port} cannot be listened on: {error.strerror}.") from error
    return listener
