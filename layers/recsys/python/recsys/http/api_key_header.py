"""FastAPI dependencies that authenticate the `X-API-Key` header."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from recsys.errors import ApiKeyRequired
from recsys.http.middleware import request_context
from recsys.keys.authentication import Authenticator
from recsys.registry.key_record import KeyRecord
from recsys.registry.scoped_keys import Scope

HEADER: Final = "X-API-Key"
_scheme: Final = APIKeyHeader(
    name=HEADER,
    scheme_name="ApiKey",
    description="The API key that `POST /v1/train`, `POST /v1/validate`, `POST /v1/uploads`, `POST /v1/key/claim` or "
    "`POST /v1/key/rotate` returned. A scoped key, which `POST /v1/keys` creates, is also accepted on the routes that "
    "its scope permits.",
    auto_error=False,
)
# `Security` documents the scheme. The header is read from the request, because the scheme turns an empty header into
# None.
_Documented = Annotated[str | None, Security(_scheme)]


def required_key(
    authenticator: Authenticator, *, scope: Scope | None = None, require_current: bool = False
) -> Callable[..., KeyRecord]:
    """Return a dependency that authenticates a request and returns the record of its key.

    The dependency raises `InvalidApiKey` for an invalid key. FastAPI runs the dependency in a thread, because the
    dependency waits for the registry.

    Parameters
    ----------
    authenticator
        Validator of the key.
    scope
        Scope that permits a scoped key to call the route. None if the route accepts only main keys.
    require_current
        Whether to reject the previous secret of a rotated key even during its overlap.
    """

    def authenticate(request: Request, _: _Documented) -> KeyRecord:
        if require_current:
            return _recorded(request, authenticator.authenticate(request.headers.get(HEADER), require_current=True))
        return _authorize(authenticator, request, scope)

    return authenticate


def optional_key(
    authenticator: Authenticator, *, scope: Scope, allow_anonymous: bool = True
) -> Callable[..., KeyRecord | None]:
    """Return a dependency like `required_key` that returns None for a request without an `X-API-Key` header.

    An empty header is an error and not a request without a key. Otherwise, a client that sends the value of an unset
    variable as its key would get a new key.

    Parameters
    ----------
    authenticator
        Validator of the key.
    scope
        Scope that permits a scoped key to call the route.
    allow_anonymous
        Whether a request without the header is accepted. If false, the dependency raises `ApiKeyRequired` for such a
        request.
    """

    def authenticate(request: Request, _: _Documented) -> KeyRecord | None:
        if HEADER in request.headers:
            return _authorize(authenticator, request, scope)
        if not allow_anonymous:
            raise ApiKeyRequired("This service trains for existing API keys only. No API key was sent.")
        return None

    return authenticate


def cached_key(authenticator: Authenticator, *, scope: Scope | None) -> Callable[..., Awaitable[KeyRecord]]:
    """Return a dependency like `required_key` that runs on the event loop, for an authenticator with a cache.

    Nearly every record comes from the cache. Therefore the dependency hardly ever waits. A thread would take longer
    than the rest of the request.
    """

    async def authenticate(request: Request, _: _Documented) -> KeyRecord:
        return _authorize(authenticator, request, scope)

    return authenticate


def _authorize(authenticator: Authenticator, request: Request, scope: Scope | None) -> KeyRecord:
    origin = request.headers.get("origin")
    record, scoped_key = authenticator.authorize(request.headers.get(HEADER), scope, origin=origin)
    if scoped_key is not None and origin in scoped_key.origins:
        request_context(request.scope).key_origin = origin
    return _recorded(request, record)


def _recorded(request: Request, record: KeyRecord) -> KeyRecord:
    request_context(request.scope).key_id = record.key_id
    return record
