"""A local HTTP server that sends prepared responses, for tests of HTTP clients."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Reply = tuple[int, bytes] | None
"""Status and body of a response. None closes the connection without a response."""


@dataclass(frozen=True)
class Received:
    """A request that the server received. Names of headers are in lower case."""

    path: str
    headers: Mapping[str, str]
    client: tuple[str, int]


class ScriptedServer(ThreadingHTTPServer):
    """Sends the replies of its script in order and records the requests."""

    daemon_threads = True

    def __init__(self, script: list[Reply]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.scheme = "http"
        self.script = script
        self.received: list[Received] = []

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.server_port}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.received]

    @property
    def n_connections(self) -> int:
        return len({request.client for request in self.received})


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        server = self.server
        assert isinstance(server, ScriptedServer)
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        server.received.append(Received(self.path, headers, self.client_address))
        reply = server.script.pop(0)
        if reply is None:
            self.close_connection = True
            return
        status, body = reply
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Keep the output of the tests clean."""


@contextmanager
def replying(*script: Reply) -> Iterator[ScriptedServer]:
    """Run a server that sends the replies in order."""
    server = ScriptedServer(list(script))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
