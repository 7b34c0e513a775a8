"""Child processes that are stopped at the end of the context that started them."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_STOP_TIMEOUT_S: Final = 60.0
"""Long enough for `sam local`, which stops its containers one after another, each within ten seconds."""


@contextmanager
def running(
    command: Sequence[str], *, log: Path, environment: Mapping[str, str], cwd: Path | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run `command` until the end of the context and write its output to `log`.

    The process gets its own session. Otherwise Ctrl+C would also interrupt it directly, and the processes would not
    stop in the order of their contexts.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603 - fixed commands of this project
            list(command),
            cwd=cwd,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        _stop(process)


def free_port() -> int:
    """Return a free port of the loopback interface."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout=_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
