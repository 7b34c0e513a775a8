"""Metrics that the HTTP process records while it handles requests.

They comprise the latencies of requests, the number of errors, and the hits, misses and sizes of the caches.
"""

from __future__ import annotations

import functools
from http import HTTPMethod
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from recsys.http.middleware import RequestContext
from recsys_local.metrics.names import prometheus_name

LATENCY_BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
"""Upper bounds of the histogram's buckets, in seconds. They range from a cached recommendation to a training request
with a large body."""
_COUNTERS: Final = {
    "ServerError": "Responses with status 500 or higher.",
    "ModelLoaded": "Model versions that were loaded into memory.",
    "CatalogueLoaded": "Item catalogues that were loaded.",
    "CatalogueFailed": "Item catalogues that could not be loaded, because a file is damaged or a store failed.",
    "ModelFailed": "Model versions that could not be loaded, because a file is damaged or a store failed.",
    "ModelCacheHit": "Requests whose current model version was in memory.",
    "ModelCacheMiss": "Requests whose current model version was not in memory.",
    "ResponseCacheHit": "Responses from the response cache.",
    "ResponseCacheMiss": "Responses that were computed.",
}
_SIZES: Final = {
    "ModelCache": "Memory of the loaded models.",
    "ResponseCache": "Memory of the cached responses.",
}
_METHODS: Final = frozenset(HTTPMethod)


class ProcessMetrics:
    """The Prometheus metrics of requests and caches in one process.

    Parameters
    ----------
    registry
        Prometheus registry in which the metrics are registered.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._latency = Histogram(
            prometheus_name("Latency", "seconds"),
            "Time from the arrival of a request to the end of its response.",
            ("method", "route", "status"),
            buckets=LATENCY_BUCKETS_S,
            registry=registry,
        )
        # Cached, because the lookup of the labels takes as long as all other recording for a request.
        self._latency_of = functools.cache(self._latency.labels)
        self._counters = {
            name: Counter(prometheus_name(name), text, registry=registry) for name, text in _COUNTERS.items()
        }
        self._sizes = {
            f"{name}Bytes": Gauge(prometheus_name(name, "bytes"), text, registry=registry)
            for name, text in _SIZES.items()
        }

    def record_request(self, context: RequestContext) -> None:
        """Record a finished request. `recsys.http.problems.install` takes this method as a callback."""
        # A client can send any word as the method, and every new value of a label would start another time series.
        method = context.method if context.method in _METHODS else "OTHER"
        status = context.status or 500
        self._latency_of(method, context.route, f"{status // 100}xx").observe(context.latency_ms / 1000)
        if status >= 500:
            self.count("ServerError")

    def count(self, name: str) -> None:
        """Add one to the counter `name`."""
        self._counters[name].inc()

    def record_detail(self, name: str, value: float) -> None:
        """Add `value` to the counter `name`.

        If `name` is a gauge, such as `ModelCacheBytes`, set the gauge to `value`.
        """
        if name in self._sizes:
            self._sizes[name].set(value)
        else:
            self._counters[name].inc(value)
