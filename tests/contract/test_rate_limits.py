"""Rate limits in the registry's table, on every adapter, including the one without boto3."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from recsys.registry.dynamodb import DynamoTable
from recsys.registry.rate_limits import BucketTable, ChunkedBuckets, Quota, RateLimit, TableBuckets
from recsys.registry.sqlite import SqliteTable
from recsys.registry.table import Address, Change
from recsys_recommend.lean_aws.config import AwsConfig
from recsys_recommend.lean_aws.credentials import CredentialProvider
from recsys_recommend.lean_aws.dynamodb_limits import DynamoLimitTable
from tests.contract.conftest import Bench, FixedClock
from tests.emulators import MINISTACK, Emulator
from tests.racing import race

HOURLY = RateLimit("trainings", 4, 3600, "trainings per hour")


@dataclass
class Limits:
    """Buckets on an empty table, with their clock."""

    table: BucketTable
    clock: FixedClock

    @property
    def buckets(self) -> TableBuckets:
        return TableBuckets(self.table, self.clock)


@pytest.fixture(
    params=["local", "moto", "moto-lean"]
    + [pytest.param(name, marks=MINISTACK) for name in ("ministack", "ministack-lean")]
)
def limits(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Limits]:
    name, _, lean = request.param.partition("-")
    if name == "local":
        table = SqliteTable(tmp_path / "registry.sqlite")
        yield Limits(table, FixedClock())
        table.close()
        return
    emulator: Emulator = request.getfixturevalue(name)
    if not lean:
        yield Limits(DynamoTable(emulator.dynamodb, emulator.new_table()), FixedClock())
        return
    config = AwsConfig.from_environment(emulator.environment)
    lean_table = DynamoLimitTable(config, CredentialProvider(emulator.environment), emulator.new_table())
    yield Limits(lean_table, FixedClock())
    lean_table.close()


def test_quota_is_granted_once_and_returns_with_time(limits: Limits) -> None:
    taken = [limits.buckets.take(HOURLY, "key") for _ in range(5)]
    assert [quota.granted for quota in taken] == [1, 1, 1, 1, 0]
    assert taken[-1] == Quota(granted=0, remaining=0, reset_s=900)
    limits.clock.advance(900)
    assert [limits.buckets.take(HOURLY, "key").granted for _ in range(2)] == [1, 0]
    limits.clock.advance(10 * 3600)
    assert limits.buckets.take(HOURLY, "key") == Quota(granted=1, remaining=3, reset_s=900)


def test_looking_writes_nothing(limits: Limits) -> None:
    assert limits.buckets.take(HOURLY, "key", 0) == Quota(granted=0, remaining=4, reset_s=0)
    assert limits.table.get(Address("LIMIT#trainings#key", "LIMIT")).document is None


def test_outdated_row_is_not_overwritten(limits: Limits) -> None:
    address = Address("LIMIT#trainings#key", "LIMIT")
    row = limits.table.get(address)
    assert limits.table.write([row.changed_to({"expires_at": limits.clock()})])
    assert not limits.table.write([row.changed_to({"expires_at": limits.clock()})])
    assert not limits.table.write([Change(address, "another", {"expires_at": limits.clock()})])


def test_two_processes_share_a_quota_in_chunks(limits: Limits) -> None:
    limit = RateLimit("recommendations", 60, 3600, "requests per hour")
    processes = [ChunkedBuckets(limits.buckets, lambda: 0.0) for _ in range(2)]
    granted = [process.take(limit, "key").granted for _ in range(100) for process in processes]
    assert 60 <= sum(granted) <= 60 + 3


@pytest.mark.slow
def test_racing_requests_are_not_granted_more_than_the_quota(atomic_bench: Bench) -> None:
    buckets = TableBuckets(atomic_bench.table, atomic_bench.clock)
    granted = race(*[lambda: buckets.take(HOURLY, "key").granted] * 12)
    assert sorted(granted, key=str) == [0] * 8 + [1] * 4
