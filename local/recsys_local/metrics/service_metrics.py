"""Create all metrics of the local service, and expose them at one address."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Final, Self

from prometheus_client import CollectorRegistry, ProcessCollector, disable_created_metrics

from recsys_local.metrics.exposition import metrics_listener
from recsys_local.metrics.process_metrics import ProcessMetrics
from recsys_local.metrics.state_metrics import REFRESH_S, ServiceState, StateCollector

LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class MetricsAddress:
    """Address of the separate port for the metrics.

    If `port` is None, the service itself serves the metrics at `GET /metrics`, unless it is behind a proxy.
    """

    host: str = LOOPBACK
    port: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """The metrics of one service.

    Parameters
    ----------
    registry
        Prometheus registry of all exposed metrics. It is not the global registry of the library, because one process
        can run several services.
    process
        Metrics that are recorded while requests are handled.
    address
        Address of a separate port for the metrics, if any.
    is_route
        Whether `GET /metrics` is a route of the service.
    """

    registry: CollectorRegistry
    process: ProcessMetrics
    address: MetricsAddress
    is_route: bool

    @classmethod
    def of(
        cls, state: ServiceState, address: MetricsAddress, *, is_behind_proxy: bool, refresh_s: float = REFRESH_S
    ) -> Self:
        """Create the metrics of a service.

        A service behind a proxy has no route `GET /metrics`, because the proxy might forward requests from the internet
        to this route.

        Parameters
        ----------
        state
            Sources of the state of the service.
        address
            Address of a separate port for the metrics, if any.
        is_behind_proxy
            Whether clients reach the service through a reverse proxy.
        refresh_s
            Time in seconds for which values from the registry are cached.
        """
        # Otherwise every counter and histogram has a second time series with the time of its creation.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's omission
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        process = ProcessMetrics(registry)
        registry.register(StateCollector(state, refresh_s=refresh_s))
        return cls(registry, process, address, is_route=address.port is None and not is_behind_proxy)

    def listening(self) -> AbstractContextManager[int | None]:
        """Serve the metrics on the port of `address` while the context is active.

        The context yields the port, or None if `address` has no port.
        """
        if self.address.port is None:
            return nullcontext()
        return metrics_listener(self.registry, self.address.host, self.address.port)
