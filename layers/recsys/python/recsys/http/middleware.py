"""Middleware that sets the request id, limits the body, logs each request and responds if the app fails.

The log line of a request contains the route, the status, the latency and the key id. It never contains a header, a key,
a body or the raw path.
"""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.errors import PayloadTooLarge
from recsys.http.trace_context import trace_id_of
from recsys.redaction import redacted

MULTIPART_FRAMING_BYTES: Final = 64 * 1024
"""Bytes that a multipart body may contain in addition to the file, for boundaries and part headers. curl needs about
200."""

LOG_FIELDS: Final = (
    *("request_id", "trace_id", "method", "route", "status", "latency_ms"),
    *("key_id", "job_id", "problem"),
)
"""Fields of the log line of a request. Fields without a value are omitted."""

_logger: Final = logging.getLogger("recsys.http")
_SCOPE_KEY: Final = "recsys.http.middleware"
_DEFAULT_BODY_BYTES: Final = 2 * 1024 * 1024  # about 100,000 ids of 20 characters; not tuned


@dataclass(slots=True)
class RequestContext:
    """Facts about a request and its response, for the log and for metrics.

    `route` is the path template, such as `/v1/jobs/{job_id}`. `trace_id` is the id of the client's trace. `key_origin`
    is the origin of the page that sent the request, if the key of the request permits this origin. A route that accepts
    larger bodies increases `max_body_bytes` before reading the body. `response_headers` are added to every response,
    including responses that report a problem.
    """

    request_id: str
    method: str
    route: str = "(none)"
    status: int | None = None
    latency_ms: float = 0.0
    trace_id: str | None = None
    key_id: str | None = None
    key_origin: str | None = None
    job_id: str | None = None
    problem: str | None = None
    max_body_bytes: int = _DEFAULT_BODY_BYTES
    response_headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    _started_s: float = field(default_factory=time.perf_counter, init=False)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self._started_s


OnRequestEnd = Callable[[RequestContext], None]


def request_context(scope: Scope) -> RequestContext:
    """Return the context of the request with the ASGI scope `scope`.

    Raises
    ------
    TypeError
        The app has no `RequestContextMiddleware`.
    """
    context = scope.get(_SCOPE_KEY)
    if not isinstance(context, RequestContext):
        raise TypeError("The app has no RequestContextMiddleware: call recsys.http.problems.install(app).")
    return context


class RequestContextMiddleware:
    """Middleware that creates the `RequestContext`, enforces the body limit and logs the request.

    Parameters
    ----------
    app
        The app to wrap.
    crash_response
        Function that builds the response to an exception that the app did not handle.
    on_request_end
        Function that is called with the context of each finished request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        crash_response: Callable[[RequestContext], ASGIApp],
        on_request_end: OnRequestEnd | None = None,
    ) -> None:
        self._app = app
        self._crash_response = crash_response
        self._on_request_end = on_request_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection.

        An HTTP request gets a `RequestContext`, a limit for its body, a log line, and a response if the app fails.
        Other connections are passed through.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        trace_id = trace_id_of(scope["headers"])
        context = scope[_SCOPE_KEY] = RequestContext(_request_id(scope), scope["method"], trace_id=trace_id)
        send = _record_status(context, send)
        try:
            await self._app(scope, _limit_body(context, scope, receive), send)
        except Exception as error:  # noqa: BLE001 the outermost handler: the client gets a response to any failure
            _log_crash(context, error)
            if context.status is None:
                await self._crash_response(context)(scope, receive, send)
        finally:
            context.latency_ms = round(context.elapsed_s * 1000, 2)
            context.route = getattr(scope.get("route"), "path_format", context.route)
            self._finish(context)

    def _finish(self, context: RequestContext) -> None:
        values = {name: value for name in LOG_FIELDS if (value := getattr(context, name)) is not None}
        _logger.info("%s %s %s", context.method, context.route, context.status, extra=values)
        if self._on_request_end is not None:
            self._on_request_end(context)


def _request_id(scope: Scope) -> str:
    """Return the request id of API Gateway, or a new id if the request did not come from API Gateway.

    With the same id, the lines of the gateway's log and of this log can be joined.
    """
    context = scope.get("aws.event", {}).get("requestContext", {})
    return str(context.get("requestId") or secrets.token_hex(8))


def _record_status(context: RequestContext, send: Send) -> Send:
    """Wrap `send` so that it records the status of the response and adds the headers of the context."""

    async def send_recorded(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.status = message["status"]
            request_id = (b"x-request-id", context.request_id.encode())
            headers = [*message.get("headers", ()), *context.response_headers, request_id]
            message = {**message, "headers": headers}
        await send(message)

    return send_recorded


def _limit_body(context: RequestContext, scope: Scope, receive: Receive) -> Receive:
    """Wrap `receive` so that it raises `PayloadTooLarge` for a body above the context's limit.

    The limit is read with every message, because a route can increase the limit before it reads the body.
    docs/decisions/0029-request-limits.md explains why Starlette's own `max_body_size` is not used.
    """
    declared_bytes = _content_length(scope)
    received_bytes = 0

    async def receive_limited() -> Message:
        nonlocal received_bytes
        # Before the first `receive`, which would send `100 Continue` to a client that waits for it.
        if declared_bytes > context.max_body_bytes:
            raise _too_large(context)
        message = await receive()
        if message["type"] == "http.request":
            received_bytes += len(message.get("body", b""))
            if received_bytes > context.max_body_bytes:
                raise _too_large(context)
        return message

    return receive_limited


def _content_length(scope: Scope) -> int:
    """Return the declared size of the body in bytes, or 0 for a chunked body."""
    text = dict(scope["headers"]).get(b"content-length", b"")
    return int(text) if text.isdigit() else 0


def _too_large(context: RequestContext) -> PayloadTooLarge:
    return PayloadTooLarge(
        f"The request body exceeds the limit of {context.max_body_bytes} bytes.",
        hint="Send less data per request. For a large CSV, request an upload form with POST /v1/uploads.",
    )


def _log_crash(context: RequestContext, error: Exception) -> None:
    # The traceback is logged as text, because a message can quote a secret, and a formatter that prints exc_info would
    # not call `redacted`.
    text = redacted("".join(traceback.format_exception(error)))
    _logger.error("%s failed\n%s", context.method, text, extra={"request_id": context.request_id})
