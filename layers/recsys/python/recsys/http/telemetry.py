"""Write the logs and metrics of a Lambda function as JSON lines, with Powertools for AWS Lambda.

The modules of the project use loggers of the standard library with names below `recsys`. This module configures these
loggers to write JSON. Powertools itself reads the log level, the service and the namespace from `LOG_LEVEL` and
`POWERTOOLS_*`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPMethod
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import Metrics, MetricUnit

if TYPE_CHECKING:  # the image of `train` has no Starlette, which the middleware needs
    from recsys.http.middleware import RequestContext

Event = dict[str, Any]
LambdaHandler = Callable[[Event, Any], Event]

_ROOT: Final = "recsys"
_METHODS: Final = frozenset(HTTPMethod)


class LambdaTelemetry:
    """The logging and the metrics of one Lambda function.

    Parameters
    ----------
    service
        Name of the function in log lines and metric dimensions, such as `api`.
    per_route_metrics
        Whether latency and errors are also recorded per route. AWS charges for the additional metrics of each route.
    detailed_metrics
        Whether `record_detail` records its metrics. AWS charges for each metric.
    """

    def __init__(self, service: str, *, per_route_metrics: bool = False, detailed_metrics: bool = False) -> None:
        self._service = service
        self._per_route_metrics = per_route_metrics
        self._detailed_metrics = detailed_metrics
        self._logger = Logger(service=service)
        self._metrics = Metrics(service=service)
        self._metrics.namespace = self._metrics.namespace or _ROOT
        logging.getLogger(_ROOT)  # creates the logger, because the configuration is only copied to existing ones
        copy_config_to_registered_loggers(self._logger, include={_ROOT})
        # Mangum logs raw paths, which can contain keys. The middleware logs every request anyway.
        logging.getLogger("mangum.http").setLevel(logging.ERROR)

    def record_request(self, context: RequestContext) -> None:
        """Record the latency and the outcome of a finished request.

        Pass this method to `recsys.http.problems.install`.
        """
        if self._per_route_metrics:
            # A client can send any word as the method, and CloudWatch bills each new value of a dimension as a metric.
            method = context.method if context.method in _METHODS else "OTHER"
            # A second set of dimensions, because alarms watch the metrics of the whole service.
            self._metrics.add_dimensions(service=self._service, route=f"{method} {context.route}")
        self._metrics.add_metric("Latency", MetricUnit.Milliseconds, context.latency_ms)
        self._metrics.add_metric("ServerError", MetricUnit.Count, float((context.status or 500) >= 500))

    def count(self, name: str) -> None:
        """Add one to the metric `name` of the current invocation."""
        self._metrics.add_metric(name, MetricUnit.Count, 1)

    def record_detail(self, name: str, value: float) -> None:
        """Record a value of the metric `name` if detailed metrics are enabled.

        The unit is bytes for a name that ends in `Bytes`, and seconds for a name that ends in `Duration`. Other values
        are counts.
        """
        if self._detailed_metrics:
            self._metrics.add_metric(name, _unit_of(name), value)

    def watch(self, handler: LambdaHandler) -> LambdaHandler:
        """Wrap a handler so that its log lines contain the id of the invocation.

        The metrics of an invocation are written when the handler returns or raises an exception.
        """

        @self._logger.inject_lambda_context
        def watched(event: Event, context: Any) -> Event:
            try:
                return handler(event, context)
            finally:
                if self._metrics.metric_set:
                    self._metrics.flush_metrics()

        watch: LambdaHandler = watched
        return watch


def _unit_of(name: str) -> MetricUnit:
    if name.endswith("Bytes"):
        return MetricUnit.Bytes
    return MetricUnit.Seconds if name.endswith("Duration") else MetricUnit.Count
