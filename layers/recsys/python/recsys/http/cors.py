"""Permit web pages of other origins to call the API and to read its responses.

The setting `RECSYS_CORS_ORIGINS` permits its origins on every route. A publishable key permits its origins for the
requests that contain the key. A browser sends a preflight request without the key. On the routes that a publishable key
can call, a preflight request from any origin therefore succeeds, and the request itself is checked.
docs/decisions/0038-scoped-keys.md explains the decision.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Set as AbstractSet
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from recsys.errors import OriginNotAllowed
from recsys.http.middleware import RequestContext, request_context

PUBLISHABLE_ROUTES: Final = frozenset(
    {"/v1/recommendations", "/v1/recommendations/batch", "/v1/items/{item_id:path}/similar", "/v1/popular"}
)
"""Path templates of the routes that the scope `recommend` permits."""

_REQUEST_HEADERS: Final = "Content-Type, Idempotency-Key, Prefer, X-API-Key"
_EXPOSED_HEADERS: Final = b"ETag, Location, Preference-Applied, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
_READ_METHODS: Final = ("GET", "HEAD", "OPTIONS")
_MAX_AGE_S: Final = 7200  # the longest that Chromium honours


def preflight_response(request: Request, allowed_methods: str, *, origins: AbstractSet[str]) -> Response:
    """Respond to `OPTIONS` on a path that exists.

    Parameters
    ----------
    request
        A CORS preflight request, or any other `OPTIONS` request.
    allowed_methods
        The methods of the path, separated by commas.
    origins
        Origins that are permitted on every route.

    Returns
    -------
    Response
        A response with status 204 and the header `Allow`. It has the CORS headers if pages of the origin can call the
        path.
    """
    headers = {"Allow": allowed_methods}
    origin = request.headers.get("origin")
    if origin and "access-control-request-method" in request.headers:
        allowed = origin if origin in origins else "*" if _route(request) in PUBLISHABLE_ROUTES else None
        if allowed is not None:
            headers |= {
                "Access-Control-Allow-Origin": allowed,
                "Access-Control-Allow-Methods": allowed_methods,
                "Access-Control-Allow-Headers": _REQUEST_HEADERS,
                "Access-Control-Max-Age": str(_MAX_AGE_S),
            }
    return Response(status_code=204, headers=headers)


def response_headers(context: RequestContext, origin: str, origins: AbstractSet[str]) -> list[tuple[bytes, bytes]]:
    """Return the CORS headers of a response to a request other than a preflight request.

    The result is empty if pages of the origin may not read the response.

    Parameters
    ----------
    context
        Context of the request. Its `key_origin` is the origin that the key of the request permits.
    origin
        Value of the `Origin` header.
    origins
        Origins that are permitted on every route.
    """
    if origin not in origins and origin != context.key_origin:
        return []
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", _EXPOSED_HEADERS),
    ]


class PageWriteMiddleware:
    """Middleware that rejects writing requests without an API key from web pages of other origins.

    A browser sends some of these requests, such as an upload, without a preflight request. Without this middleware, any
    page could therefore make the browsers of its visitors create keys, or send requests to a service on the visitor's
    own machine. Requests with an API key pass, because the browser sends a preflight request first, and the route
    checks the key.

    The header `Sec-Fetch-Site` states whether the page has the origin of the service. Browsers set this header
    correctly even if the service is behind a proxy. Requests of other clients lack the header and pass.

    Parameters
    ----------
    app
        The app to wrap.
    origins
        Origins whose pages may call every route.
    reject
        Function that builds the response to a rejected request.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        origins: AbstractSet[str],
        reject: Callable[[RequestContext, OriginNotAllowed], ASGIApp],
    ) -> None:
        self._app = app
        self._origins = origins
        self._reject = reject

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one ASGI connection.

        A writing HTTP request from a page of another origin is rejected, unless the request has an API key or the
        origin is one of `origins`. All other connections are passed through.
        """
        app = self._app
        if scope["type"] == "http" and scope["method"] not in _READ_METHODS:
            headers = dict(scope["headers"])
            is_foreign = headers.get(b"sec-fetch-site", b"none") not in (b"none", b"same-origin")
            origin = headers.get(b"origin", b"").decode("latin-1")
            if is_foreign and b"x-api-key" not in headers and origin not in self._origins:
                app = self._reject(request_context(scope), _page_may_not_write())
        await app(scope, receive, send)


def _page_may_not_write() -> OriginNotAllowed:
    return OriginNotAllowed(
        "Pages of this origin are not permitted to send this request.",
        hint="Send the request from a server. The operator can permit origins with the setting RECSYS_CORS_ORIGINS.",
    )


def _route(request: Request) -> str:
    return str(getattr(request.scope.get("route"), "path", ""))
