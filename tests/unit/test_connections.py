"""The HTTP server of the local service over real sockets: socket options, time limits, bounded connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import resource
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from errno import EMFILE

import pytest
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.settings import InvalidSetting
from recsys_local import connections
from recsys_local.connections import CannotListen, ConnectionLimits, create_server, listen, serve, url_of

pytestmark = pytest.mark.slow

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LIMITS = ConnectionLimits(
    max_connections=50,
    backlog=16,
    head_timeout_s=0.3,
    keep_alive_timeout_s=1.0,
    body_timeout_s=0.3,
    min_bytes_per_s=100_000,
    rejected_body_timeout_s=0.2,
)


async def client_app(scope: Scope, receive: Receive, send: Send) -> None:
    """Return the address of the client."""
    body = scope["client"][0].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Reads the body and returns its size; `/reject` answers without reading; `/slow` takes a second."""
    size = 0
    if scope["path"] == "/slow":
        await asyncio.sleep(1)
    if scope["path"] != "/reject":
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return
            size += len(message["body"])
            if not message["more_body"]:
                break
    body = str(size).encode() if scope["path"] != "/large" else b"x" * 20_000_000
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@dataclass
class Running:
    """A server in a thread."""

    server: uvicorn.Server
    address: tuple[str, int]

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=10)

    def n_connections(self) -> int:
        return len(self.server.server_state.connections)


@contextlib.contextmanager
def running(
    limits: ConnectionLimits = LIMITS, *, served: ASGIApp = app, trusted_proxies: str = ""
) -> Iterator[Running]:
    listener = listen("127.0.0.1", 0, backlog=limits.backlog)
    server = create_server(served, limits, trusted_proxies=trusted_proxies)
    thread = threading.Thread(target=lambda: asyncio.run(serve(server, listener)))
    thread.start()
    try:
        yield Running(server, listener.getsockname())
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture(autouse=True)
def sweeps_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_SWEEP_EVERY_S", 0.05)


def read_response(connection: socket.socket) -> bytes:
    """Return one response, or what arrived before the connection was closed."""
    received = b""
    while True:
        head, blank_line, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if blank_line and length and len(body) >= int(length[1]):
            return received
        part = connection.recv(65536)
        if not part:
            return received
        received += part


def is_closed(connection: socket.socket) -> bool:
    """Return whether the server closes the connection; waits for it."""
    try:
        while connection.recv(1 << 20):
            pass
    except ConnectionResetError:
        return True
    return True


def closes_while_sending(connection: socket.socket, part: bytes) -> bool:
    """Return whether the server closes the connection within 4 s, while `part` is sent again and again."""
    try:
        for _ in range(200):
            connection.sendall(part)
            time.sleep(0.02)
    except (BrokenPipeError, ConnectionResetError):
        return True
    return False


# -- addresses


@pytest.mark.parametrize(
    ("trusted_proxies", "address"),
    [("", b"127.0.0.1"), ("10.0.0.0/8", b"127.0.0.1"), ("127.0.0.1,10.0.0.0/8", b"203.0.113.7")],
)
def test_forwarded_address_is_used_only_from_a_trusted_proxy(trusted_proxies: str, address: bytes) -> None:
    with running(served=client_app, trusted_proxies=trusted_proxies) as service, service.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 198.51.100.1, 203.0.113.7, 10.0.0.9\r\n\r\n")
        assert read_response(connection).endswith(b"\r\n\r\n" + address)


@pytest.mark.parametrize("text", ["proxy.internal", "10.0.0.1/33", "10.0.0.1,,10.0.0.2"])
def test_trusted_proxies_must_be_addresses_or_networks(text: str) -> None:
    with pytest.raises(InvalidSetting, match="RECSYS_TRUSTED_PROXIES"):
        create_server(app, LIMITS, trusted_proxies=text)


# -- socket options


def test_accepted_connections_have_tcp_nodelay() -> None:
    with running() as service, service.connect() as connection:
        connection.sendall(GET)
        read_response(connection)
        (accepted,) = service.server.server_state.connections
        transport_socket = accepted.transport.get_extra_info("socket")
        assert transport_socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1


def test_port_in_use_is_reported_with_a_hint() -> None:
    with listen("127.0.0.1", 0, backlog=1) as taken, pytest.raises(CannotListen) as caught:
        listen(*taken.getsockname(), backlog=1)
    assert "--port" in str(caught.value.hint)


def test_url_of_a_listener_on_all_interfaces_is_the_loopback_address() -> None:
    with listen("0.0.0.0", 0, backlog=1) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"


# -- time limits


def test_connection_without_a_request_is_closed() -> None:
    with running() as service, service.connect() as connection:
        assert is_closed(connection)


def test_incomplete_head_gets_408_however_slowly_it_arrives() -> None:
    with running() as service, service.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        connection.settimeout(0.05)
        received = b""
        for number in range(100):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(b"X-Header-%d: x\r\n" % number)
            with contextlib.suppress(TimeoutError):
                received = connection.recv(1000)
                break
        assert received.startswith(b"HTTP/1.1 408 ")
        assert number < 50, "the deadline moved with every byte"


def test_idle_connection_is_kept_alive_and_then_closed() -> None:
    with running() as service, service.connect() as connection:
        for _ in range(2):
            connection.sendall(GET)
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")
            time.sleep(0.4)  # longer than head_timeout_s
        assert is_closed(connection)


def test_body_that_stops_arriving_ends_the_connection() -> None:
    with running() as service, service.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + b"x" * 10)
        assert is_closed(connection)


def test_body_that_trickles_ends_the_connection() -> None:
    with running() as service, service.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        assert closes_while_sending(connection, b"1\r\nx\r\n")


def test_body_that_arrives_fast_enough_may_take_longer_than_the_time_limit() -> None:
    with running() as service, service.connect() as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 400000\r\n\r\n")
        for _ in range(20):  # 0.8 s at 500 kB/s
            connection.sendall(b"x" * 20_000)
            time.sleep(0.04)
        assert read_response(connection).startswith(b"HTTP/1.1 200 ")


def test_rest_of_a_body_is_not_read_for_long_after_the_response() -> None:
    with running() as service, service.connect() as connection:
        connection.sendall(b"POST /reject HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999999\r\n\r\n")
        assert read_response(connection).startswith(b"HTTP/1.1 200 ")
        assert closes_while_sending(connection, b"x" * 100_000)


def test_response_that_is_not_read_ends_the_connection() -> None:
    with running() as service, service.connect() as connection:
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        deadline = time.monotonic() + 10
        while service.n_connections() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert service.n_connections() == 0


def test_slow_application_is_not_interrupted() -> None:
    with running() as service, service.connect() as connection:
        connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert read_response(connection).startswith(b"HTTP/1.1 200 ")


# -- number of connections


def test_waiting_connections_are_closed_when_the_limit_is_reached() -> None:
    limits = ConnectionLimits(max_connections=20, backlog=16)
    with running(limits) as service, contextlib.ExitStack() as stack:
        half_sent = [stack.enter_context(service.connect()) for _ in range(60)]
        for connection in half_sent:
            with contextlib.suppress(OSError):
                connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(5):
            with service.connect() as connection:
                connection.sendall(GET)
                assert read_response(connection).startswith(b"HTTP/1.1 200 ")
        assert service.n_connections() <= limits.max_connections


def test_new_connection_gets_503_when_every_connection_is_busy() -> None:
    limits = ConnectionLimits(max_connections=3, backlog=16)
    with running(limits) as service, contextlib.ExitStack() as stack:
        busy = [stack.enter_context(service.connect()) for _ in range(3)]
        for connection in busy:
            connection.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        time.sleep(0.3)
        with service.connect() as rejected:
            head, _, body = read_response(rejected).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503 ")
        assert b"Content-Length: %d\r\n" % len(body) in head
        for connection in busy:
            assert read_response(connection).startswith(b"HTTP/1.1 200 ")


# -- file descriptors


def test_limits_leave_half_of_the_file_descriptors_to_the_rest_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    monkeypatch.setattr(resource, "setrlimit", lambda *_: None)
    assert ConnectionLimits.of_process() == ConnectionLimits(max_connections=32, backlog=8)


def test_soft_limit_of_file_descriptors_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    requested: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 1_000_000))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limit: requested.append(limit))
    assert ConnectionLimits.of_process().max_connections == 1024
    assert requested == [(4096, 1_000_000)]


def test_failed_accepts_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    handler = connections._AcceptErrors()
    context = {
        "message": "socket.accept() out of system resource",
        "exception": OSError(EMFILE, "Too many open files"),
    }
    loop = asyncio.new_event_loop()
    with caplog.at_level(logging.WARNING):
        for _ in range(1000):
            handler.handle(loop, context)
    loop.close()
    (message,) = caplog.messages
    assert "Too many open files" in message
