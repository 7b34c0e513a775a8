"""Where the metrics can be read: the route `GET /metrics` for this machine, or a port of their own."""

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
    """Create the route `GET /metrics`, which only answers requests of this machine."""
    router = APIRouter()

    @router.get("/metrics", include_in_schema=False)
    def read_metrics(request: Request) -> Response:
        if not is_from_this_machine(request):
            # The same answer as where there is no such route, which reveals nothing.
            raise NotFound("There is no route at this path.", hint="GET /docs lists the routes.")
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return router


def is_from_this_machine(request: Request) -> bool:
    """Return whether a request came directly from a program on this machine.

    A reverse proxy on the same machine also connects from a loopback address, but adds headers. A page that reaches
    the service under a name of its own (DNS rebinding) sends that name as `Host`.
    """
    if request.client is None or any(name in request.headers for name in _PROXY_HEADERS):
        return False
    return _is_loopback(request.client.host) and _is_loopback(request.url.hostname or "")


@contextmanager
def metrics_listener(registry: CollectorRegistry, host: str, port: int) -> Iterator[int]:
    """Serve the metrics on a port of their own within the block, and yield the port.

    Raises
    ------
    CannotListen
        The port is in use, or the address is not one of this machine's.
    """
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise CannotListen(f"{host}:{port}: {error.strerror}.", hint="Pass another --metrics-port.") from error
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
