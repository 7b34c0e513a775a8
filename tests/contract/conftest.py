"""Every adapter of both ports, as fixtures that run a test once on each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recsys.clock import Timestamp, after
from recsys.objects.files import FileObjectStore
from recsys.objects.s3 import S3ObjectStore
from recsys.objects.store import ObjectStore
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.registry import Registry
from recsys.registry.sqlite import SqliteTable
from recsys.registry.table import Table
from tests.contract.records import NOW
from tests.emulators import MINISTACK, Emulator

# moto's server is not atomic under threads, so what is raced is raced here alone.
ATOMIC = ["local", pytest.param("ministack", marks=MINISTACK)]
EVERY = ["moto", *ATOMIC]
EVERY_STORE = ["moto-versioned", pytest.param("ministack-versioned", marks=MINISTACK), *EVERY]


@pytest.fixture(params=EVERY_STORE)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store."""
    return _make_store(request, tmp_path)


@pytest.fixture(params=ATOMIC)
def atomic_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store that can be raced."""
    return _make_store(request, tmp_path)


def _make_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return FileObjectStore(tmp_path / "objects", base_url="http://127.0.0.1:8000")
    name, _, versioned = request.param.partition("-")
    emulator: Emulator = request.getfixturevalue(name)
    return S3ObjectStore(emulator.s3, emulator.new_bucket(versioned=bool(versioned)))


@dataclass
class FixedClock:
    """A clock that moves when it is told to."""

    now: Timestamp = NOW

    def __call__(self) -> Timestamp:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now = after(self.now, seconds)


@dataclass
class Bench:
    """A registry on an empty database, its clock, and the rows below it."""

    rows: Table
    clock: FixedClock = field(default_factory=FixedClock)

    @property
    def registry(self) -> Registry:
        return Registry(self.rows, self.clock)

    def over(self, rows: Table) -> Registry:
        """A registry on other rows, with the same clock."""
        return Registry(rows, self.clock)


@pytest.fixture(params=EVERY)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A registry to test."""
    with _make_rows(request, tmp_path) as rows:
        yield Bench(rows)


@pytest.fixture(params=ATOMIC)
def atomic_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """A registry that can be raced."""
    with _make_rows(request, tmp_path) as rows:
        yield Bench(rows)


@pytest.fixture
def registry(bench: Bench) -> Registry:
    """The registry of `bench`."""
    return bench.registry


@pytest.fixture
def clock(bench: Bench) -> FixedClock:
    """The clock of `bench`."""
    return bench.clock


@contextmanager
def _make_rows(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    if request.param == "local":
        rows = SqliteTable(tmp_path / "registry.sqlite")
        yield rows
        rows.close()
    else:
        emulator: Emulator = request.getfixturevalue(request.param)
        yield DynamoTable(emulator.dynamodb, emulator.new_table())
