"""Headers that every response has: those that protect browsers, and those that permit pages of other origins."""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from recsys.http import cors
from recsys.http.middleware import request_context

_DEFAULTS: Final = {
    # Nothing on this service is meant to be guessed, embedded, or cached unless a route says so.
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
    # Pages of other origins read a response by CORS only, never by embedding it.
    "Cross-Origin-Resource-Policy": "same-origin",
}
"""Headers by name; a response that sets one of them keeps its own value."""


class ResponseHeadersMiddleware:
    """Middleware around `RequestContextMiddleware` that adds headers to every response, also to that of a crash.

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
        """Handle one ASGI connection; anything but HTTP is passed through."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        origin = Headers(scope=scope).get("origin")

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _DEFAULTS.items():
                    headers.setdefault(name, value)
                headers.add_vary_header("Origin")
                headers.update(cors.response_headers(request_context(scope), origin, self._origins))
            await send(message)

        await self._app(scope, receive, send_with_headers)
