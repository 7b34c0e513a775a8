"""Lost leases, crashes and unavailable stores: every job ends once and leaves no objects behind."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from recsys.errors import JobBusy, LeaseLost, RecsysError, Unavailable
from recsys.keys.api_key import ApiKey
from recsys.registry.records import Job, JobState, Progress
from tests.markers import TENSORFLOW
from tests.train.backend import LEASE_S, VERSION_FILES, Backend, Killed, at_call, raising

pytestmark = list(TENSORFLOW)


def test_a_job_that_another_worker_runs_is_left_alone(backend: Backend) -> None:
    event = backend.upload("job1", backend.add_key().key_id)
    backend.registry.claim_job("job1", owner="worker-2", data_timestamp=event.data_timestamp, lease_s=LEASE_S)
    with pytest.raises(JobBusy):
        backend.process(event)
    assert (backend.fits, backend.objects("models/")) == (0, [])


@pytest.mark.parametrize("phase", ["reading", "fitting", "publishing"])
def test_a_worker_that_lost_its_lease_publishes_nothing_and_leaves_no_objects(backend: Backend, phase: str) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)

    def lose_the_lease(_job: Job, progress: Progress) -> None:
        if progress.phase == phase and backend.registry.get_job("job1").fence == 1:
            backend.pass_s(LEASE_S)
            backend.registry.claim_job("job1", owner="worker-2", data_timestamp=event.data_timestamp, lease_s=LEASE_S)

    with pytest.raises(LeaseLost):
        backend.process(event, backend.worker(on_progress=lose_the_lease))
    assert backend.objects("models/") == []
    assert backend.registry.get_key(key_id).current_version is None
    job = backend.finish(event, backend.worker("worker-2"))
    assert (job.state, job.version) == (JobState.SUCCEEDED, "job1.3")
    assert backend.only_version_is(key_id, "job1.3")


@pytest.mark.parametrize("n_files", range(1, len(VERSION_FILES) + 1))
def test_a_worker_that_pauses_during_its_upload_while_another_publishes_leaves_no_objects(
    backend: Backend, n_files: int
) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)

    def pause() -> None:
        backend.pass_s(LEASE_S)
        backend.finish(event, backend.worker("worker-2"))

    backend.store.before["create"] = at_call(n_files, pause)
    with pytest.raises(RecsysError):
        backend.process(event)
    assert backend.load(key_id).version == "job1.2"
    assert backend.finish(event).version == "job1.2"  # the message of the paused worker is retried
    assert backend.only_version_is(key_id, "job1.2")


@pytest.mark.parametrize("fault", [Unavailable("The disk is full."), Killed()], ids=["unavailable", "killed"])
@pytest.mark.parametrize("n_files", [1, 3, 5])
def test_after_a_crash_during_the_upload_the_next_attempt_publishes_and_cleans_up(
    backend: Backend, n_files: int, fault: BaseException
) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)
    backend.store.before["create"] = at_call(n_files, raising(fault))
    with pytest.raises(type(fault)):
        backend.process(event)
    assert len(backend.objects("models/")) == n_files - 1
    assert backend.registry.get_job("job1").state is JobState.RUNNING
    backend.pass_s(LEASE_S)
    job = backend.finish(event, backend.worker("worker-2"))
    assert (job.state, job.version) == (JobState.SUCCEEDED, "job1.2")
    assert backend.only_version_is(key_id, "job1.2")


def test_the_same_worker_resumes_its_job_before_the_lease_expires(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)
    backend.store.before["create"] = at_call(2, raising(Killed()))
    with pytest.raises(Killed):
        backend.process(event)
    assert backend.finish(event).version == "job1.2"


def test_a_crashed_attempt_leaves_no_objects_when_newer_data_was_published_meanwhile(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    older, newer = backend.upload("older", key_id), backend.upload("newer", key_id)
    backend.store.before["create"] = at_call(4, raising(Killed()))
    with pytest.raises(Killed):
        backend.process(older)
    backend.finish(newer)
    assert backend.finish(older).state is JobState.SUPERSEDED
    assert backend.only_version_is(key_id, "newer.1")


def test_a_crashed_attempt_leaves_no_objects_when_its_file_was_deleted_meanwhile(backend: Backend) -> None:
    event = backend.upload("job1", backend.add_key().key_id)
    backend.store.before["create"] = at_call(4, raising(Killed()))
    with pytest.raises(Killed):
        backend.process(event)
    backend.store.delete(event.name)
    assert backend.finish(event).state is JobState.FAILED
    assert backend.objects("models/") == []


def test_a_failed_clean_up_is_repeated_at_the_next_event(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)
    backend.store.before["create"] = at_call(4, raising(Killed()))
    with pytest.raises(Killed):
        backend.process(event)
    backend.store.before["delete"] = raising(Unavailable("The disk is gone."))
    with pytest.raises(Unavailable):
        backend.process(event)
    assert backend.load(key_id).version == "job1.2"
    backend.store.before.clear()
    assert backend.finish(event).version == "job1.2"
    assert backend.only_version_is(key_id, "job1.2")


def test_a_version_that_was_damaged_during_its_upload_is_not_published(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)

    def damage() -> None:
        serving = f"models/{key_id}/job1.1/serving.npz"
        backend.store.replace(serving, backend.store.read(serving)[:-1])

    backend.store.before["create"] = at_call(5, damage)  # just before the manifest
    with pytest.raises(RecsysError, match=r"serving\.npz"):
        backend.process(event)
    assert backend.registry.get_key(key_id).current_version is None
    assert backend.finish(event).version == "job1.2"
    assert backend.only_version_is(key_id, "job1.2")


@pytest.mark.parametrize("fault", [Unavailable("The disk is full."), RuntimeError("out of handles")])
def test_after_the_last_attempt_the_job_fails_and_leaves_no_objects(backend: Backend, fault: Exception) -> None:
    backend.settings = replace(backend.settings, max_attempts=3)
    event = backend.put("inbox/orders.csv")
    backend.store.before["create"] = lambda name: raising(fault)() if name.endswith("metrics.json") else None
    for _ in range(2):
        with pytest.raises(type(fault)):
            backend.process(event)
    job = backend.finish(event)
    assert job.problem is not None
    assert (job.state, job.fence, job.problem.code) == (JobState.FAILED, 3, "training-failed")
    assert "3 times" in job.problem.detail
    assert backend.objects("models/") == []
    assert backend.receipt("receipts/orders.json")["problem"]["code"] == "training-failed"
    assert backend.finish(event).fence == 3


def test_the_last_failure_is_logged_with_its_traceback_and_without_secrets(
    backend: Backend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.settings = replace(backend.settings, max_attempts=2)
    event = backend.upload("job1", backend.add_key().key_id)
    api_key = ApiKey.mint()
    backend.store.before["create"] = raising(RuntimeError(f"out of handles for {api_key}"))
    with pytest.raises(RuntimeError):
        backend.process(event)
    assert caplog.records == []  # the caller logs an attempt that is retried
    backend.finish(event)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("recsys.train", "ERROR")
    assert (vars(record)["job_id"], vars(record)["attempt"]) == ("job1", 2)
    assert "Traceback (most recent call last)" in record.getMessage()
    assert "in _upload" in record.getMessage()
    assert "RuntimeError: out of handles for (secret)" in record.getMessage()


def test_a_job_whose_workers_were_all_killed_fails_without_another_attempt(backend: Backend) -> None:
    backend.settings = replace(backend.settings, max_attempts=2)
    event = backend.upload("job1", backend.add_key().key_id)
    backend.store.before["create"] = raising(Killed())
    for _ in range(2):
        with pytest.raises(Killed):
            backend.process(event)
    job = backend.finish(event)
    assert job.problem is not None
    assert (job.state, job.problem.code) == (JobState.FAILED, "training-failed")
    assert "failed 2 times" in job.problem.detail
    assert "terminated from outside" in job.problem.detail
    assert backend.fits == 2
    assert backend.objects("models/") == []


def test_a_problem_does_not_quote_an_unexpected_error(backend: Backend) -> None:
    backend.settings = replace(backend.settings, max_attempts=1)
    backend.store.before["create"] = raising(RuntimeError("password=hunter2"))
    job = backend.finish(backend.upload("job1", backend.add_key().key_id))
    assert job.problem is not None
    assert "RuntimeError" in job.problem.detail
    assert "hunter2" not in json.dumps(job.problem.to_json())


@pytest.mark.parametrize("verb", ["claim_job", "get_key", "publish_version"])
def test_an_unavailable_registry_raises_so_that_the_event_is_retried(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)
    with monkeypatch.context() as broken:
        broken.setattr(backend.registry, verb, raising(Unavailable("The registry did not answer.")))
        with pytest.raises(Unavailable):
            backend.process(event)
    job = backend.finish(event)
    assert job.version is not None
    assert backend.only_version_is(key_id, job.version)


def test_a_publication_whose_response_was_lost_counts(backend: Backend, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)
    really_publish = backend.registry.publish_version

    def publish_and_lose_the_response(*arguments: Any) -> None:
        really_publish(*arguments)
        raise Unavailable("The connection broke.")

    with monkeypatch.context() as broken:
        broken.setattr(backend.registry, "publish_version", publish_and_lose_the_response)
        with pytest.raises(Unavailable):
            backend.process(event)
    assert backend.finish(event).version == "job1.1"
    assert backend.only_version_is(key_id, "job1.1")


def test_an_attempt_that_does_not_count_leaves_the_job_as_it_was(backend: Backend) -> None:
    backend.settings = replace(backend.settings, max_attempts=1)
    event = backend.upload("job1", backend.add_key().key_id)
    backend.store.before["create"] = at_call(3, raising(Unavailable("The disk is full.")))
    with pytest.raises(Unavailable):
        backend.process(event, backend.worker(counts_attempt=lambda error: not isinstance(error, Unavailable)))
    job = backend.registry.get_job("job1")
    assert (job.state, job.counted_attempts) == (JobState.QUEUED, 0)
    assert backend.objects("models/") == []
    assert backend.finish(event).state is JobState.SUCCEEDED


def test_a_published_version_is_kept_if_the_attempt_does_not_count(
    backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)
    really_publish = backend.registry.publish_version

    def publish_and_lose_the_response(*arguments: Any) -> None:
        really_publish(*arguments)
        raise Unavailable("The disk is full.")

    with monkeypatch.context() as broken:
        broken.setattr(backend.registry, "publish_version", publish_and_lose_the_response)
        with pytest.raises(Unavailable):
            backend.process(event, backend.worker(counts_attempt=lambda _error: False))
    assert backend.only_version_is(key_id, "job1.1")
