"""Fixtures that run a test on every adapter of the object store and the registry."""

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

# Races run on these adapters only, because moto's server is not atomic under threads.
ATOMIC = ["local", pytest.param("ministack", marks=MINISTACK)]
EVERY = ["moto", *ATOMIC]
EVERY_STORE = ["moto-versioned", pytest.param("ministack-versioned", marks=MINISTACK), *EVERY]


@pytest.fixture(params=EVERY_STORE)
def store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store."""
    return _new_store(request, tmp_path)


@pytest.fixture(params=ATOMIC)
def atomic_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store whose writes are atomic under threads."""
    return _new_store(request, tmp_path)


def _new_store(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    if request.param == "local":
        return FileObjectStore(tmp_path / "objects", base_url="http://127.0.0.1:8000")
    name, _, versioned = request.param.partition("-")
    emulator: Emulator = request.getfixturevalue(name)
    return S3ObjectStore(emulator.s3, emulator.new_bucket(versioned=bool(versioned)))


@dataclass
class FixedClock:
    """A clock that stands still until it is advanced."""

    now: Timestamp = NOW

    def __call__(self) -> Timestamp:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now = after(self.now, seconds)


@dataclass
class Bench:
    """A registry on an empty table, with its clock."""

    table: Table
    clock: FixedClock = field(default_factory=FixedClock)

    @property
    def registry(self) -> Registry:
        return Registry(self.table, self.clock)

    def over(self, table: Table) -> Registry:
        """Return a registry on another table, with the same clock."""
        return Registry(table, self.clock)


@pytest.fixture(params=EVERY)
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """An empty registry."""
    with _new_table(request, tmp_path) as table:
        yield Bench(table)


@pytest.fixture(params=ATOMIC)
def atomic_bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """An empty registry whose writes are atomic under threads."""
    with _new_table(request, tmp_path) as table:
        yield Bench(table)


@pytest.fixture
def registry(bench: Bench) -> Registry:
    """The registry of `bench`."""
    return bench.registry


@pytest.fixture
def clock(bench: Bench) -> FixedClock:
    """The clock of `bench`."""
    return bench.clock


@contextmanager
def _new_table(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Table]:
    if request.param == "local":
        table = SqliteTable(tmp_path / "registry.sqlite")
        yield table
        table.close()
    else:
        emulator: Emulator = request.getfixturevalue(request.param)
        yield DynamoTable(emulator.dynamodb, emulator.new_table())
