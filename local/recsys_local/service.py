"""The whole service in one place: HTTP in this process, training in a worker process, state in one directory."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import uvicorn

from recsys.errors import RecsysError
from recsys.objects.layout import INBOX
from recsys.settings import InvalidSetting, Settings
from recsys_local.adapters import lock_data_dir, open_own_store, open_registry
from recsys_local.app import answer_on_shutdown, create_app
from recsys_local.sample import SampleRun

logger = logging.getLogger("recsys.service")

RESTART_AFTER_S = 1.0
END_WITHIN_S = 2
"""How long requests may go on after the service was told to end; who waits for a training may wait for minutes."""


class CannotListen(RecsysError):
    """Another program listens on the port, or the address is none of this machine's."""

    code = "cannot-listen"
    title = "The address cannot be listened on"
    default_hint = "Stop the program that has the port, or give another --port (or --host)."


def run_service(host: str, port: int, data_dir: Path, *, public_url: str = "", sample: bool) -> None:
    """Serve until interrupted; upload forms point to `public_url`, or to the address on this machine.

    Raises
    ------
    DataDirInUse, DataDirUnusable, CannotListen, InvalidSetting
    """
    settings = Settings.from_environment(data_dir=data_dir)
    if settings.backend != "local":
        raise InvalidSetting(
            f"`recsys serve` keeps its state in a directory. Received: RECSYS_BACKEND={settings.backend}.",
            hint="Unset RECSYS_BACKEND; `aws` is for the Lambda functions, which `sam deploy` sets up.",
        )
    with _until_interrupted(), lock_data_dir(data_dir), _listen(host, port) as listener:
        base_url = _url_of(listener)
        store, registry = open_own_store(data_dir, base_url=public_url or base_url), open_registry(data_dir)
        registry.remove_expired()
        app = create_app(registry, store, settings)
        config = uvicorn.Config(
            answer_on_shutdown(app),
            log_level="warning",
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=END_WITHIN_S,
        )
        logging.getLogger("uvicorn.error").addFilter(_drop_cancel_notice)
        print(
            f"recsys serves on {base_url} (docs at {base_url}/docs), state in {data_dir}/. Ctrl-C ends it.", flush=True
        )
        print(f"Copy a CSV into {data_dir / INBOX}/ to train on it.", flush=True)
        with WorkerProcess(data_dir):
            if sample:
                SampleRun(store, registry, settings, base_url).start()
            uvicorn.Server(config).run(sockets=[listener])


@contextlib.contextmanager
def _until_interrupted() -> Iterator[None]:
    """Within, SIGTERM does what Ctrl-C does, and either ends the block without a word."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            yield
    finally:
        signal.signal(signal.SIGTERM, before)


class WorkerProcess:
    """Keeps one training worker running between `with` and its end.

    The worker's standard input is a pipe from this process: when this process ends, however, so does the worker.
    """

    def __init__(self, data_dir: Path) -> None:
        self._command = [sys.executable, "-m", "recsys_local.worker", "--data-dir", str(data_dir)]
        self._ending = threading.Event()
        self._starting = threading.Lock()
        self._process = self._spawn()
        self._supervisor = threading.Thread(target=self._supervise, name="worker-supervisor", daemon=True)

    def _spawn(self) -> subprocess.Popen[bytes]:
        # A process group of its own: a terminal sends Ctrl-C to all of this one's, and the worker ends by its pipe.
        return subprocess.Popen(self._command, stdin=subprocess.PIPE, process_group=0)  # noqa: S603  # our own module

    def _supervise(self) -> None:
        while True:
            status = self._process.wait()
            if self._ending.wait(RESTART_AFTER_S):
                return
            with self._starting:
                if self._ending.is_set():
                    return
                logger.warning("The training worker ended with status %s; starting it again.", status)
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
        self._process.kill()  # at any moment it is safe, and importing TensorFlow it would not look at its pipe
        self._supervisor.join()


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen()
    except OSError as error:
        listener.close()
        raise CannotListen(f"{host}:{port}: {error.strerror}.") from error
    return listener


def _drop_cancel_notice(record: logging.LogRecord) -> bool:
    """Not that requests are cancelled at the end: `answer_on_shutdown` answers them."""
    return not str(record.msg).startswith("Cancel %s running task(s)")


def _url_of(listener: socket.socket) -> str:
    """The address at which this machine reaches the listener, also one on every interface."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # it is replaced, not listened on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
