"""One HTTP context: its id, the limit of its body, its line in the log, and an answer when the code below it failed.

Plain ASGI, no framework. A line says which route, which status, how long and which key id; never a header, a key, a
body or a path as it was sent.
"""

from __future__ import annotations

import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, Final

from recsys.errors import PayloadTooLarge
from recsys.redaction import redacted

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

_logger: Final = logging.getLogger("recsys.http")
_SCOPE_KEY: Final = "recsys.http.middleware"
_DEFAULT_BODY_BYTES: Final = 2 * 1024 * 1024
# A client that still sends misses an answer that comes before its last byte: so much is read and thrown away.
_DISCARDED_BYTES: Final = 64 * 1024 * 1024


@dataclass(slots=True)
class RequestContext:
    """What is known of a request and its answer, for the log and for metrics.

    `max_body_bytes` and `framing_bytes` (what may come on top, the text around a multipart file) can be raised by a
    route before it reads the body. `route` is the path as the program knows it, `/v1/jobs/{job_id}`.
    """

    request_id: str
    method: str
    route: str = "(none)"
    status: int | None = None
    latency_ms: float = 0.0
    key_id: str | None = None
    job_id: str | None = None
    problem: str | None = None
    max_body_bytes: int = _DEFAULT_BODY_BYTES
    framing_bytes: int = 0
    _started_s: float = field(default_factory=time.perf_counter, init=False)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the request arrived."""
        return time.perf_counter() - self._started_s


OnRequestEnd = Callable[[RequestContext], None]


def request_context(scope: Scope) -> RequestContext:
    """The context that an ASGI scope belongs to."""
    context = scope.get(_SCOPE_KEY)
    if not isinstance(context, RequestContext):
        raise TypeError("The app has no RequestContextMiddleware: call recsys.http.problems.install(app).")
    return context


class RequestContextMiddleware:
    """Wraps an app; goes outside everything else.

    Parameters
    ----------
    crashed
        Gives the answer to an exception that nothing else handled.
    observe
        Is told of every context when it is over.
    """

    def __init__(
        self, app: AsgiApp, *, crashed: Callable[[RequestContext], AsgiApp], on_request_end: OnRequestEnd | None = None
    ) -> None:
        self._app = app
        self._crashed = crashed
        self._on_request_end = on_request_end

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, and the answer back."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        context = scope[_SCOPE_KEY] = RequestContext(_request_id(scope), scope["method"])
        send = _record_status(context, send)
        try:
            await self._app(scope, _limited(context, receive), send)
        except Exception as error:  # noqa: BLE001 the last line: whatever it is, the caller gets an answer
            _log_crash(context, error)
            if context.status is None:
                await self._crashed(context)(scope, receive, send)
        finally:
            context.latency_ms = round(context.elapsed_s * 1000, 2)
            context.route = getattr(scope.get("route"), "path_format", context.route)
            self._finish(context)

    def _finish(self, context: RequestContext) -> None:
        fields = ("request_id", "method", "route", "status", "latency_ms", "key_id", "job_id", "problem")
        values = {name: value for name in fields if (value := getattr(context, name)) is not None}
        _logger.info("%s %s %s", context.method, context.route, context.status, extra=values)
        if self._on_request_end is not None:
            self._on_request_end(context)


def _request_id(scope: Scope) -> str:
    """API Gateway's, so that its log and ours can be joined; otherwise a new one."""
    context = scope.get("aws.event", {}).get("requestContext", {})
    return str(context.get("requestId") or secrets.token_hex(8))


def _record_status(context: RequestContext, send: Send) -> Send:
    """Note the status on its way out, and add the request id."""

    async def send_recorded(message: Message) -> None:
        if message["type"] == "http.response.start":
            context.status = message["status"]
            headers = [*message.get("headers", ()), (b"x-request-id", context.request_id.encode())]
            message = {**message, "headers": headers}
        await send(message)

    return send_recorded


def _limited(context: RequestContext, receive: Receive) -> Receive:
    """Raise `PayloadTooLarge` once the body is over the context's limit, which is looked up with every part."""
    received = 0

    async def receive_limited() -> Message:
        nonlocal received
        message = await receive()
        if message["type"] == "http.request":
            received += len(message.get("body", b""))
            if received > context.max_body_bytes + context.framing_bytes:
                await _discard(message, receive)
                raise PayloadTooLarge(
                    f"The body is over the limit of {context.max_body_bytes} bytes.",
                    hint="Send less in one request; a large CSV goes to the address that POST /v1/uploads gives.",
                )
        return message

    return receive_limited


async def _discard(message: Message, receive: Receive) -> None:
    discarded = 0
    while message["type"] == "http.request" and message.get("more_body") and discarded < _DISCARDED_BYTES:
        message = await receive()
        discarded += len(message.get("body", b""))


def _log_crash(context: RequestContext, error: Exception) -> None:
    # As text, since a message can quote a value; a formatter that prints exc_info would not pass it through `redacted`.
    text = redacted("".join(traceback.format_exception(error)))
    _logger.error("%s failed\n%s", context.method, text, extra={"request_id": context.request_id})
