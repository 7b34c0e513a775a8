"""Rate limits through the Lambda handlers, on moto and on MiniStack, with two instances of each function."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recsys.objects.s3 import S3ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.registry import Registry
from tests.emulators import MINISTACK, Emulator
from tests.integration.lambda_flow import Deployment, http_event
from tests.integration.lambda_function import Function
from tests.unit.http_fakes import START, Now, new_key, publish

pytestmark = pytest.mark.slow

PER_HOUR, PER_DAY, PER_MINUTE = 5, 4, 40
CHUNK = PER_MINUTE // 20
LIMITS = {
    "RECSYS_ANONYMOUS_TRAININGS_PER_HOUR": str(PER_HOUR),
    "RECSYS_TRAININGS_PER_DAY": str(PER_DAY),
    "RECSYS_RECOMMENDATIONS_PER_MINUTE": str(PER_MINUTE),
}


@dataclass
class Instances:
    """Two instances of both HTTP functions on one deployment."""

    deployment: Deployment
    functions: dict[str, list[Function]]

    def send(self, number: int, name: str, method: str, path: str, *, address: str = "203.0.113.7", **of: Any) -> Any:
        """Send request `number` to one of the instances in turn, and return API Gateway's reply."""
        event = http_event(method, path, route=path, **{"api_key": None, "headers": {}, "body": None, **of})
        event["requestContext"]["http"]["sourceIp"] = address
        return self.functions[name][number % 2].invoke(event)

    def rows(self) -> list[str]:
        return sorted(row["pk"]["S"].partition("#")[0] for row in self.deployment.rows())


@pytest.fixture(params=["moto", pytest.param("ministack", marks=MINISTACK)])
def instances(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Instances]:
    emulator: Emulator = request.getfixturevalue(request.param)
    deployment = Deployment(emulator, tmp_path, emulator.new_bucket(versioned=True), emulator.new_table(), "", "")
    functions = {name: [deployment.start(name, **LIMITS) for _ in range(2)] for name in ("api", "recommend")}
    yield Instances(deployment, functions)
    for started in functions.values():
        for function in started:
            function.kill()
    deployment.close()


def test_limits_hold_across_the_instances_of_a_function(instances: Instances, tmp_path: Path) -> None:
    _anonymous_uploads(instances)
    _uploads_of_a_key(instances, _published_key(instances.deployment, tmp_path / "model"))


def test_recommendations_are_limited_in_chunks(instances: Instances, tmp_path: Path) -> None:
    api_key = _published_key(instances.deployment, tmp_path / "model")
    body = {"headers": {"content-type": "application/json"}, "body": b'{"user_id":"u1"}', "api_key": api_key}
    started = time.monotonic()
    replies = [instances.send(number, "recommend", "POST", "/v1/recommendations", **body) for number in range(120)]
    elapsed_s = time.monotonic() - started

    statuses = [reply["statusCode"] for reply in replies]
    assert set(statuses) == {200, 429}
    # Each instance grants its first chunk before it is booked, and units return while the test runs.
    assert PER_MINUTE <= statuses.count(200) <= PER_MINUTE + 2 * CHUNK + elapsed_s * PER_MINUTE / 60 + 2
    refused = replies[statuses.index(429)]
    assert json.loads(refused["body"])["type"] == "urn:recsys:problem:rate-limited"
    assert 1 <= int(refused["headers"]["retry-after"]) <= 3
    assert refused["headers"]["ratelimit-policy"] == f'"recommendations";q={PER_MINUTE};w=60'
    assert instances.rows().count("LIMIT") == 1
    usage = json.loads(instances.send(0, "api", "GET", "/v1/usage", api_key=api_key)["body"])
    (recommendations,) = [limit for limit in usage["limits"] if limit["name"] == "recommendations"]
    assert recommendations["remaining"] < PER_MINUTE / 2
    assert usage["versions"] == 1
    assert usage["stored_bytes"] > 1000


def _anonymous_uploads(instances: Instances) -> None:
    replies = [instances.send(number, "api", "POST", "/v1/uploads") for number in range(PER_HOUR + 3)]
    assert [reply["statusCode"] for reply in replies] == [201] * PER_HOUR + [429] * 3
    assert 0 < int(replies[-1]["headers"]["retry-after"]) <= 3600 / PER_HOUR
    # A refused request creates neither a key nor a job.
    # Each new key has a row and an event of the audit log.
    assert instances.rows() == ["JOB"] * PER_HOUR + ["KEY"] * 2 * PER_HOUR + ["LIMIT"]
    assert instances.send(0, "api", "POST", "/v1/uploads", address="203.0.113.8")["statusCode"] == 201


def _uploads_of_a_key(instances: Instances, api_key: str) -> None:
    replies = [instances.send(number, "api", "POST", "/v1/uploads", api_key=api_key) for number in range(PER_DAY + 2)]
    assert [reply["statusCode"] for reply in replies] == [201] * PER_DAY + [429] * 2
    assert replies[0]["headers"]["ratelimit"] == f'"trainings";r={PER_DAY - 1};t={86400 // PER_DAY}'


def _published_key(deployment: Deployment, folder: Path) -> str:
    registry = Registry(DynamoTable(deployment.emulator.dynamodb, deployment.table))
    store = S3ObjectStore(deployment.emulator.s3, deployment.bucket)
    api_key = new_key(registry, START)
    publish(registry, store, api_key.key_id, folder, Now())
    return str(api_key)
