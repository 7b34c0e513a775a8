"""AWS on this machine for tests: moto's server, in this process, and MiniStack, in a process of its own.

A test asks for the fixture `moto` or `ministack`; each is one `Emulator`, started once a session and ended with it.
What only MiniStack can tell (races, refused uploads) is marked with `MINISTACK`, so that one worker runs all of it.
Tests share the emulators: every bucket and table gets a name of its own.
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
"""The marks of a test that uses MiniStack: `pytestmark = list(MINISTACK)` or `pytest.param(…, marks=MINISTACK)`."""

_MINISTACK_PYTHON = Path(__file__).parent.parent / ".venv-ministack" / "bin" / "python"
_START_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Emulator:
    """An AWS that answers at `endpoint_url`, with the clients that the service itself would make."""

    endpoint_url: str

    @property
    def environment(self) -> dict[str, str]:
        """What makes boto3 talk to it, in this process or another."""
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
        """`recsys.aws.s3_client()`, but not the process's one."""
        with self.in_environment():
            return aws.s3_client.__wrapped__()

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """`recsys.aws.dynamodb_client()`, but not the process's one."""
        with self.in_environment():
            return aws.dynamodb_client.__wrapped__()

    @contextmanager
    def in_environment(self) -> Iterator[None]:
        """Within, boto3 clients that are made talk to the emulator."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.environment.items():
                patch.setenv(name, value)
            yield

    def new_bucket(self, *, versioned: bool = False) -> str:
        """The name of a new, empty bucket."""
        bucket = f"bucket-{secrets.token_hex(8)}"
        self.s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        if versioned:
            self.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        return bucket

    def new_table(self) -> str:
        """The name of a new, empty table with the registry's keys."""
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
    """moto's server. It is not atomic under threads: races are run on MiniStack."""
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
    """MiniStack on a free port of the loopback interface; its log lies in `folder`."""
    if not _MINISTACK_PYTHON.exists():
        pytest.fail("MiniStack is not installed in .venv-ministack: run `make test`, which installs it.", pytrace=False)
    port = _free_port()
    emulator = Emulator(f"http://127.0.0.1:{port}")
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [_MINISTACK_PYTHON, "-m", "ministack"],
            cwd=folder,
            # MINISTACK_REGION and the keys: what it assumes where a request names none.
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
    pytest.fail(f"MiniStack did not start. Its last words: {log.read_text()[-2000:]}", pytrace=False)
