"""A proxy between one function and an AWS emulator that enforces the function's role and records its calls.

A call that the role does not allow in both templates gets 403, as on AWS, so that the scene fails which made it. What
was used is written to `.build/aws-calls`; `python -m tests.permissions` compares it with the roles after the tests.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from tests.infra.stack import ROOT
from tests.permissions.calls import Call, Request, StackNames, calls_of, listing_of_missing_object
from tests.permissions.roles import Permission, roles, serverless_roles

RECORDS: Final = ROOT / ".build" / "aws-calls"
_TIMEOUT_S: Final = 120.0
_DENIED_S3: Final = (
    b"<Error><Code>AccessDenied</Code><Message>The role of the function does not allow this.</Message></Error>"
)
_DENIED_JSON: Final = b'{"__type": "AccessDeniedException", "message": "The role of the function does not allow this."}'
_NOT_FORWARDED: Final = frozenset({"connection", "content-length", "date", "server", "transfer-encoding"})


class Gateway:
    """Context manager that serves the emulator's API at `url` to one function.

    Parameters
    ----------
    function
        Name of the function, such as `api`.
    emulator_url
        Address of the emulator.
    names
        Names of the stack's resources.
    records
        Folder for the record, which is written at the end.
    """

    def __init__(self, function: str, emulator_url: str, names: StackNames, *, records: Path = RECORDS) -> None:
        self.function = function
        self._address = urlsplit(emulator_url).netloc
        self._names = names
        self._records = records
        self._lock = threading.Lock()
        self._used: Counter[Permission] = Counter()
        self._denied: Counter[tuple[str, str, str]] = Counter()
        gateway = self

        class Handler(_Handler):
            def respond(self, request: Request) -> tuple[int, Iterable[tuple[str, str]], bytes]:
                return gateway.respond(request)

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._write()

    def respond(self, request: Request) -> tuple[int, Iterable[tuple[str, str]], bytes]:
        """Return the emulator's status, headers and body, or 403."""
        # A list, so that every call is recorded.
        allowed = [self._is_allowed(call) for call in calls_of(request, self._names)]
        if not all(allowed):
            return _denial(request)
        with closing(HTTPConnection(self._address, timeout=_TIMEOUT_S)) as connection:
            connection.request(request.method, request.target, request.body, dict(request.headers))
            reply = connection.getresponse()
            content = reply.read()
        if reply.status == 404:
            listing = listing_of_missing_object(request, self._names)
            if listing and not self._is_allowed(listing, is_needed=False):
                return _denial(request)
        return reply.status, reply.getheaders(), content

    def _is_allowed(self, call: Call, *, is_needed: bool = True) -> bool:
        permission = roles()[self.function].permission_for(call)
        other = serverless_roles()[self.function].permission_for(call)
        with self._lock:
            if permission and other:
                self._used[permission] += 1
            elif is_needed:
                self._denied[call.action, call.resource, str(dict(call.context))] += 1
        return bool(permission and other)

    def _write(self) -> None:
        record = {
            "function": self.function,
            "used": [[each.action, each.resource, each.condition, count] for each, count in self._used.items()],
            "denied": sorted(self._denied),
        }
        self._records.mkdir(parents=True, exist_ok=True)
        path = self._records / f"{self.function}-{secrets.token_hex(8)}.json"
        path.write_text(json.dumps(record, indent=1), encoding="utf-8")


def _denial(request: Request) -> tuple[int, Iterable[tuple[str, str]], bytes]:
    if "x-amz-target" in request.headers:
        return 400, [("Content-Type", "application/x-amz-json-1.0")], _DENIED_JSON
    return 403, [("Content-Type", "application/xml")], _DENIED_S3


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, *_: Any) -> None:
        """Ignore the broken connection of a function that was killed."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def respond(self, request: Request) -> tuple[int, Iterable[tuple[str, str]], bytes]:
        raise NotImplementedError

    def _handle(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items() if name.lower() != "expect"}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        status, reply_headers, content = self.respond(Request(self.command, self.path, headers, body))
        self.send_response_only(status)
        length = str(len(content))
        for name, value in reply_headers:
            if name.lower() == "content-length" and self.command == "HEAD":
                length = value
            elif name.lower() not in _NOT_FORWARDED:
                self.send_header(name, value)
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815 - names of the base class

    def log_message(self, *_: Any) -> None:
        pass
