"""Run an instance of a Lambda function as a process.

The process runs `awslambdaric`, as on Lambda, against a stand-in for the Runtime API.
"""

from __future__ import annotations

import json
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Protocol, Self

_START_TIMEOUT_S: Final = 120.0


class FunctionFailed(Exception):
    """Raised when the function's process ended, or its handler raised an exception."""


class Invocable(Protocol):
    """An instance of a function, in a process or in a container."""

    def invoke(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Invoke the handler and return its result. Raises `FunctionFailed`."""


class Function:
    """One instance of a Lambda function: a process that runs a handler, one invocation at a time."""

    def __init__(
        self,
        handler: str,
        environment: Mapping[str, str],
        log: Path,
        *,
        timeout_s: float,
        python: Sequence[str] = (sys.executable,),
    ) -> None:
        self._handler = handler
        self._timeout_s = timeout_s
        self._api = _RuntimeApi()
        self.log = log
        self.started_s = time.perf_counter()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*python, "-m", "awslambdaric", handler],
                cwd=log.parent,
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RECSYS_"))},
                    **environment,
                    "AWS_LAMBDA_RUNTIME_API": self._api.address,
                    "AWS_LAMBDA_FUNCTION_NAME": handler.partition(".")[0],
                    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def invoke(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """Invoke the handler and return its result. Raises `FunctionFailed`."""
        self.start(event)
        return self.result()

    def start(self, event: Mapping[str, Any]) -> None:
        """Invoke the handler without waiting for its result."""
        self._api.events.put(_Invocation(json.dumps(event).encode(), time.time() + self._timeout_s))

    def result(self) -> dict[str, Any]:
        """Wait for the started invocation and return its result. Raises `FunctionFailed`."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                kind, text = self._api.results.get(timeout=0.2)
            except queue.Empty:
                if self._process.poll() is not None:
                    break
                continue
            if kind != "response":
                raise FunctionFailed(f"{self._handler}: {text}")
            result: dict[str, Any] = json.loads(text)
            return result
        raise FunctionFailed(f"{self._handler} did not respond. Its last output: {self.log.read_text()[-3000:]}")

    @property
    def process_id(self) -> int:
        """Id of the process that runs the handler."""
        return self._process.pid

    @property
    def init_s(self) -> float:
        """Seconds from the start of the process to its request for the first event."""
        assert self._api.first_polled_s is not None
        return self._api.first_polled_s - self.started_s

    def kill(self) -> None:
        """Kill the process, as Lambda does without notice."""
        self._process.kill()
        self._process.wait()
        self._api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.kill()


@dataclass(frozen=True)
class _Invocation:
    event: bytes
    deadline: float
    request_id: str = field(default_factory=lambda: secrets.token_hex(16))


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """Ignore the broken connection of a function that was killed."""


class _RuntimeApi:
    """Stand-in for Lambda's Runtime API, as far as a runtime client uses it.

    See https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html.
    """

    def __init__(self) -> None:
        self.events: queue.Queue[_Invocation | None] = queue.Queue()
        self.results: queue.Queue[tuple[str, str]] = queue.Queue()
        self.first_polled_s: float | None = None
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                api.first_polled_s = api.first_polled_s or time.perf_counter()
                invocation = api.events.get()
                if invocation is None:
                    self.close_connection = True
                    return
                headers = {  # the runtime client crashes with a segmentation fault if one of them is missing
                    "Content-Type": "application/json",
                    "Lambda-Runtime-Trace-Id": "Root=1-69a42f1c-3f1c2a5e0b7d4c6f1a2b3c4d",
                    "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                    "Lambda-Runtime-Deadline-Ms": str(int(invocation.deadline * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:123456789012:function:recsys-test",
                }
                self._respond(200, invocation.event, headers)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                api.results.put((self.path.rpartition("/")[2], body))
                self._respond(202, b"{}", {})

            def _respond(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.events.put(None)
        self._server.shutdown()
        self._server.server_close()
