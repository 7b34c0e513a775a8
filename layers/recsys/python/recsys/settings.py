"""Settings of the service. This is the only module that reads `os.environ`."""

# No `from __future__ import annotations`: `from_environment` needs the types of the settings, and evaluating their text
# takes 0.7 ms of a cold start.
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, Self

from recsys.errors import RecsysError

MIB: Final = 1024 * 1024
"""Bytes per mebibyte."""


class InvalidSetting(RecsysError):
    """Raised when an environment variable has an invalid value."""

    code = "invalid-setting"
    title = "A setting is not valid"


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings of the service. The field `x` is read from the environment variable `RECSYS_X`."""

    backend: Literal["local", "aws"] = "local"
    """Storage of objects and registry: files and SQLite (`local`), or S3 and DynamoDB (`aws`)."""
    data_dir: Path = Path("recsys-data")
    """`local`: directory that holds all state."""
    bucket: str = ""
    """`aws`: name of the S3 bucket."""
    table: str = ""
    """`aws`: name of the DynamoDB table."""
    queue_url: str = ""
    """`aws`: address of the queue of trainings, to which `dispatch` sends messages."""
    max_request_bytes: int = 1024 * MIB
    """Largest upload through `POST /v1/train`, in bytes. Default on `aws`: 4 MiB, because Lambda accepts 6 MB per call,
    base64 included."""
    max_upload_bytes: int = 1024 * MIB
    """Largest file through `POST /v1/uploads` or the inbox, in bytes as sent (compressed or not)."""
    max_unpacked_bytes: int = 4096 * MIB
    """Largest CSV after decompression, in bytes."""
    max_wait_s: int = 300
    """Longest `Prefer: wait=N` that is honoured, in seconds. Default on `aws`: 25, because API Gateway times out after
    30 s."""
    key_cache_s: float = 4.0
    """Time for which a key record is cached, in seconds. A revoked key still works for at most this time."""
    model_cache_bytes: int = 512 * MIB
    """Size of the cache of loaded models, in bytes. The least recently used model is evicted first."""
    response_cache_bytes: int = 16 * MIB
    """Size of the cache of responses, in bytes. The least recently used response is evicted first."""
    exploration: float = 0.1
    """Largest share of new items in a list of recommendations, from 0 to 1. New items are in the item catalogue,
    but have no interactions."""
    allow_anonymous_training: bool = True
    """Whether `POST /v1/train`, `/v1/validate` and `/v1/uploads` create a key for a request without a key. If false,
    such a request gets status 401."""
    anonymous_trainings_per_hour: int = 60
    """Largest number of trainings and upload forms without a key, per client address and hour. 0: no limit."""
    trainings_per_day: int = 300
    """Largest number of trainings and upload forms per key and day. 0: no limit."""
    recommendations_per_minute: int = 0
    """Largest number of requests for recommendations per key and minute. A batch counts as one request. 0: no limit.
    Default on `aws`: 3,000."""
    trusted_proxies: str = ""
    """`local`: addresses or networks of reverse proxies whose `X-Forwarded-For` states the client address, separated by
    commas. On AWS, API Gateway states the address."""
    per_route_metrics: bool = False
    """`aws`: whether latency and errors are also measured per route. AWS charges for the additional metrics of each
    route."""
    detailed_metrics: bool = False
    """`aws`: whether the caches and the duration of training jobs are also measured. AWS charges for these seven
    metrics."""
    lease_s: int = 60
    """Length of a job's lease, in seconds. If a worker does not renew the lease for this long, another worker takes
    over the job."""
    max_attempts: int = 5
    """Largest number of attempts per job. Default on `aws`: 4, one less than the queue's `maxReceiveCount`, so that one
    delivery is left to record that every attempt was killed."""
    unproven_key_days: int = 7
    """Days after which a key without a model is deleted."""
    job_days: int = 90
    """Days for which a job can be looked up."""
    audit_days: int = 365
    """Days for which the events of a key's audit log are kept."""
    upload_days: int = 30
    """`local`: days after which uploads and receipts are deleted. On AWS the lifecycle of the bucket deletes them."""
    versions_kept: int = 5
    """Number of versions per key that are kept besides the current and the pinned versions. Older versions are
    deleted."""
    workers: int = 1
    """`local`: number of training jobs that run at the same time, each in a process of its own."""
    min_free_bytes: int = 256 * MIB
    """`local`: least free disk space, in bytes. When less is free, uploads are rejected, trainings wait, and
    `/health/ready` returns 503."""
    cors_origins: str = ""
    """Origins whose web pages may call every route, separated by commas, such as `https://shop.example`. A publishable
    key has its own list of origins. Most services therefore leave this setting empty."""
    read_budget_s: float = 300.0
    """Time limit for reading a file, in seconds. If reading takes longer, the job fails."""
    train_budget_s: float = 600.0
    """Time budget of a training job, in seconds. When it is used up, the best model so far is published."""
    train_memory_mb: int = 0
    """Memory that a training job may use, in MB. For a large shop, the network is made narrower so that the memory
    suffices. 0: no limit. Default on `aws`: the memory of the function."""
    hold_versions: bool = True
    """Whether a new version that compares badly with the current one is held until it is activated."""
    seed: int = 0
    """Seed of every random choice in training."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read the settings from environment variables.

        Parameters
        ----------
        environment
            The environment variables. Defaults to those of the process. An empty variable counts as not set.
        **overrides
            Values by field name. They take precedence over the environment.

        Returns
        -------
        Settings
            Settings that are not set have their defaults. With `backend="aws"`, the defaults fit the limits of Lambda
            and API Gateway.

        Raises
        ------
        InvalidSetting
            A value cannot be converted to the type of the setting, or is not one of its choices.

        Examples
        --------
        >>> settings = Settings.from_environment({"RECSYS_LEASE_S": "30"}, seed=7)
        >>> settings.lease_s, settings.seed, settings.backend
        (30, 7, 'local')
        """
        source = process_environment() if environment is None else environment
        values: dict[str, Any] = {}
        for setting in fields(cls):
            text = source.get(f"RECSYS_{setting.name.upper()}")
            if text:
                values[setting.name] = _parse(setting.name, setting.type, text)
        values |= overrides
        return cls(**(_aws_defaults(source) if values.get("backend") == "aws" else {}) | values)


def _aws_defaults(environment: Mapping[str, str]) -> dict[str, Any]:
    return {
        "max_request_bytes": 4 * MIB,
        "max_wait_s": 25,
        "max_attempts": 4,
        "recommendations_per_minute": 3000,
        "train_memory_mb": int(environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", 0)),
    }


_SHARES: Final = ("exploration",)


def process_environment() -> Mapping[str, str]:
    """Return the environment variables of the process as a live view.

    Adapters read variables without the prefix `RECSYS_` from this view, for example the AWS credentials.
    """
    return os.environ


def set_default_environment(name: str, value: str) -> None:
    """Set an environment variable that a library reads, unless it is already set."""
    os.environ.setdefault(name, value)


def _parse(name: str, kind: Any, text: str) -> Any:
    variable = f"RECSYS_{name.upper()}"
    if kind is bool:
        if text not in ("true", "false"):
            raise InvalidSetting(f"{variable} must be true or false. Received: {text!r}.")
        return text == "true"
    if kind in (int, float):
        expected = "an integer" if kind is int else "a finite number"
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise InvalidSetting(f"{variable} must be {expected}, 0 or greater. Received: {text!r}.")
        if name in _SHARES and number > 1:
            raise InvalidSetting(f"{variable} must be from 0 to 1. Received: {text!r}.")
        return number
    if kind in (str, Path):
        return kind(text)
    if text not in kind.__args__:
        raise InvalidSetting(f"{variable} must be one of {', '.join(kind.__args__)}. Received: {text!r}.")
    return text
