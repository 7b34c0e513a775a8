"""`LeaseKeeper` renews the lease, writes the progress, and raises a lost lease in the working thread."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from recsys.clock import Timestamp, after
from recsys.errors import LeaseLost, Unavailable
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobState, Lease, Progress
from recsys.registry.sqlite import SqliteRegistry
from recsys_train import lease as lease_module
from recsys_train.lease import LeaseKeeper

START = Timestamp("2026-03-01T12:00:00.000000Z")
DEADLOCK_S = 60.0


class ObservedRegistry(SqliteRegistry):
    """A registry that records renewals; its next `n_failures` renewals raise `Unavailable`."""

    def __init__(self, path: Path, clock: Callable[[], Timestamp]) -> None:
        super().__init__(path, clock=clock)
        self.renewals: list[Progress | None] = []
        self.n_failures = 0
        self.renewed = threading.Condition()

    def renew_lease(self, lease: Lease, *, lease_s: float, progress: Progress | None) -> None:
        with self.renewed:
            try:
                if self.n_failures > 0:
                    self.n_failures -= 1
                    raise Unavailable("The registry is unavailable.")
                super().renew_lease(lease, lease_s=lease_s, progress=progress)
                self.renewals.append(progress)
            finally:
                self.renewed.notify_all()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        with self.renewed:
            assert self.renewed.wait_for(condition, DEADLOCK_S)


@pytest.fixture
def now() -> list[Timestamp]:
    return [START]


@pytest.fixture
def registry(tmp_path: Path, now: list[Timestamp]) -> Iterator[ObservedRegistry]:
    registry = ObservedRegistry(tmp_path / "registry.sqlite3", lambda: now[0])
    registry.create_key(KeyRecord("key1", START))
    registry.create_job(Job("job1", "key1", "uploads/job1.csv", START, START))
    yield registry
    registry.close()


@pytest.fixture
def lease(registry: ObservedRegistry) -> Lease:
    return registry.claim_job("job1", owner="worker-1", data_timestamp="1", lease_s=60)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the keeper wake up a thousand times per second."""
    monkeypatch.setattr(lease_module, "PROGRESS_EVERY_S", 0.001)


@pytest.mark.usefixtures("quick")
def test_each_renewal_of_the_lease_calls_on_renewal(registry: ObservedRegistry, lease: Lease) -> None:
    called = threading.Event()
    with LeaseKeeper(registry, lease, lease_s=0.003, on_renewal=called.set):
        assert called.wait(DEADLOCK_S)


@pytest.mark.usefixtures("quick")
def test_the_lease_is_renewed_during_the_work(registry: ObservedRegistry, lease: Lease, now: list[Timestamp]) -> None:
    with LeaseKeeper(registry, lease, lease_s=0.003):
        for seconds in (1000, 2000):
            now[0] = after(START, seconds)
            registry.wait_for(lambda: registry.get_job("job1").lease_until == after(now[0], 0.003))


@pytest.mark.usefixtures("quick")
def test_the_thread_ends_with_the_work(registry: ObservedRegistry, lease: Lease) -> None:
    n_threads = threading.active_count()
    with LeaseKeeper(registry, lease, lease_s=0.003):
        registry.wait_for(lambda: len(registry.renewals) > 0)
    assert threading.active_count() == n_threads


@pytest.mark.usefixtures("quick")
def test_progress_is_written_to_the_job(registry: ObservedRegistry, lease: Lease) -> None:
    progress = Progress("fitting", epoch=2, epochs=20, loss=0.5, validation_ndcg=0.25)
    with LeaseKeeper(registry, lease, lease_s=60) as keeper:
        keeper.report(Progress("reading"))
        keeper.report(progress)
        registry.wait_for(lambda: progress in registry.renewals)
    assert registry.get_job("job1").progress == progress


@pytest.mark.usefixtures("quick")
def test_a_lost_lease_is_raised_by_the_next_report(
    registry: ObservedRegistry, lease: Lease, now: list[Timestamp]
) -> None:
    now[0] = after(START, 61)
    registry.claim_job("job1", owner="worker-2", data_timestamp="1", lease_s=60)
    with LeaseKeeper(registry, lease, lease_s=0.003) as keeper:
        keeper._thread.join(DEADLOCK_S)  # it ends when the renewal fails
        with pytest.raises(LeaseLost):
            keeper.report(Progress("fitting"))
        with pytest.raises(LeaseLost):
            keeper.check()
    assert registry.get_job("job1").lease_owner == "worker-2"
    assert registry.get_job("job1").progress is None


@pytest.mark.usefixtures("quick")
def test_a_temporarily_unavailable_registry_is_retried(registry: ObservedRegistry, lease: Lease) -> None:
    registry.n_failures = 3
    with LeaseKeeper(registry, lease, lease_s=60) as keeper:
        keeper.report(Progress("fitting"))
        registry.wait_for(lambda: registry.renewals == [Progress("fitting")])
        keeper.check()
    assert registry.get_job("job1").state is JobState.RUNNING


class Ticks(threading.Event):
    """An event that is set after `n_ticks` waits, none of which takes time."""

    def __init__(self, n_ticks: int) -> None:
        super().__init__()
        self._left = n_ticks

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        return self._left < 0


def count_renewals(n_ticks: int, registry: ObservedRegistry, lease: Lease, *, lease_s: float) -> int:
    keeper = LeaseKeeper(registry, lease, lease_s=lease_s)
    keeper._ended = Ticks(n_ticks)
    keeper._keep()
    return len(registry.renewals)


@pytest.mark.parametrize(
    ("lease_s", "n_ticks", "renewals"), [(60, 19, 0), (60, 20, 1), (60, 60, 3), (3, 5, 5), (1, 5, 5)]
)
def test_a_lease_is_renewed_three_times_before_it_expires(
    registry: ObservedRegistry, lease: Lease, lease_s: float, n_ticks: int, renewals: int
) -> None:
    assert count_renewals(n_ticks, registry, lease, lease_s=lease_s) == renewals


def test_a_failed_renewal_is_retried_at_the_next_tick(registry: ObservedRegistry, lease: Lease) -> None:
    registry.n_failures = 2
    assert count_renewals(22, registry, lease, lease_s=60) == 1
