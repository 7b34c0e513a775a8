"""All metrics of the local service, and where they are exposed."""

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
    """Address at which the metrics have a port of their own; without a port, they are a route of the service."""

    host: str = LOOPBACK
    port: int | None = None


@dataclass(frozen=True, slots=True)
class ServiceMetrics:
    """The metrics of one service.

    Parameters
    ----------
    registry
        Everything that is exposed. It is not the global one of the library, so that one process can have two services.
    process
        The metrics that requests change.
    address
        Where they are exposed.
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

        Behind a proxy, the metrics are not a route of the service, because the proxy might pass requests on.
        `refresh_s` is that of `StateCollector`.
        """
        # Otherwise every counter and histogram has a second time series, for the time of its creation.
        disable_created_metrics()  # type: ignore[no-untyped-call]  # the library's omission
        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        process = ProcessMetrics(registry)
        registry.register(StateCollector(state, refresh_s=refresh_s))
        return cls(registry, process, address, is_route=address.port is None and not is_behind_proxy)

    def listening(self) -> AbstractContextManager[int | None]:
        """Serve the metrics on their own port within the block, if they have one."""
        if self.address.port is None:
            return nullcontext()
        return metrics_listener(self.registry, self.address.host, self.address.port)
