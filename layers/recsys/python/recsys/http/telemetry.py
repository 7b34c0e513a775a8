"""Logs and metrics of a Lambda function: one JSON line each, by Powertools for AWS Lambda.

Our modules log through the standard library, to loggers below `recsys`; this is where those lines get their shape.
Level, service and namespace are read by Powertools itself, from LOG_LEVEL and POWERTOOLS_*.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from http import HTTPMethod
from typing import Any, Final

from aws_lambda_powertools.logging import Logger
from aws_lambda_powertools.logging.utils import copy_config_to_registered_loggers
from aws_lambda_powertools.metrics import Metrics, MetricUnit

from recsys.http.middleware import RequestContext

Event = dict[str, Any]
LambdaHandler = Callable[[Event, Any], Event]

_ROOT: Final = "recsys"
_METHODS: Final = frozenset(HTTPMethod)


class LambdaTelemetry:
    """What a function tells about its work."""

    def __init__(self, service: str) -> None:
        self._logger = Logger(service=service)
        self._metrics = Metrics(service=service)
        self._metrics.namespace = self._metrics.namespace or _ROOT
        logging.getLogger(_ROOT)  # the copy goes to loggers that exist
        copy_config_to_registered_loggers(self._logger, include={_ROOT})
        # It logs paths as they were sent, and we log every request ourselves.
        logging.getLogger("mangum.http").setLevel(logging.ERROR)

    def observe(self, context: RequestContext) -> None:
        """Measure one context; for `recsys.http.problems.install`."""
        # A caller can send any word as a method, and each new value of a dimension is a metric that is paid for.
        method = context.method if context.method in _METHODS else "OTHER"
        self._metrics.add_dimension("route", f"{method} {context.route}")
        self._metrics.add_metric("Latency", MetricUnit.Milliseconds, context.latency_ms)
        self._metrics.add_metric("ServerError", MetricUnit.Count, float((context.status or 500) >= 500))

    def count(self, name: str) -> None:
        """Count one occurrence of `name`, with the context that is going on."""
        self._metrics.add_metric(name, MetricUnit.Count, 1)

    def watch(self, handler: LambdaHandler) -> LambdaHandler:
        """`handler`, its lines carrying the invocation's id, its metrics written when it returns."""

        @self._logger.inject_lambda_context
        def watched(event: Event, context: Any) -> Event:
            try:
                return handler(event, context)
            finally:
                if self._metrics.metric_set:
                    self._metrics.flush_metrics()

        watch: LambdaHandler = watched
        return watch
