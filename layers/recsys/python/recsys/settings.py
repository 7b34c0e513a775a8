"""Settings, read from the environment once, at start. Nothing else reads `os.environ`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, Self, get_type_hints

from recsys.errors import RecsysError

MIB = 1024 * 1024


class InvalidSetting(RecsysError):
    """An environment variable holds a value that does not fit."""

    code = "invalid-setting"
    title = "A setting is not valid"


@dataclass(frozen=True, slots=True)
class Settings:
    """One field per setting; field `x` is read from `RECSYS_X`. README.md lists them (a test compares)."""

    backend: Literal["local", "aws"] = "local"
    """Where objects and the registry live: files and SQLite, or S3 and DynamoDB."""
    data_dir: Path = Path("recsys-data")
    """`local`: the one directory that holds all state."""
    bucket: str = ""
    """`aws`: name of the bucket."""
    table: str = ""
    """`aws`: name of the DynamoDB table."""
    max_request_bytes: int = 1024 * MIB
    """Largest upload through `POST /v1/train`; `aws`: 4 MiB, since Lambda takes 6 MB a call, base64 included."""
    max_upload_bytes: int = 1024 * MIB
    """Largest file through `POST /v1/uploads` or a drop, as sent (compressed or not)."""
    max_unpacked_bytes: int = 4096 * MIB
    """Largest CSV after decompression."""
    max_wait_s: int = 300
    """Longest `Prefer: wait=N` honoured; `aws`: 25, since API Gateway gives up after 30 s."""
    key_cache_s: float = 4.0
    """How long a key's record is trusted without asking the registry; a revoked key works at most this long."""
    model_cache_bytes: int = 512 * MIB
    """Memory for loaded models, least recently used go first."""
    response_cache_bytes: int = 16 * MIB
    """Memory for answers that may be asked for again, least recently used go first."""
    lease_s: int = 60
    """How long a worker that stopped renewing keeps its job."""
    max_attempts: int = 5
    """How often a job is tried before it fails for good; `aws`: 4, one less than the queue's maxReceiveCount, so that
    a delivery is left to say that every attempt was killed."""
    unproven_key_days: int = 7
    """A key that never got a model goes after so many days."""
    job_days: int = 90
    """How long a finished job can be asked for."""
    upload_days: int = 30
    """`local`: uploads and receipts go after so many days; on AWS the bucket's lifecycle says so."""
    min_free_bytes: int = 256 * MIB
    """`local`: with less free disk space than this, uploads are rejected and `/health/ready` returns 503."""
    train_budget_s: float = 600.0
    """Training stops improving the model after so many seconds and publishes the best so far."""
    seed: int = 0
    """Seed of everything random in training."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> Self:
        """Read `RECSYS_*`; `overrides` win over the environment.

        Raises
        ------
        InvalidSetting
            A value cannot be read as the setting's type, or is not one of its choices.
        """
        source = os.environ if environment is None else environment
        types = get_type_hints(cls)
        values: dict[str, Any] = {}
        for setting in fields(cls):
            text = source.get(f"RECSYS_{setting.name.upper()}")
            if text:
                values[setting.name] = _parse(setting.name, types[setting.name], text)
        values |= overrides
        return cls(**(_AWS_DEFAULTS if values.get("backend") == "aws" else {}) | values)


_AWS_DEFAULTS: dict[str, Any] = {"max_request_bytes": 4 * MIB, "max_wait_s": 25, "max_attempts": 4}


@dataclass(frozen=True, slots=True)
class AwsConfig:
    """Who asks AWS, where: the variables that Lambda sets and every SDK reads.

    `endpoint_urls` is by service (`s3`), and under `""` for every other, where an emulator stands in for AWS.
    """

    region: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(repr=False)
    endpoint_urls: Mapping[str, str]

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Self:
        """Read `AWS_*`. What is not set is empty: without a key there is nobody who asks."""
        source = os.environ if environment is None else environment
        services = {"": "AWS_ENDPOINT_URL", "s3": "AWS_ENDPOINT_URL_S3", "dynamodb": "AWS_ENDPOINT_URL_DYNAMODB"}
        return cls(
            region=source.get("AWS_REGION") or source.get("AWS_DEFAULT_REGION", ""),
            access_key_id=source.get("AWS_ACCESS_KEY_ID", ""),
            secret_access_key=source.get("AWS_SECRET_ACCESS_KEY", ""),
            session_token=source.get("AWS_SESSION_TOKEN", ""),
            endpoint_urls={service: source[name] for service, name in services.items() if source.get(name)},
        )

    @property
    def domain(self) -> str:
        """What the host names of the region's services end in."""
        return "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"

    def endpoint_url(self, service: str) -> str | None:
        """Where an emulator of `service` answers; None where AWS does."""
        return self.endpoint_urls.get(service) or self.endpoint_urls.get("")


def set_default_environment(name: str, value: str) -> None:
    """Set a variable that a library reads from the environment, unless it is set."""
    os.environ.setdefault(name, value)


def _parse(name: str, kind: Any, text: str) -> Any:
    variable = f"RECSYS_{name.upper()}"
    if kind in (int, float):
        try:
            number = kind(text)
        except ValueError as error:
            raise InvalidSetting(f"{variable} must be a number. Received: {text!r}.") from error
        if not 0 <= number < math.inf:
            raise InvalidSetting(f"{variable} must be a finite number, not negative. Received: {text!r}.")
        return number
    if kind in (str, Path):
        return kind(text)
    if text not in kind.__args__:
        raise InvalidSetting(f"{variable} must be one of {', '.join(kind.__args__)}. Received: {text!r}.")
    return text
