"""Contract of the registry: jobs and leases, on every adapter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from recsys.clock import Timestamp
from recsys.errors import JobBusy, JobFinished, JobNotFound, LeaseLost, Problem
from recsys.registry.records import Job, JobState, Lease, Progress
from recsys.registry.registry import Published, Registry
from tests.contract.conftest import FixedClock
from tests.contract.records import (
    FULL_JOB,
    HOUR_LATER,
    MINUTE_LATER,
    NOW,
    PROBLEM,
    PROGRESS,
    REPORT,
    a_job,
    a_key,
    a_version,
    claim,
)


def test_every_field_of_a_job_reads_back(registry: Registry) -> None:
    assert registry.create_job(FULL_JOB) == FULL_JOB
    assert registry.get_job("fullJob") == FULL_JOB


def test_a_job_without_optional_fields_reads_back(registry: Registry) -> None:
    registry.create_job(a_job())
    job = registry.get_job("job1")
    assert job == a_job()
    assert (job.state, job.fence, job.progress, job.problem, job.report) == (JobState.QUEUED, 0, None, None, None)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("progress", Progress("reading")),
        ("progress", Progress("fitting", epoch=0, loss=0.0)),
        ("problem", Problem("code", "title", "detail")),
        ("report", {}),
        ("metrics", {"loss": 1e-300, "n": 2**60}),
        ("object_name", "inbox/\u0301💥\u200b.csv"),
        ("lease_owner", ""),
    ],
)
def test_unusual_values_read_back(registry: Registry, field: str, value: Any) -> None:
    job = replace(a_job(), **{field: value})
    registry.create_job(job)
    assert registry.get_job("job1") == job


def test_creating_a_job_again_returns_the_existing_one(registry: Registry) -> None:
    registry.create_job(a_job(fingerprint="first"))
    lease = claim(registry)
    assert registry.create_job(a_job(fingerprint="second")) == lease.job
    assert registry.get_job("job1") == lease.job
    assert lease.job.fingerprint == "first"


def test_an_expired_job_is_not_found(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job(expires_at=HOUR_LATER))
    clock.advance(3599.999999)
    lease = claim(registry)
    clock.advance(0.000001)
    with pytest.raises(JobNotFound):
        registry.get_job("job1")
    with pytest.raises(JobNotFound):
        claim(registry)
    with pytest.raises(JobNotFound):
        registry.mark_receipted("job1")
    with pytest.raises(LeaseLost):
        registry.renew_lease(lease, lease_s=60, progress=None)
    assert registry.create_job(a_job(fingerprint="new")) == a_job(fingerprint="new")
    assert registry.get_job("job1") == a_job(fingerprint="new")


def test_an_unknown_job_is_not_found(registry: Registry) -> None:
    with pytest.raises(JobNotFound, match="nothing"):
        registry.get_job("nothing")
    with pytest.raises(JobNotFound, match="nothing"):
        claim(registry, "nothing")
    with pytest.raises(JobNotFound, match="nothing"):
        registry.mark_receipted("nothing")


# -- claiming


def test_a_queued_job_can_be_claimed(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    clock.advance(5)
    lease = registry.claim_job("job1", owner="worker-1", data_timestamp="2026-03-01#a", lease_s=55)
    assert lease.job == a_job(
        state=JobState.RUNNING,
        fence=1,
        started_at=clock.now,
        lease_owner="worker-1",
        lease_until=MINUTE_LATER,
        data_timestamp="2026-03-01#a",
        updated_at=Timestamp("2026-03-01T12:00:05.000000Z"),
    )
    assert (lease.fence, lease.version) == (1, "job1.1")
    assert registry.get_job("job1") == lease.job


def test_a_running_job_is_busy_until_its_lease_expires(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    first = claim(registry, owner="worker-1")
    clock.advance(59.999999)
    with pytest.raises(JobBusy, match="job1"):
        claim(registry, owner="worker-2")
    assert registry.get_job("job1") == first.job
    clock.advance(0.000001)
    second = claim(registry, owner="worker-2")
    assert (second.fence, second.job.lease_owner) == (2, "worker-2")
    assert registry.get_job("job1") == second.job


def test_the_owner_of_a_lease_can_claim_its_job_again(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    claim(registry, owner="worker-1")
    clock.advance(30)
    again = claim(registry, owner="worker-1")
    assert again.fence == 2
    assert again.job.lease_until == Timestamp("2026-03-01T12:01:30.000000Z")


def test_an_attempt_that_ended_without_a_report_counts_as_killed(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    first = claim(registry)
    assert (first.job.started_at, first.job.kills, first.job.killed_after_s) == (clock.now, 0, None)
    clock.advance(40)
    registry.renew_lease(first, lease_s=60, progress=None)
    clock.advance(100)
    second = claim(registry, owner="worker-2")
    assert (second.job.started_at, second.job.kills, second.job.killed_after_s) == (clock.now, 1, 40)


def test_an_attempt_that_reported_an_error_does_not_count_as_killed(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    registry.record_error(claim(registry))
    clock.advance(100)
    assert claim(registry, owner="worker-2").job.kills == 0


def test_the_first_claim_sets_the_data_timestamp(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    claim(registry, source="2026-03-01#first")
    clock.advance(60)
    assert claim(registry, owner="worker-2", source="2026-03-09#later").job.data_timestamp == "2026-03-01#first"


def test_a_data_timestamp_given_with_the_job_is_kept(registry: Registry) -> None:
    registry.create_job(a_job(data_timestamp="2026-02-01#given"))
    assert claim(registry).job.data_timestamp == "2026-02-01#given"


def test_a_claim_removes_progress_and_problem_of_the_previous_attempt(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job(problem=PROBLEM))
    first = claim(registry)
    assert first.job.problem is None
    registry.renew_lease(first, lease_s=60, progress=PROGRESS)
    clock.advance(60)
    assert claim(registry, owner="worker-2").job.progress is None
    assert registry.get_job("job1").progress is None


def _fail(registry: Registry, lease: Lease) -> None:
    registry.fail_job(lease, PROBLEM, REPORT)


def _supersede(registry: Registry, lease: Lease) -> None:
    registry.supersede_job(lease)


def _publish(registry: Registry, lease: Lease) -> None:
    assert registry.publish_version(lease, a_version(lease), REPORT) is Published.CURRENT


ENDINGS = [(_fail, "failed"), (_supersede, "superseded"), (_publish, "succeeded")]


@pytest.mark.parametrize(("end", "state"), ENDINGS)
def test_a_finished_job_cannot_be_claimed(
    registry: Registry, clock: FixedClock, end: Callable[[Registry, Lease], None], state: str
) -> None:
    registry.create_key(a_key())
    registry.create_job(a_job())
    end(registry, claim(registry))
    finished = registry.get_job("job1")
    clock.advance(3600)
    with pytest.raises(JobFinished, match=state):
        claim(registry, owner="worker-1")
    assert registry.get_job("job1") == finished
    assert finished.state == state
    assert (finished.lease_owner, finished.lease_until) == (None, None)


# -- working under a lease


def test_renewing_extends_the_lease_and_stores_progress(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    lease = claim(registry)
    clock.advance(30)
    registry.renew_lease(lease, lease_s=3570, progress=PROGRESS)
    job = registry.get_job("job1")
    assert job == replace(
        lease.job, lease_until=HOUR_LATER, progress=PROGRESS, updated_at=Timestamp("2026-03-01T12:00:30.000000Z")
    )
    clock.advance(60)
    with pytest.raises(JobBusy):
        claim(registry, owner="worker-2")


def test_renewing_without_progress_keeps_the_stored_progress(registry: Registry) -> None:
    registry.create_job(a_job())
    lease = claim(registry)
    registry.renew_lease(lease, lease_s=60, progress=PROGRESS)
    registry.renew_lease(lease, lease_s=60, progress=None)
    assert registry.get_job("job1").progress == PROGRESS


def test_an_expired_lease_can_be_renewed_if_the_job_was_not_claimed(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    lease = claim(registry)
    clock.advance(3540)
    registry.renew_lease(lease, lease_s=60, progress=None)
    assert registry.get_job("job1").lease_until == HOUR_LATER


def test_a_failed_job_keeps_problem_and_report(registry: Registry) -> None:
    registry.create_job(a_job())
    lease = claim(registry)
    registry.fail_job(lease, PROBLEM, REPORT)
    job = registry.get_job("job1")
    assert (job.state, job.problem, job.report) == (JobState.FAILED, PROBLEM, REPORT)


def test_a_job_can_fail_without_a_report(registry: Registry) -> None:
    registry.create_job(a_job())
    registry.fail_job(claim(registry), PROBLEM, None)
    assert registry.get_job("job1").report is None


LEASED_OPERATIONS: list[Callable[[Registry, Lease], object]] = [
    lambda registry, lease: registry.renew_lease(lease, lease_s=600, progress=PROGRESS),
    lambda registry, lease: registry.record_error(lease),
    _fail,
    _supersede,
    lambda registry, lease: registry.publish_version(lease, a_version(lease), REPORT),
]


@pytest.mark.parametrize("operate", LEASED_OPERATIONS, ids=["renew", "interrupt", "fail", "supersede", "publish"])
def test_a_worker_that_lost_its_lease_changes_nothing(
    registry: Registry, clock: FixedClock, operate: Callable[[Registry, Lease], object]
) -> None:
    registry.create_key(a_key())
    registry.create_job(a_job())
    previous = claim(registry, owner="worker-1")
    clock.advance(60)
    taken_over = claim(registry, owner="worker-2")
    with pytest.raises(LeaseLost, match="job1"):
        operate(registry, previous)
    assert registry.get_job("job1") == taken_over.job
    assert registry.get_key("key1") == a_key()
    assert registry.list_versions("key1") == []


@pytest.mark.parametrize("operate", LEASED_OPERATIONS, ids=["renew", "interrupt", "fail", "supersede", "publish"])
def test_a_finished_job_does_not_change(registry: Registry, operate: Callable[[Registry, Lease], object]) -> None:
    registry.create_key(a_key())
    registry.create_job(a_job())
    lease = claim(registry)
    registry.supersede_job(lease)
    finished: Job = registry.get_job("job1")
    with pytest.raises(LeaseLost):
        operate(registry, lease)
    assert registry.get_job("job1") == finished
    assert registry.get_key("key1") == a_key()
    assert registry.list_versions("key1") == []


def test_a_receipt_can_be_recorded_in_any_state(registry: Registry, clock: FixedClock) -> None:
    registry.create_job(a_job())
    lease = claim(registry)
    clock.advance(60)
    registry.mark_receipted("job1")
    assert registry.get_job("job1") == replace(lease.job, receipted_at=MINUTE_LATER)
    registry.renew_lease(lease, lease_s=60, progress=None)
    registry.fail_job(lease, PROBLEM, None)
    assert registry.get_job("job1").receipted_at == MINUTE_LATER
    assert MINUTE_LATER > NOW


# -- release


def test_released_job_is_queued_again_and_its_attempt_is_not_counted(registry: Registry) -> None:
    registry.create_job(a_job())
    for _ in range(6):
        lease = claim(registry)
        registry.release_job(lease)
    job = registry.get_job("job1")
    assert (job.state, job.lease_owner, job.lease_until, job.progress) == (JobState.QUEUED, None, None, None)
    assert (job.fence, job.counted_attempts) == (6, 0)
    assert claim(registry, owner="another worker").job.counted_attempts == 1


def test_released_lease_cannot_publish(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.create_job(a_job())
    lease = claim(registry)
    registry.release_job(lease)
    with pytest.raises(LeaseLost):
        registry.publish_version(lease, a_version(lease), REPORT)


def test_finished_job_cannot_be_released(registry: Registry) -> None:
    registry.create_job(a_job())
    lease = claim(registry)
    registry.fail_job(lease, PROBLEM, None)
    with pytest.raises(LeaseLost):
        registry.release_job(lease)
