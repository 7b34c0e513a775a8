"""Attempts that end without reporting an error, as when Lambda kills a worker for its memory or its time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from recsys.clock import after
from recsys.errors import Unavailable
from recsys.objects.created import ObjectCreated
from recsys.registry.records import Job, JobState, Lease, Progress
from tests.markers import TENSORFLOW
from tests.train.backend import LEASE_S, Backend, Killed, raising

pytestmark = list(TENSORFLOW)

LAMBDA: Final[dict[str, Any]] = {"max_kills": 2, "max_kill_age_s": 300.0, "time_left_s": lambda: 900.0}
"""How the function `train` limits what is tried again after a kill."""
HIDDEN_S: Final = 120
"""How long the message of a killed worker stays hidden."""


def kill_after(backend: Backend, event: ObjectCreated, run_s: float) -> None:
    """Deliver the event to a worker that is killed after `run_s`, then let the time pass until it is retried."""

    def live(_job: Job, progress: Progress) -> None:
        if progress.phase == "fitting":
            backend.pass_s(run_s)
            lease = Lease(backend.registry.get_job("job1"))
            backend.registry.renew_lease(lease, lease_s=LEASE_S, progress=progress)
            raise Killed

    with pytest.raises(Killed):
        backend.process(event, backend.worker(on_progress=live, **LAMBDA))
    backend.pass_s(HIDDEN_S)


def test_a_training_that_runs_out_of_memory_is_tried_twice_and_fails_within_20_minutes(backend: Backend) -> None:
    event = backend.upload("job1", backend.add_key().key_id)
    started = backend.now
    kill_after(backend, event, 290)
    kill_after(backend, event, 290)
    job = backend.finish(event, backend.worker(**LAMBDA))
    assert job.problem is not None
    assert (job.state, job.problem.code, backend.fits) == (JobState.FAILED, "training-failed", 2)
    assert "terminated from outside after about 290 s, most likely because memory ran out" in job.problem.detail
    assert backend.now < after(started, 20 * 60)


def test_a_training_that_runs_out_of_time_is_not_retried(backend: Backend) -> None:
    event = backend.upload("job1", backend.add_key().key_id)
    started = backend.now
    kill_after(backend, event, 890)
    job = backend.finish(event, backend.worker(**LAMBDA))
    assert job.problem is not None
    assert (job.state, backend.fits) == (JobState.FAILED, 1)
    assert "failed 1 time. Reason for the last failure: the worker ran out of time after 890 s" in job.problem.detail
    assert backend.now < after(started, 20 * 60)


def test_a_job_succeeds_after_one_early_kill(backend: Backend) -> None:
    event = backend.upload("job1", backend.add_key().key_id)
    kill_after(backend, event, 10)
    assert backend.finish(event, backend.worker(**LAMBDA)).state is JobState.SUCCEEDED


def test_an_attempt_that_reported_its_error_does_not_count_as_killed(backend: Backend) -> None:
    event = backend.upload("job1", backend.add_key().key_id)
    fail: Callable[..., None] = raising(Unavailable("The store did not answer."))
    backend.store.before["create"] = fail
    for _ in range(3):
        with pytest.raises(Unavailable):
            backend.process(event, backend.worker(**LAMBDA))
        backend.pass_s(HIDDEN_S)
    del backend.store.before["create"]
    job = backend.finish(event, backend.worker(**LAMBDA))
    assert (job.state, job.kills) == (JobState.SUCCEEDED, 0)


def test_a_local_worker_may_be_killed_as_often_as_it_may_fail(backend: Backend) -> None:
    """On one machine, kills are restarts and power cuts."""
    event = backend.upload("job1", backend.add_key().key_id)
    backend.store.before["create"] = raising(Killed())
    for _ in range(backend.settings.max_attempts - 1):
        with pytest.raises(Killed):
            backend.process(event)
    del backend.store.before["create"]
    assert backend.finish(event).state is JobState.SUCCEEDED
