"""Expose the metrics over HTTP.

The metrics are served either at the route `GET /metrics`, which only clients on this machine can use, or on a separate
port.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from fastapi import APIRouter, Request, Response
from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from recsys.errors import NotFound
from recsys_local.connections import CannotListen

_PROXY_HEADERS: Final = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


def create_metrics_router(registry: CollectorRegistry) -> APIRouter:
    """Create the router for `GET /metrics`, which responds only to clients on this machine."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    def read_metrics(request: Request) -> Response:
        if not is_from_this_machine(request):
            # The same response as for a path without a route, so that it does not reveal that the route exists.
            raise NotFound("There is no route at this path.", hint="GET /docs lists the routes.")
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def is_from_this_machine(request: Request) -> bool:
    """Return whether a request came directly from a program on this machine.

    A loopback address of the client is necessary, but not sufficient. A reverse proxy on this machine also connects
    from a loopback address, so a request with proxy headers counts as a request from another machine. The `Host` header
    must also name a loopback address, because a web page could otherwise reach the service through DNS rebinding.
    """
    if request.client is None or any(name in request.headers for name in _PROXY_HEADERS):
        return False
    return _is_loopback(request.client.host) and _is_loopback(request.url.hostname or "")


@contextmanager
def metrics_listener(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve the metrics on a separate port while the context is active, and yield the port.

    Raises
    ------
    CannotListen
        The port is in use, or the address does not belong to this machine.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise CannotListen(
            f"{host}:{port}: {error.strerror}.", hint="Pass another --metrics-port or --metrics-host."
        ) from error
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _is_loopback(host: str) -> bool:
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    # A service that listens on all IPv6 addresses sees IPv4 clients as ::ffff:a.b.c.d.
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
