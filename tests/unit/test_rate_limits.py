"""Token buckets: bursts, refilling, and chunks for the hot path."""

from __future__ import annotations

import pytest

from recsys.errors import Unavailable
from recsys.registry.rate_limits import Buckets, ChunkedBuckets, MemoryBuckets, Quota, RateLimit
from tests.unit.http_fakes import Now

HOURLY = RateLimit("trainings", 60, 3600, "trainings per hour")
LARGE = RateLimit("recommendations", 200, 1000, "requests per 1,000 seconds")  # a chunk is 10, a unit takes 5 s


class Counted:
    """Buckets that count the calls, and fail on request."""

    def __init__(self, buckets: Buckets) -> None:
        self._buckets = buckets
        self.calls = 0
        self.is_down = False

    def take(self, limit: RateLimit, subject: str, units: int = 1) -> Quota:
        self.calls += 1
        if self.is_down:
            raise Unavailable("The table did not respond.")
        return self._buckets.take(limit, subject, units)


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def shared(now: Now) -> Counted:
    return Counted(MemoryBuckets(now.timer))


def n_granted(buckets: Buckets, limit: RateLimit, requests: int, subject: str = "key") -> int:
    return sum(buckets.take(limit, subject).granted for _ in range(requests))


def test_burst_of_the_whole_quota_is_granted_and_no_more(now: Now) -> None:
    assert n_granted(MemoryBuckets(now.timer), HOURLY, 100) == 60


def test_units_return_evenly(now: Now) -> None:
    buckets = MemoryBuckets(now.timer)
    n_granted(buckets, HOURLY, 60)
    now.move(59)
    assert buckets.take(HOURLY, "key") == Quota(granted=0, remaining=0, reset_s=1)
    now.move(1)
    assert buckets.take(HOURLY, "key") == Quota(granted=1, remaining=0, reset_s=60)
    now.move(24 * 3600)
    assert n_granted(buckets, HOURLY, 100) == 60


def test_looking_takes_nothing(now: Now) -> None:
    buckets = MemoryBuckets(now.timer)
    assert buckets.take(HOURLY, "key", 0) == Quota(granted=0, remaining=60, reset_s=0)
    buckets.take(HOURLY, "key")
    assert buckets.take(HOURLY, "key", 0) == Quota(granted=0, remaining=59, reset_s=60)


def test_subjects_and_limits_have_buckets_of_their_own(now: Now) -> None:
    buckets = MemoryBuckets(now.timer)
    n_granted(buckets, HOURLY, 60)
    assert buckets.take(HOURLY, "other").granted == 1
    assert buckets.take(LARGE, "key").granted == 1


def test_quota_that_does_not_divide_the_window_is_granted_completely(now: Now) -> None:
    weekly = RateLimit("trainings", 7, 3600, "trainings per hour")
    buckets = MemoryBuckets(now.timer)
    for _ in range(50):
        assert n_granted(buckets, weekly, 10) == 7
        now.move(3600)


def test_key_with_few_requests_never_waits_for_the_table(now: Now, shared: Counted) -> None:
    buckets = ChunkedBuckets(shared, now.timer)
    assert n_granted(buckets, LARGE, 10) == 10
    assert shared.calls == 0


def test_busy_key_takes_units_in_chunks(now: Now, shared: Counted) -> None:
    assert n_granted(ChunkedBuckets(shared, now.timer), LARGE, 100) == 100
    assert shared.calls == 9


def test_remaining_units_are_counted_across_chunks(now: Now, shared: Counted) -> None:
    buckets = ChunkedBuckets(shared, now.timer)
    states = [buckets.take(LARGE, "key") for _ in range(200)]
    assert [state.remaining for state in states] == list(range(199, -1, -1))
    assert [states[index].reset_s for index in (0, 1, 198, 199)] == [5, 10, 995, 5]


def test_one_process_grants_the_quota_exactly(now: Now, shared: Counted) -> None:
    assert n_granted(ChunkedBuckets(shared, now.timer), LARGE, 1000) == 200


def test_each_further_process_grants_at_most_one_chunk_too_much(now: Now, shared: Counted) -> None:
    processes = [ChunkedBuckets(shared, now.timer) for _ in range(3)]
    assert 200 <= sum(n_granted(process, LARGE, 500) for process in processes) <= 200 + 2 * 10


def test_refused_requests_do_not_read_the_table_until_a_unit_is_back(now: Now, shared: Counted) -> None:
    buckets = ChunkedBuckets(shared, now.timer)
    n_granted(buckets, LARGE, 201)
    calls = shared.calls
    assert buckets.take(LARGE, "key") == Quota(granted=0, remaining=0, reset_s=5)
    assert n_granted(buckets, LARGE, 100) == 0
    assert shared.calls == calls
    now.move(5)
    assert n_granted(buckets, LARGE, 100) == 1


def test_requests_are_granted_while_the_table_does_not_respond(now: Now, shared: Counted) -> None:
    shared.is_down = True
    buckets = ChunkedBuckets(shared, now.timer)
    assert n_granted(buckets, LARGE, 1000) == 1000
    assert shared.calls == 99
