"""The AWS emulator: a MiniStack process that this module starts, or another emulator at an endpoint URL."""

from __future__ import annotations

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from boto3.session import Session
from botocore.config import Config

from local_aws.processes import running

REGION: Final = "eu-central-1"
CREDENTIALS: Final = {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
"""Credentials of the emulator's root user. They are not secret, because the emulator runs on this machine only."""
_START_TIMEOUT_S: Final = 60.0  # Not tuned.
# A call of `invoke` that trains may take up to Lambda's limit of 900 s.
_CONFIG: Final = Config(read_timeout=900, retries={"total_max_attempts": 1}, s3={"addressing_style": "path"})


@dataclass(frozen=True, slots=True)
class Emulator:
    """An AWS emulator at `endpoint_url` that accepts any credentials."""

    endpoint_url: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make an AWS SDK or the AWS CLI use the emulator."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            **CREDENTIALS,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, service: str, *, endpoint_url: str | None = None) -> Any:
        """Return a boto3 client for the emulator, or for another endpoint with the same credentials."""
        session = Session(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=REGION)
        create_client: Any = session.client  # boto3-stubs accept only literal service names
        return create_client(service, endpoint_url=endpoint_url or self.endpoint_url, config=_CONFIG)


@contextmanager
def running_ministack(
    python: Path, *, host: str, port: int, log: Path, enforce_iam: bool = False
) -> Iterator[Emulator]:
    """Run MiniStack until the end of the context. Its state is in memory and is lost afterwards.

    Parameters
    ----------
    python
        Interpreter of the virtual environment in which MiniStack is installed.
    host, port
        Address to listen on. Containers cannot reach the loopback interface.
    log
        File for MiniStack's output.
    enforce_iam
        Whether a call fails unless a policy allows it, as on AWS.

    Raises
    ------
    RuntimeError
        The port is in use, or MiniStack ended or did not become healthy within a minute.
    """
    settings = {
        "BIND_HOST": host,
        "GATEWAY_PORT": str(port),
        "MINISTACK_HOST": host,
        "MINISTACK_REGION": REGION,
        "TMPDIR": str(log.parent),
        "LOG_LEVEL": "INFO",
        **CREDENTIALS,
        "AUTH": "true" if enforce_iam else "false",
    }
    _check_free(host, port)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RECSYS_"))}
    with running([str(python), "-m", "ministack"], log=log, environment=inherited | settings) as process:
        emulator = Emulator(f"http://{host}:{port}")
        _wait_until_healthy(process, emulator, log)
        yield emulator


def _check_free(host: str, port: int) -> None:
    """Raise RuntimeError if the port is in use, because requests would reach that process instead of MiniStack."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise RuntimeError(f"Cannot listen on {host}:{port}: {error.strerror}. Choose another port.") from error


def _wait_until_healthy(process: subprocess.Popen[bytes], emulator: Emulator, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with direct.open(f"{emulator.endpoint_url}/_ministack/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"MiniStack did not start. Last lines of its log: {log.read_text('utf-8')[-2000:]}")
