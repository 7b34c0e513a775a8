"""Add security headers to every response, and CORS headers to responses that pages of other origins may read."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.http import cors
from recsys.http.middleware import request_context

# As bytes, because every recommendation passes this middleware, and Starlette's header classes encode each name again.
_DEFAULTS: Final = {
    # By default, browsers must not guess the type of a response, embed the response, or cache it.
    b"x-content-type-options": b"nosniff",
    b"referrer-policy": b"no-referrer",
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'",
    b"cache-control": b"no-store",
    # Pages of other origins read a response by CORS only, never by embedding it.
    b"cross-origin-resource-policy": b"same-origin",
}
"""Default headers by name. A response that sets one of these headers keeps its own value."""

_VARY: Final = (b"vary", b"Origin")


class ResponseHeadersMiddleware:
    """Middleware that adds security headers and CORS headers to every response.

    This middleware wraps `RequestContextMiddleware`, so that the response to an unhandled exception also has the
    headers.

    Parameters
    ----------
    app
        The app to wrap.
    origins
        Origins whose pages may call every route.
    """

    def __init__(self, app: ASGIApp, *, origins: AbstractSet[str] = frozenset()) -> None:
        self._app = app
        self._origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection.

        The headers are added to the response to an HTTP request. Other connections are passed through.
        """
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = dict(scope["headers"]).get(b"origin")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message.get("headers", ()))
                present = {name for name, _ in headers}
                headers += [header for header in _DEFAULTS.items() if header[0] not in present]
                headers.append(_VARY)
                if origin is not None and b"access-control-allow-origin" not in present:
                    headers += cors.response_headers(request_context(scope), origin.decode("latin-1"), self._origins)
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, send_with_headers)
