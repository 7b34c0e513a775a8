"""Apply rate limits to routes.

A rejected request gets status 429 with `Retry-After`. Every response of a limited route states the limit in the header
fields `RateLimit` and `RateLimit-Policy` of draft-ietf-httpapi-ratelimit-headers-10.
"""

# No `from __future__ import annotations`: FastAPI evaluates the annotations of dependencies.
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated, Final

from fastapi import Depends, Request

from recsys.errors import RateLimited
from recsys.http.middleware import RequestContext, request_context
from recsys.registry.key_record import KeyRecord
from recsys.registry.rate_limits import Buckets, Quota, RateLimit

_IPV6_PREFIX: Final = 64
"""Length in bits of the IPv6 prefix that a provider assigns to one customer. The customer chooses the rest of the
address."""
_ANONYMOUS_HINT: Final = "Send your API key in X-API-Key, or retry after the number of seconds in Retry-After."


class RateLimiter:
    """A check that applies a rate limit to requests.

    Parameters
    ----------
    buckets
        Buckets that count the requests.
    limit
        The limit that applies to each key or each client address.
    """

    def __init__(self, buckets: Buckets, limit: RateLimit) -> None:
        self._buckets = buckets
        self._limit = limit

    def check(self, context: RequestContext, subject: str, *, hint: str | None = None) -> None:
        """Count a request, and add the state of the limit to the headers of the response.

        `subject` is the key id or the client address to which the limit applies.

        Raises
        ------
        RateLimited
            The limit is exceeded.
        Unavailable
            The registry did not respond.
        """
        quota = self._buckets.take(self._limit, subject)
        context.response_headers += header_fields(self._limit, quota)
        if not quota.granted:
            raise RateLimited(
                f"Expected at most {self._limit.quota:,} {self._limit.unit}. "
                f"The next request is accepted in {quota.reset_s} s.",
                hint=hint,
                retry_after_s=quota.reset_s,
            )


def limiter(buckets: Buckets, create: Callable[[int], RateLimit], quota: int) -> RateLimiter | None:
    """Return a limiter with the given quota, or None if the quota is 0, which means no limit."""
    return RateLimiter(buckets, create(quota)) if quota else None


def limited_key(
    authenticate: Callable[..., KeyRecord | None], *, by_key: RateLimiter | None, by_address: RateLimiter | None
) -> Callable[..., KeyRecord | None]:
    """Return a dependency that counts a request and returns the record of its key, or None for a request without a key.

    The dependency raises `RateLimited` if the limit is exceeded. FastAPI runs the dependency in a thread, because the
    dependency waits for the registry.

    Parameters
    ----------
    authenticate
        A dependency that returns the record of the request's key, or None for a request without a key.
    by_key
        Rate limiter of the requests per key. None means no limit.
    by_address
        Rate limiter per client address of the requests without a key. None means no limit.
    """

    def count(request: Request, key: Annotated[KeyRecord | None, Depends(authenticate)]) -> KeyRecord | None:
        context = request_context(request.scope)
        if key is not None and by_key is not None:
            by_key.check(context, key.key_id)
        elif key is None and by_address is not None:
            by_address.check(context, client_network(request), hint=_ANONYMOUS_HINT)
        return key

    return count


def limited_cached_key(
    authenticate: Callable[..., Awaitable[KeyRecord]], by_key: RateLimiter | None
) -> Callable[..., Awaitable[KeyRecord]]:
    """Return a dependency like `limited_key` that runs on the event loop.

    The buckets must be in memory, because waiting for the registry would block the event loop.
    """
    if by_key is None:
        return authenticate

    async def count(request: Request, key: Annotated[KeyRecord, Depends(authenticate)]) -> KeyRecord:
        by_key.check(request_context(request.scope), key.key_id)
        return key

    return count


def header_fields(limit: RateLimit, quota: Quota) -> list[tuple[bytes, bytes]]:
    """Return the header fields that state a limit and the remaining quota.

    Examples
    --------
    >>> limit = RateLimit("trainings", 300, 86400, "trainings per key and day")
    >>> for name, value in header_fields(limit, Quota(granted=1, remaining=299, reset_s=288)):
    ...     print(name.decode(), value.decode())
    ratelimit-policy "trainings";q=300;w=86400
    ratelimit "trainings";r=299;t=288
    """
    return [
        (b"ratelimit-policy", f'"{limit.name}";q={limit.quota};w={limit.window_s}'.encode()),
        (b"ratelimit", f'"{limit.name}";r={quota.remaining};t={quota.reset_s}'.encode()),
    ]


def client_network(request: Request) -> str:
    """Return the IPv4 address of the client, or the /64 network of a client with an IPv6 address.

    An internet provider assigns a /64 network to one customer. uvicorn reads the address from the socket or from the
    header `X-Forwarded-For` of a trusted proxy. Mangum reads the address from `requestContext.http.sourceIp` of API
    Gateway.
    """
    host = request.client.host if request.client else "unknown"
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX), strict=False))
