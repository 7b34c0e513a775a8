"""AWS emulators for tests: moto's server, in this process, and MiniStack, in a separate process.

The fixtures `moto` and `ministack` are one `Emulator` each, started once per session. Tests that need MiniStack (races,
rejected uploads) are marked with `MINISTACK`, so that one worker runs all of them. Tests share the emulators, so every
bucket and table gets a unique name.
"""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from moto.server import ThreadedMotoServer

from recsys import aws

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client

MINISTACK = (pytest.mark.ministack, pytest.mark.xdist_group("ministack"))
"""Marks of tests that use MiniStack: `pytestmark = list(MINISTACK)` or `pytest.param(…, marks=MINISTACK)`."""

MINISTACK_PYTHON = Path(__file__).parent.parent / ".venv-ministack" / "bin" / "python"
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Emulator:
    """An AWS emulator at `endpoint_url`, with the clients that the service would create."""

    endpoint_url: str

    @property
    def environment(self) -> dict[str, str]:
        """Environment variables that make boto3 use the emulator."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_SESSION_TOKEN": "",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_REGION": "eu-west-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_PROXY": "127.0.0.1",
        }

    @cached_property
    def s3(self) -> S3Client:
        """A new client from `recsys.aws.s3_client`."""
        with self.in_environment():
            return aws.s3_client.__wrapped__()

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """A new client from `recsys.aws.dynamodb_client`."""
        with self.in_environment():
            return aws.dynamodb_client.__wrapped__()

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Make boto3 clients that are created in the context use the emulator."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            yield

    def new_bucket(self, *, versioned: bool = False) -> str:
        """Create an empty bucket and return its name."""
        bucket = f"bucket-{secrets.token_hex(8)}"
        self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        if versioned:
            self.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return bucket

    def new_table(self) -> str:
        """Create an empty table with the keys of the registry and return its name."""
        table = f"table-{secrets.token_hex(8)}"
        self.dynamodb.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        )
        return table


@pytest.fixture(scope="session")
def moto() -> Iterator[Emulator]:
    """moto's server. It is not atomic under threads, so races run on MiniStack."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Emulator(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="session")
def ministack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """MiniStack."""
    with running_ministack(tmp_path_factory.mktemp("ministack")) as emulator:
        yield emulator


@contextmanager
def running_ministack(folder: Path) -> Iterator[Emulator]:
    """Run MiniStack on a free port of the loopback interface, with its log in `folder`."""
    if not MINISTACK_PYTHON.exists():
        pytest.fail("MiniStack is not installed in .venv-ministack: run `make test`, which installs it.", pytrace=False)
    port = _free_port()
    emulator = Emulator(f"http://127.0.0.1:{port}")
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [MINISTACK_PYTHON, "-m", "ministack"],
            cwd=folder,
            # MINISTACK_REGION is the default for requests that name no region.
            env={
                **os.environ,
                "BIND_HOST": "127.0.0.1",
                "GATEWAY_PORT": str(port),
                "MINISTACK_REGION": "eu-west-1",
                "TMPDIR": str(folder),
                "LOG_LEVEL": "WARNING",
            },
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_healthy(process, emulator, log)
        yield emulator
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_until_healthy(process: subprocess.Popen[bytes], emulator: Emulator, log: Path) -> None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with direct.open(f"{emulator.endpoint_url}/_ministack/health", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"MiniStack did not start. The end of its log: {log.read_text()[-2000:]}", pytrace=False)
