"""Serve HTTP with limits for the number of connections and for the duration of each connection's phases.

uvicorn has no such limits. Its `limit_concurrency` counts only requests with a complete head, and its
`timeout_keep_alive` ends with the first byte of a request. A client that sends a byte from time to time could therefore
hold a connection forever.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import math
import resource
import socket
import time
from dataclasses import dataclass
from typing import Any, Final

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from recsys.errors import RecsysError
from recsys.settings import MIB, InvalidSetting

_logger: Final = logging.getLogger("recsys.service")

SHUTDOWN_TIMEOUT_S: Final = 2
"""Seconds for which running requests may continue after a signal. A request that waits for a training job could take
minutes."""
_EVICTED: Final = 32
"""Number of waiting connections that are closed together when the limit is reached. nginx does the same
(`ngx_drain_connections`)."""
_SWEEP_EVERY_S: Final = 1.0
_MAX_HEAD_BYTES: Final = 16 * 1024
_BUSY_BODY: Final = (
    b'{"type":"urn:recsys:problem:unavailable","title":"The service is not available right now","status":503,'
    b'"detail":"All connections of the service are in use.","hint":"Retry in a few seconds."}'
)
_BUSY: Final = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Content-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(_BUSY_BODY), _BUSY_BODY)
)


class CannotListen(RecsysError):
    """Raised when the service cannot listen on an address.

    Either the port is in use, or the address does not belong to this machine.
    """

    code = "cannot-listen"
    title = "The service cannot listen on this address"
    default_hint = "Stop the program that uses the port, or pass another --port (or --host)."


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """Limits for the connections of the server.

    The time limit for a body grows with the bytes received, as in Apache's `mod_reqtimeout`. A client on a slow link
    can therefore send a large file, but a client that sends almost nothing cannot hold a connection.
    """

    max_connections: int
    """Largest number of connections at the same time. At the limit, the connections that have waited longest for a
    request are closed. If every connection has a request, a new connection gets status 503."""
    backlog: int
    """Number of connections that the kernel may queue and that asyncio accepts in one step."""
    head_timeout_s: float = 10.0
    """Seconds for the head of a request. They also limit the wait for the first request of a new connection."""
    keep_alive_timeout_s: float = 20.0
    """Seconds between two requests of a connection."""
    body_timeout_s: float = 20.0
    """Seconds for a body. One second is added for every `min_bytes_per_s` bytes received. The same time limits a
    response that the client does not read."""
    min_bytes_per_s: float = 500.0
    """Slowest accepted transfer of a body after `body_timeout_s`, in bytes per second."""
    rejected_body_timeout_s: float = 5.0
    """Seconds for reading the rest of a request body after an early response, for example with status 413."""
    max_discarded_bytes: int = 8 * MIB
    """Largest number of bytes of a request body that are read and discarded after an early response. A client that
    sends its whole body first can then receive the response. The limit keeps such a client from occupying the
    server."""

    @classmethod
    def of_process(cls) -> ConnectionLimits:
        """Raise the soft limit of file descriptors of this process, and return connection limits that match it.

        At most half of the descriptors become connections, because models, uploads and the registry also need
        descriptors. The backlog is smaller, because asyncio accepts the whole backlog before the first connection is
        counted.
        """
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        wanted = 4096
        if soft != resource.RLIM_INFINITY and soft < wanted:
            soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        available = wanted if soft == resource.RLIM_INFINITY else min(wanted, soft)
        return cls(max_connections=min(1024, available // 2), backlog=max(8, min(512, available // 8)))


class BoundedProtocol(H11Protocol):
    """The HTTP/1.1 protocol of uvicorn with time limits and a limited number of connections."""

    limits: ConnectionLimits
    """The limits, which `http_protocol` sets."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._received_bytes = 0
        self._discarded_bytes = 0
        self._unsent_bytes = 0
        self._phase: tuple[object, ...] = ()
        self.phase_started_s = time.monotonic()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        """Register the connection.

        At the limit, close connections that wait for a request. If there are none, refuse the new connection.
        """
        super().connection_made(transport)
        if len(self.connections) > self.limits.max_connections and not self._evict_waiting():
            transport.write(_BUSY)
            transport.close()

    def data_received(self, data: bytes) -> None:
        """Count and parse received bytes. Stop reading after `max_discarded_bytes` of a rejected body."""
        self._received_bytes += len(data)
        self._discarded_bytes = self._discarded_bytes + len(data) if self._discards_body else 0
        if self._discarded_bytes > self.limits.max_discarded_bytes:
            self.transport.pause_reading()  # the connection is closed after `rejected_body_timeout_s`
        else:
            super().data_received(data)

    @property
    def waits_for_request(self) -> bool:
        """Whether the connection waits for a request, because it is idle or the head of its request is incomplete."""
        return self.conn.their_state is h11.IDLE and not self.transport.is_closing()

    @property
    def _discards_body(self) -> bool:
        return self.conn.their_state is h11.SEND_BODY and self.conn.our_state is h11.DONE

    @property
    def _has_partial_head(self) -> bool:
        return self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])

    def close_if_overdue(self, now_s: float) -> None:
        """Close the connection if its current phase has taken too long. The server calls this method once a second.

        A phase is one state of one request, such as the receipt of its body. The time during which the server itself
        does not read, because the application is slower than the client, does not count.
        """
        unsent_bytes = self.transport.get_write_buffer_size()
        phase = (self.conn.their_state, self.conn.our_state, self.cycle, self._has_partial_head)
        if phase != self._phase or self.flow.read_paused or unsent_bytes < self._unsent_bytes:
            self._phase, self.phase_started_s, self._received_bytes = phase, now_s, 0
        self._unsent_bytes = unsent_bytes
        if now_s - self.phase_started_s > self._time_limit_s(unsent_bytes):
            self._close_overdue()

    def _time_limit_s(self, unsent_bytes: int) -> float:
        limits = self.limits
        if unsent_bytes:  # the client does not read its response
            return limits.body_timeout_s
        if self.waits_for_request:
            is_between_requests = self.cycle is not None and not self._has_partial_head
            return limits.keep_alive_timeout_s if is_between_requests else limits.head_timeout_s
        if self._discards_body:
            return limits.rejected_body_timeout_s
        if self.conn.their_state is h11.SEND_BODY:
            return limits.body_timeout_s + self._received_bytes / limits.min_bytes_per_s
        return float("inf")  # the application works on the request

    def _close_overdue(self) -> None:
        if self.waits_for_request and self._has_partial_head:
            self.transport.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        if self.transport.is_closing() or self.transport.get_write_buffer_size():
            self.transport.abort()  # a close would wait until the client has read everything
        else:
            self.transport.close()

    def _evict_waiting(self) -> bool:
        """Close up to `_EVICTED` connections that have waited longest for a request. Return whether any was closed."""
        waiting = [other for other in self.connections if isinstance(other, BoundedProtocol) and other is not self]
        waiting = [other for other in waiting if other.waits_for_request]
        for other in sorted(waiting, key=lambda other: other.phase_started_s)[:_EVICTED]:
            other.transport.close()
        return bool(waiting)


def http_protocol(limits: ConnectionLimits) -> type[BoundedProtocol]:
    """Return a protocol class with the given limits, for `uvicorn.Config(http=…)`."""
    return type("LimitedProtocol", (BoundedProtocol,), {"limits": limits})


def listen(host: str, port: int, *, backlog: int) -> socket.socket:
    """Return a listening TCP socket.

    Raises
    ------
    CannotListen
        The port is in use, or the address does not belong to this machine.
    """
    # asyncio sets TCP_NODELAY only if the protocol is IPPROTO_TCP, not 0. Without TCP_NODELAY, the body of a response
    # waits for the client's delayed acknowledgement of the head. The wait takes 44 ms for every request on a kept-alive
    # connection.
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(backlog)
    except OSError as error:
        listener.close()
        raise CannotListen(f"{host}:{port} cannot be used: {error.strerror}.") from error
    return listener


def url_of(listener: socket.socket) -> str:
    """Return the URL at which this machine can reach a listener.

    For a listener on every interface, the URL contains a loopback address.
    """
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  # replaced, not listened on
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def create_server(app: ASGIApp, limits: ConnectionLimits, *, trusted_proxies: str = "") -> uvicorn.Server:
    """Return the HTTP server of the local service, which `serve` runs.

    `trusted_proxies` lists the addresses and networks whose `X-Forwarded-For` states the address of the client.

    Raises
    ------
    InvalidSetting
        `trusted_proxies` has an entry that is neither an address nor a network.
    """
    _check_networks(trusted_proxies)
    config = uvicorn.Config(
        app,
        http=http_protocol(limits),
        ws="none",
        log_level="warning",
        access_log=False,
        lifespan="off",
        backlog=limits.backlog,
        timeout_keep_alive=math.ceil(limits.keep_alive_timeout_s),
        proxy_headers=bool(trusted_proxies),
        forwarded_allow_ips=trusted_proxies,
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        h11_max_incomplete_event_size=_MAX_HEAD_BYTES,
    )
    logging.getLogger("uvicorn.error").addFilter(_drop_cancel_notice)
    return uvicorn.Server(config)


def _check_networks(text: str) -> None:
    """Raise `InvalidSetting` if an entry is neither an address nor a network. uvicorn would ignore such an entry."""
    for network in text.split(",") if text else ():
        try:
            ipaddress.ip_network(network.strip())
        except ValueError as error:
            raise InvalidSetting(
                "RECSYS_TRUSTED_PROXIES must list IP addresses or networks, separated by commas. "
                f"Received: {network!r}."
            ) from error


async def serve(server: uvicorn.Server, listener: socket.socket) -> None:
    """Serve HTTP on `listener` until the process receives SIGINT or SIGTERM."""
    asyncio.get_running_loop().set_exception_handler(_AcceptErrors().handle)
    sweeper = asyncio.create_task(_close_overdue_connections(server.server_state))
    try:
        await server.serve(sockets=[listener])
    finally:
        sweeper.cancel()


async def _close_overdue_connections(state: ServerState) -> None:
    """Close overdue connections once a second. This takes less time than one timer per request."""
    while True:
        await asyncio.sleep(_SWEEP_EVERY_S)
        now_s = time.monotonic()
        for connection in list(state.connections):
            if isinstance(connection, BoundedProtocol):
                connection.close_if_overdue(now_s)


class _AcceptErrors:
    """Exception handler of the event loop. It logs at most one line a minute about connections that cannot be accepted.

    When file descriptors run out, asyncio itself (CPython up to at least 3.11) logs the same error with a traceback for
    every slot of the backlog, which is 10 MB in 3 seconds.
    """

    _EVERY_S: Final = 60.0

    def __init__(self) -> None:
        self._logged_at_s = float("-inf")

    def handle(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Log an error that the event loop reports. Errors of `accept` are logged at most once a minute."""
        error = context.get("exception")
        if not isinstance(error, OSError) or "accept" not in str(context.get("message")):
            loop.default_exception_handler(context)
        elif time.monotonic() - self._logged_at_s > self._EVERY_S:
            self._logged_at_s = time.monotonic()
            _logger.warning("A connection cannot be accepted: %s. Raise the limit (ulimit -n).", error.strerror)


def _drop_cancel_notice(record: logging.LogRecord) -> bool:
    """Return whether a log record is kept. Uvicorn's line about requests that are cancelled at shutdown is dropped.

    `answer_on_shutdown` responds to these requests.
    """
    return not str(record.msg).startswith("Cancel %s running task(s)")
