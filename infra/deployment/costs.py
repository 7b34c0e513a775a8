"""Print what the stack costs on AWS, as the Markdown table of docs/operations/costs.md: `make costs`.

Memory sizes come from infra/names.yaml. Durations were measured by this project, and list prices were copied by hand;
the constants below name the source of each.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

NAMES_FILE: Final = Path(__file__).parents[2] / "infra" / "names.yaml"

PRICES_DATE: Final = "2026-11-24"
REGION: Final = "us-east-1"
# US dollars, without the free tier. Source: aws.amazon.com/<service>/pricing
LAMBDA_GB_S: Final = 0.0000166667
LAMBDA_STORAGE_GB_S: Final = 0.0000000309
LAMBDA_REQUEST: Final = 0.20e-6
HTTP_API_REQUEST: Final = 1.00e-6
DYNAMODB_READ: Final = 0.125e-6
DYNAMODB_WRITE: Final = 0.625e-6
S3_GB_MONTH: Final = 0.023
S3_PUT: Final = 5.0e-6
S3_GET: Final = 0.4e-6
SQS_REQUEST: Final = 0.40e-6
LOGS_GB: Final = 0.50
ALARM_MONTH: Final = 0.10
DASHBOARD_MONTH: Final = 3.00
METRIC_MONTH: Final = 0.30
ECR_GB_MONTH: Final = 0.10
PERSONALIZE_RECOMMENDATION: Final = 0.15 / 1000
PERSONALIZE_TRAINING_INTERACTION: Final = 0.002 / 1000

RECOMMEND_MS: Final = 12.0
"""Billed duration of a warm recommendation: the median of `sam local`'s REPORT lines on two shared cores."""
KEY_READS_PER_REQUEST: Final = 1.0
"""An upper bound, because a warm function caches the record of a key for `RECSYS_KEY_CACHE_S`."""
LOG_BYTES_PER_REQUEST: Final = 1600
"""Six lines per request: the service's log line, a metrics line, three lines of Lambda and one of the access log."""
TRAININGS: Final = {
    "100 thousand rows": (100_000, 110),
    "1 million rows": (1_000_000, 94),
    "20 million rows": (20_000_000, 177),
}
"""Number of rows, and the measured training time in seconds on two cores.

A function with 8,192 MB has between four and five cores, so the table overestimates. The first time is for MovieLens
100K on a machine that ran other jobs; the other two come from tests/benchmarks/README.md, "Scale".
"""
WRITES_PER_TRAINING: Final = 200
"""Conditional writes of one job: progress (once per second), lease renewals and the commit."""
TURN_WRITES: Final = 12
"""Units of writing for the turn of a file: it waits, gets the turn, and keeps it after its message was sent; then both
rows are deleted. Each write is a transaction, which counts twice."""
TURN_READS: Final = 10
DISPATCH_S: Final = 0.3
"""Billed duration of dispatch for one file. Assumed, not measured: a dozen requests within a region."""
GC_S: Final = 3.0
"""Billed duration of one run of gc, which runs every hour. Assumed, not measured: a cold start and a few listings."""
GC_LISTINGS: Final = 3
"""Listings of one run: up to 1,000 model files and 1,000 uploads, and the rows of a few keys."""
ALARMS: Final = 11
METRICS: Final = 14
"""Latency and errors of `api` and `recommend`, four of models and catalogues, five of jobs, and one of `dispatch`."""
N_TRIGGERS: Final = 2
"""Event source mappings: of `dispatch` and of `train`."""
IDLE_STORED_GB: Final = 1.0
IMAGE_GB: Final = 0.7
"""Size of the compressed layers, which is what ECR bills."""


@dataclass(frozen=True, slots=True)
class Cost:
    """One line of the table: a billed item and its price in US dollars."""

    item: str
    dollars: float


def idle_month(functions: dict[str, Any]) -> list[Cost]:
    """Return the costs of a month without requests and trainings.

    Parameters
    ----------
    functions
        The section `functions` of infra/names.yaml.
    """
    gc_gb, gc_runs = functions["gc"]["memory_mb"] / 1024, 24 * 30
    return [
        Cost(f"S3, {IDLE_STORED_GB:g} GB of models", IDLE_STORED_GB * S3_GB_MONTH),
        Cost("ECR, the image of train", IMAGE_GB * ECR_GB_MONTH),
        Cost(f"CloudWatch, {ALARMS} alarms", ALARMS * ALARM_MONTH),
        Cost("CloudWatch, a dashboard", DASHBOARD_MONTH),
        Cost(
            # Each event source mapping keeps five long polls of 20 s open, so it sends 15 requests per minute.
            "SQS, polling by Lambda",
            N_TRIGGERS * 5 * 3 * 60 * 24 * 30 * SQS_REQUEST,
        ),
        Cost(
            f"gc, {gc_runs} runs of {GC_S:g} s",
            gc_runs
            * (GC_S * gc_gb * LAMBDA_GB_S + LAMBDA_REQUEST + GC_LISTINGS * S3_PUT),  # a listing costs like a PUT
        ),
    ]


def million_recommendations(functions: dict[str, Any]) -> list[Cost]:
    """Return the costs of one million warm recommendations.

    Parameters
    ----------
    functions
        The section `functions` of infra/names.yaml.
    """
    gb = functions["recommend"]["memory_mb"] / 1024
    n = 1_000_000
    return [
        Cost("API Gateway", n * HTTP_API_REQUEST),
        Cost(
            f"Lambda, {RECOMMEND_MS:g} ms of {gb:.2f} GB", n * (LAMBDA_REQUEST + RECOMMEND_MS / 1000 * gb * LAMBDA_GB_S)
        ),
        Cost("DynamoDB, the record of the key", n * KEY_READS_PER_REQUEST * DYNAMODB_READ / 2),  # eventually consistent
        Cost(f"CloudWatch Logs, {LOG_BYTES_PER_REQUEST:,} bytes each", n * LOG_BYTES_PER_REQUEST / 1e9 * LOGS_GB),
        Cost(f"CloudWatch, {METRICS} metrics", METRICS * METRIC_MONTH),
    ]


def training(functions: dict[str, Any], seconds: float) -> list[Cost]:
    """Return the costs of one training that runs for `seconds`.

    Parameters
    ----------
    functions
        The section `functions` of infra/names.yaml.
    """
    train = functions["train"]
    storage_gb = (train["ephemeral_storage_mb"] - 512) / 1024  # the first 512 MB are free
    gb = train["memory_mb"] / 1024
    dispatch_gb = functions["dispatch"]["memory_mb"] / 1024
    return [
        Cost(
            f"Lambda, {seconds:g} s of {gb:g} GB",
            seconds * (gb * LAMBDA_GB_S + storage_gb * LAMBDA_STORAGE_GB_S) + LAMBDA_REQUEST,
        ),
        Cost(
            f"dispatch, {DISPATCH_S:g} s of {dispatch_gb:g} GB", DISPATCH_S * dispatch_gb * LAMBDA_GB_S + LAMBDA_REQUEST
        ),
        Cost(
            "DynamoDB, S3, SQS",
            (WRITES_PER_TRAINING + TURN_WRITES) * DYNAMODB_WRITE
            + TURN_READS * DYNAMODB_READ
            + 10 * (S3_PUT + S3_GET)
            + 13 * SQS_REQUEST,
        ),
    ]


def table() -> Iterator[str]:
    """Yield the lines of the Markdown table."""
    functions = yaml.safe_load(NAMES_FILE.read_text("utf-8"))["functions"]
    yield f"List prices of {REGION} on {PRICES_DATE}, without the free tier."
    yield ""
    yield "| what | cost item | US dollars | Amazon Personalize |"
    yield "|---|---|---:|---:|"
    yield from _rows("a month without a request", idle_month(functions), None)
    yield from _rows(
        "a million recommendations", million_recommendations(functions), 1_000_000 * PERSONALIZE_RECOMMENDATION
    )
    for name, (rows, seconds) in TRAININGS.items():
        yield from _rows(f"a training of {name}", training(functions, seconds), rows * PERSONALIZE_TRAINING_INTERACTION)


def _rows(title: str, costs: list[Cost], personalize: float | None) -> Iterator[str]:
    comparison = "" if personalize is None else f"**{personalize:.2f}**"
    yield f"| **{title}** | | **{sum(cost.dollars for cost in costs):.4f}** | {comparison} |"
    for cost in costs:
        yield f"| | {cost.item} | {cost.dollars:.4f} | |"


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in table()))
