"""Derive the Prometheus names of metrics from their CloudWatch names, so that the code names each metric only once."""

from __future__ import annotations

import re


def prometheus_name(name: str, unit: str = "") -> str:
    """Return the Prometheus name of the metric with the CloudWatch name `name`. A unit becomes the last word.

    Examples
    --------
    >>> prometheus_name("Latency", "seconds"), prometheus_name("ModelCacheHit")
    ('recsys_latency_seconds', 'recsys_model_cache_hit')
    """
    snake_case = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
    return "_".join(filter(None, ("recsys", snake_case, unit)))
