"""Publications, readers, crashes and collections in any order: nothing needed is deleted, nothing else is kept."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from recsys.clock import Timestamp, after
from recsys.retention.plan import RetentionPolicy
from tests.contract.lifecycle import World

pytestmark = pytest.mark.slow

POLICY: Final = RetentionPolicy(versions_kept=1, grace_s=3604.0, upload_days=30)
MEMORY: Final = Path("/dev/shm")
"""File system in memory, if there is one: a sync to the disk takes most of a step's time."""
RUNS: Final = int(os.environ.get("LIFECYCLE_RUNS", "50"))
"""`docs/benchmarks.md` has the command for 500."""
PUBLICATIONS: Final = 4 * RUNS

PICK: Final = st.integers(0, 1000)
CALLS: Final = st.none() | st.integers(0, 25)
"""How many calls of a store succeed before the process is killed; None if it is not killed."""


def new_world(policy: RetentionPolicy) -> tuple[World, Path]:
    folder = Path(tempfile.mkdtemp(prefix="recsys-lifecycle-", dir=MEMORY if MEMORY.is_dir() else None))
    return World(folder, policy), folder


class Lifecycle(RuleBasedStateMachine):
    """Any order of operations on a few keys; every operation may be killed before any call of a store."""

    def __init__(self) -> None:
        super().__init__()
        self.world, self.folder = new_world(POLICY)

    def teardown(self) -> None:
        try:
            self.world.settle()
            self.world.check_readers()
            self.world.check_listed()
            self.world.check_nothing_unreachable()
            assert self.world.stored_bytes() <= self.world.allowed_bytes()
        finally:
            self.world.close()
            shutil.rmtree(self.folder)

    def key(self, pick: int) -> str:
        return self.world.keys[pick % len(self.world.keys)]

    def version(self, pick: int) -> tuple[str, str]:
        key_id = self.key(pick)
        versions = self.world.versions(key_id) or ["none.1"]
        return key_id, versions[pick % len(versions)]

    @initialize(is_claimed=st.booleans())
    def begin(self, is_claimed: bool) -> None:
        self.world.create_key(is_claimed=is_claimed)

    @precondition(lambda self: len(self.world.keys) < 3)
    @rule(is_claimed=st.booleans())
    def create_key(self, is_claimed: bool) -> None:
        self.world.create_key(is_claimed=is_claimed)

    @rule(pick=PICK, n=st.integers(1, 4))
    def train_and_publish(self, pick: int, n: int) -> None:
        for _ in range(n):
            self.world.clock.advance(1)
            self.world.attempt(self.world.start_job, self.key(pick))
            if self.world.leases:
                self.world.attempt(self.world.publish, self.world.leases[-1])

    @rule(pick=PICK, calls=CALLS)
    def start_job(self, pick: int, calls: int | None) -> None:
        self.world.attempt(self.world.start_job, self.key(pick), calls=calls)

    @precondition(lambda self: self.world.leases)
    @rule(pick=PICK, calls=CALLS)
    def start_another_attempt(self, pick: int, calls: int | None) -> None:
        lease = self.world.leases[pick % len(self.world.leases)]
        self.world.attempt(self.world.start_attempt, lease.job.job_id, calls=calls)

    @precondition(lambda self: self.world.leases)
    @rule(pick=PICK, calls=CALLS)
    def publish(self, pick: int, calls: int | None) -> None:
        lease = self.world.leases[pick % len(self.world.leases)]
        self.world.attempt(self.world.publish, lease, calls=calls)

    @rule(pick=PICK)
    def start_reader(self, pick: int) -> None:
        self.world.attempt(self.world.start_reader, self.key(pick))

    @rule(pick=PICK, calls=CALLS, name=st.sampled_from(["activate_version", "pin_version", "unpin_version"]))
    def change_version(self, pick: int, calls: int | None, name: str) -> None:
        self.world.attempt(getattr(self.world.registry, name), *self.version(pick), calls=calls)

    @rule(pick=PICK)
    def rotate(self, pick: int) -> None:
        self.world.attempt(lambda: self.world.registry.rotate_key(self.key(pick), "2" * 64, overlap_s=60))

    @rule(pick=PICK)
    def claim(self, pick: int) -> None:
        self.world.attempt(self.world.registry.claim_key, f"token of {self.key(pick)}", "3" * 64)

    @rule(pick=PICK)
    def revoke(self, pick: int) -> None:
        self.world.attempt(self.world.registry.revoke_key, self.key(pick))

    @rule(seconds=st.sampled_from([1, 59, 1800, 3603, 3605, 7 * 86_400]))
    def wait(self, seconds: int) -> None:
        self.world.clock.advance(seconds)

    @rule(calls=CALLS)
    def collect(self, calls: int | None) -> None:
        self.world.attempt(self.world.collect, calls=calls)

    @rule(pick=PICK, calls=st.integers(0, 25), name=st.sampled_from(["activate", "pin", "publish", "read", "collect"]))
    def collect_meanwhile(self, pick: int, calls: int, name: str) -> None:
        """Collect, and do something else between two calls of the collector."""
        world = self.world
        target = self.version(pick)
        lease = world.leases[pick % len(world.leases)] if world.leases else None
        others: dict[str, Callable[[], Any]] = {
            "activate": lambda: world.attempt(world.registry.activate_version, *target),
            "pin": lambda: world.attempt(world.registry.pin_version, *target),
            "publish": lambda: world.attempt(world.publish, lease) if lease else None,
            "read": lambda: world.attempt(world.start_reader, target[0]),
            "collect": lambda: world.attempt(world.collect),
        }
        world.attempt(world.collect, calls=calls, interrupt=others[name])

    @rule(
        pick=PICK,
        calls=st.integers(0, 4),
        name=st.sampled_from(["activate", "pin", "publish"]),
        is_long=st.booleans(),
    )
    def change_while_collecting(self, pick: int, calls: int, name: str, is_long: bool) -> None:
        """Change something, and collect between two of its calls, once or until everything unreachable is gone."""
        world = self.world
        collect = world.settle if is_long else world.collect
        if name == "publish":
            if world.leases:
                lease = world.leases[pick % len(world.leases)]
                world.attempt(world.publish, lease, calls=calls, interrupt=collect)
        else:
            change = getattr(world.registry, f"{name}_version")
            world.attempt(change, *self.version(pick), calls=calls, interrupt=collect)

    @invariant()
    def no_reader_meets_a_missing_object(self) -> None:
        self.world.check_readers()
        self.world.check_listed()


TestLifecycle = Lifecycle.TestCase
TestLifecycle.settings = settings(
    max_examples=RUNS, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture
def busy_world() -> Iterator[World]:
    world, folder = new_world(RetentionPolicy(versions_kept=5, grace_s=3604.0, upload_days=1))
    yield world
    world.close()
    shutil.rmtree(folder)


@pytest.mark.timeout(900)
def test_publications_of_fifty_keys_stay_within_the_bound(busy_world: World) -> None:
    world, random = busy_world, Random(7)
    for _ in range(50):
        world.create_key(is_claimed=True)
    next_collection = world.clock()
    while world.publications < PUBLICATIONS:
        world.clock.advance(random.expovariate(1 / 300))  # five minutes on average
        key_id = random.choice(world.keys)
        is_killed = random.random() < 0.05
        world.attempt(world.start_job, key_id, calls=random.randrange(8) if is_killed else None)
        if world.leases:
            lease = world.leases[-1] if random.random() < 0.95 else random.choice(world.leases)
            world.attempt(world.publish, lease, calls=random.randrange(6) if random.random() < 0.05 else None)
        disturb(world, random)
        if world.clock() >= next_collection:
            next_collection = collect_hourly(world, random)
            world.check_listed()
            assert world.stored_bytes() <= 1.1 * world.allowed_bytes()
        world.check_readers()
    world.settle()
    world.check_nothing_unreachable()


def disturb(world: World, random: Random) -> None:
    """Read, activate, pin, rotate or revoke at random; a revoked key is replaced by a new one."""
    key_id = random.choice(world.keys)
    versions = world.versions(key_id) or ["none.1"]
    choice = random.random()
    if choice < 0.3:
        world.attempt(world.start_reader, key_id)
    elif choice < 0.4:
        world.attempt(world.registry.activate_version, key_id, random.choice(versions))
    elif choice < 0.43:
        world.attempt(world.registry.pin_version, key_id, random.choice(versions))
    elif choice < 0.46:
        world.attempt(world.registry.unpin_version, key_id, random.choice(versions))
    elif choice < 0.5:
        world.attempt(lambda: world.registry.rotate_key(key_id, "2" * 64, overlap_s=60))
    elif choice < 0.505:
        world.attempt(world.registry.revoke_key, key_id)
        world.create_key(is_claimed=True)


def collect_hourly(world: World, random: Random) -> Timestamp:
    """Collect, half of the time killed on the way, and return when to collect next."""
    if random.random() < 0.5:
        world.attempt(world.collect, calls=random.randrange(200))
    world.collect()
    return after(world.clock(), 3600)
