"""Who is asking: the `X-API-Key` header of a request, as what a route's function is called with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

from fastapi import Request, Security
from fastapi.security import APIKeyHeader

from recsys.http.middleware import request_context
from recsys.keys.authentication import Authenticator
from recsys.registry.records import KeyRecord

HEADER: Final = "X-API-Key"
_documented: Final = APIKeyHeader(
    name=HEADER, scheme_name="ApiKey", description="The key that POST /v1/train returned.", auto_error=False
)


def required(authenticator: Authenticator, *, current: bool = False) -> Callable[..., KeyRecord]:
    """A dependency that gives the record of the request's key, or raises `InvalidApiKey`.

    With `current`, a key that was rotated out is refused although its overlap goes on.
    """

    def authenticated(request: Request, _: Annotated[str | None, Security(_documented)]) -> KeyRecord:
        record = authenticator.authenticate(request.headers.get(HEADER), require_current=current)
        request_context(request.scope).key_id = record.key_id
        return record

    return authenticated


def optional(authenticator: Authenticator) -> Callable[..., KeyRecord | None]:
    """As `required`, but None where no key was sent. A header that is there and empty is a mistake, not nobody."""
    check = required(authenticator)

    def authenticated(request: Request, _: Annotated[str | None, Security(_documented)]) -> KeyRecord | None:
        return check(request, None) if HEADER in request.headers else None

    return authenticated
