"""Turns among keys: who is trained next, and how long anyone waits."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys_local.scheduler import FairQueue, QueuedJob
from tests.benchmarks.fairness import ArrivalOrder, beyond_bound, made_jobs, simulate


def job(
    name: str,
    key_id: str,
    arrived_s: float = 0.0,
    *,
    cost: float = 1.0,
    is_known: bool = True,
    is_append: bool = False,
) -> QueuedJob:
    return QueuedJob(name, key_id, arrived_s, cost, is_known, is_append)


def drained(queue: FairQueue, now_s: float = 100.0) -> list[str]:
    """Run everything that waits, and return the job ids in order."""
    order = []
    while (started := queue.start()) is not None:
        order.append(started.job_id)
        now_s += 1
        queue.finish(started.key_id, now_s=now_s)
    return order


def test_small_job_overtakes_a_large_one_that_waits() -> None:
    queue = FairQueue()
    queue.add(job("large", "a", cost=1000))
    queue.add(job("small", "b", arrived_s=1))
    assert drained(queue) == ["small", "large"]


def test_key_with_many_small_jobs_overtakes_a_large_one_only_once() -> None:
    queue = FairQueue()
    queue.add(job("large", "a", cost=1000))
    queue.add(job("small 1", "b"))
    assert queue.start() == job("small 1", "b")
    queue.add(job("small 2", "b", arrived_s=0.5))
    queue.finish("b", now_s=1)
    assert drained(queue) == ["large", "small 2"]


def test_known_key_precedes_a_flood_of_anonymous_ones() -> None:
    queue = FairQueue()
    for number in range(100):
        queue.add(job(f"anonymous {number}", f"key {number}", is_known=False))
    assert queue.start() is not None
    queue.add(job("known", "shop", arrived_s=0.5))
    queue.finish("key 0", now_s=1)
    assert drained(queue)[0] == "known"


def test_known_keys_do_not_starve_anonymous_ones() -> None:
    queue = FairQueue()
    queue.add(job("anonymous", "new", is_known=False))
    order = []
    for number in range(5):
        queue.add(job(f"shop {number}", "shop", arrived_s=float(number)))
        started = queue.start()
        assert started is not None
        order.append(started.job_id)
        queue.finish(started.key_id, now_s=number + 1.0)
    assert order[:2] == ["shop 0", "anonymous"]


def test_newer_job_replaces_the_waiting_one_and_keeps_its_turn() -> None:
    queue = FairQueue()
    old, new = job("old", "a", arrived_s=0), job("new", "a", arrived_s=9)
    assert queue.add(old) is None
    queue.add(job("other", "b", arrived_s=5))
    assert queue.add(new) == old
    assert drained(queue) == ["new", "other"]


def test_job_that_is_older_than_the_waiting_one_is_superseded_itself() -> None:
    queue = FairQueue()
    queue.add(job("new", "a", arrived_s=9))
    assert queue.add(job("old", "a", arrived_s=0)) == job("old", "a", arrived_s=0)
    assert drained(queue) == ["new"]


@pytest.mark.parametrize("becomes_known", [False, True])
def test_one_job_of_a_key_runs_at_a_time(becomes_known: bool) -> None:
    queue = FairQueue()
    queue.add(job("first", "a", is_known=not becomes_known))
    assert queue.start() is not None
    queue.add(job("second", "a", arrived_s=1))
    assert queue.start() is None
    queue.finish("a", now_s=2)
    assert queue.start() == job("second", "a", arrived_s=1)


@pytest.mark.parametrize("n_started", [0, 1, 3])
def test_order_is_predicted(n_started: int) -> None:
    queue = FairQueue()
    for number in range(12):
        queue.add(job(f"job {number}", f"key {number}", float(number), cost=(number * 7) % 5, is_known=number % 3 > 0))
    for now_s in range(n_started):
        started = queue.start()
        assert started is not None
        queue.finish(started.key_id, now_s=20.0 + now_s)
    predicted = [waiting.job_id for waiting in queue.in_order()]
    assert len(predicted) == len(queue) == 12 - n_started
    assert drained(queue) == predicted


def test_long_queue_is_listed_completely() -> None:
    queue = FairQueue()
    for number in range(300):
        queue.add(job(f"job {number}", f"key {number}", cost=number))
    assert [waiting.job_id for waiting in queue.in_order()] == [f"job {number}" for number in range(300)]


_arrivals = st.lists(
    st.tuples(st.integers(0, 5), st.floats(0, 10), st.floats(0.1, 20)), min_size=1, max_size=60
)  # key, seconds since the previous arrival, duration


@given(arrivals=_arrivals, n_anonymous=st.integers(0, 4), n_workers=st.integers(1, 3))
def test_no_key_waits_longer_than_its_bound(
    arrivals: list[tuple[int, float, float]], n_anonymous: int, n_workers: int
) -> None:
    jobs, now_s = [], 0.0
    for number, (key, pause_s, duration_s) in enumerate(arrivals):
        now_s += pause_s
        jobs.append(job(f"job {number}", f"key {key}", now_s, cost=duration_s, is_known=key >= n_anonymous))
    waits = simulate(jobs, FairQueue(), n_workers=n_workers)
    assert beyond_bound(waits) == []


def test_a_thousand_tenants_with_heavy_tailed_jobs_wait_within_the_bound() -> None:
    waits = simulate(made_jobs(1000, 3000, load=1.2, seed=3), FairQueue())
    assert len(waits) > 1000
    assert beyond_bound(waits) == []


def test_arrival_order_exceeds_the_bound_when_one_key_sends_many_jobs() -> None:
    jobs = [*(job(f"job {number}", "busy", 0.0) for number in range(50)), job("single", "other", 0.1)]
    assert [wait.job.job_id for wait in beyond_bound(simulate(jobs, ArrivalOrder()))][-1] == "single"
    assert beyond_bound(simulate(jobs, FairQueue())) == []


class StoredQueue:
    """A queue that is written as JSON after each step, and read before the next one."""

    def __init__(self) -> None:
        self._text = json.dumps(FairQueue().to_json())

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def step(*arguments: Any, **named: Any) -> Any:
            queue = FairQueue.from_json(json.loads(self._text))
            outcome = getattr(queue, name)(*arguments, **named)
            self._text = json.dumps(queue.to_json())
            return outcome

        return step


def test_queue_that_is_stored_after_each_step_gives_the_same_order() -> None:
    jobs = made_jobs(20, 100, load=1.3, seed=5)[:80]
    jobs += [job(f"day {number}", "tenant1", jobs[-1].arrived_s, is_append=True) for number in range(3)]
    stored: Any = StoredQueue()
    assert simulate(jobs, stored) == simulate(jobs, FairQueue())


# -- files that are added


def test_files_that_are_added_are_all_trained_in_order_of_arrival() -> None:
    queue = FairQueue()
    for number in (2, 0, 1, 3):
        assert queue.add(job(f"day {number}", "a", arrived_s=float(number), is_append=True)) is None
    assert len(queue) == 4
    assert [waiting.job_id for waiting in queue.in_order()] == ["day 0", "day 1", "day 2", "day 3"]
    assert drained(queue) == ["day 0", "day 1", "day 2", "day 3"]


def test_complete_file_precedes_files_that_are_added_and_supersedes_none_of_them() -> None:
    queue = FairQueue()
    queue.add(job("day 1", "a", arrived_s=1, is_append=True))
    assert queue.add(job("complete", "a", arrived_s=2)) is None
    assert queue.add(job("day 3", "a", arrived_s=3, is_append=True)) is None
    assert queue.add(job("newer complete", "a", arrived_s=4)) == job("complete", "a", arrived_s=2)
    assert drained(queue) == ["newer complete", "day 1", "day 3"]


def test_key_with_many_added_files_takes_turns_with_other_keys() -> None:
    queue = FairQueue()
    for number in range(3):
        queue.add(job(f"day {number}", "a", arrived_s=float(number), is_append=True))
    queue.add(job("other", "b", arrived_s=3))
    order = drained(queue)
    assert order.index("other") <= 1
    assert [name for name in order if name != "other"] == ["day 0", "day 1", "day 2"]


def test_positions_of_added_files_are_those_in_which_they_start() -> None:
    queue = FairQueue()
    for number in range(5):
        queue.add(job(f"a{number}", "a", arrived_s=float(number), is_append=True))
        queue.add(job(f"b{number}", "b", arrived_s=number + 0.5, is_append=True))
    queue.start()
    predicted = [waiting.job_id for waiting in queue.in_order()]
    queue.finish("a", now_s=100)
    assert drained(queue) == predicted
    assert len(predicted) == 9
