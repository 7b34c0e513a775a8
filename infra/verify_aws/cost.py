"""What a run costs: an upper bound before it starts, and the costs of what it did afterwards."""

from __future__ import annotations

from typing import Any, Final

import yaml

from deployment.costs import (
    ALARM_MONTH,
    ALARMS,
    DYNAMODB_READ,
    DYNAMODB_WRITE,
    ECR_GB_MONTH,
    HTTP_API_REQUEST,
    IMAGE_GB,
    LAMBDA_GB_S,
    LAMBDA_REQUEST,
    LOG_BYTES_PER_REQUEST,
    LOGS_GB,
    METRIC_MONTH,
    METRICS,
    NAMES_FILE,
    Cost,
    training,
)

N_TRAININGS: Final = 3
MAX_TRAINING_S: Final = 300.0
"""The longest training that the upper bound covers: about a minute, twice, and a cold start of the image."""
MAX_HOURS: Final = 2.0
MAX_POLLS: Final = 2 * 600 * N_TRAININGS
"""Requests for the status of jobs: two per second until the run gives up."""
REQUEST_S: Final = 1.0
"""Billed duration of a request; warm ones take milliseconds, cold ones one to two seconds."""
_MONTH_HOURS: Final = 24 * 30


def run_costs(training_s: float, n_trainings: int, n_requests: int, hours: float) -> list[Cost]:
    """Return the costs of a run, at list prices without the free tier.

    Parameters
    ----------
    training_s
        Duration of all trainings together, in seconds.
    n_trainings, n_requests
        Number of trainings and of requests over HTTP.
    hours
        How long the stack existed.
    """
    functions: dict[str, Any] = yaml.safe_load(NAMES_FILE.read_text("utf-8"))["functions"]
    train = sum(cost.dollars for cost in training(functions, training_s)) if n_trainings else 0.0
    gb = functions["recommend"]["memory_mb"] / 1024
    request = (
        HTTP_API_REQUEST
        + LAMBDA_REQUEST
        + REQUEST_S * gb * LAMBDA_GB_S
        + 3 * DYNAMODB_READ
        + DYNAMODB_WRITE
        + LOG_BYTES_PER_REQUEST / 1e9 * LOGS_GB
    )
    monthly = ALARMS * ALARM_MONTH + METRICS * METRIC_MONTH + IMAGE_GB * ECR_GB_MONTH
    return [
        Cost(f"{n_trainings} trainings, {training_s:.0f} s", train),
        Cost(f"{n_requests:,} requests", n_requests * request),
        Cost(f"alarms, metrics and image for {hours:.1f} h", monthly * hours / _MONTH_HOURS),
    ]


def upper_bound(n_latency_requests: int) -> float:
    """Return the most that a run can cost, in US dollars."""
    costs = run_costs(MAX_TRAINING_S * N_TRAININGS, N_TRAININGS, MAX_POLLS + n_latency_requests, MAX_HOURS)
    return sum(cost.dollars for cost in costs)
