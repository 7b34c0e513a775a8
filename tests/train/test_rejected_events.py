"""Process files that cannot be trained on, and objects that do not start a training job."""

from __future__ import annotations

import gzip
import logging
from dataclasses import replace

import pytest

from recsys.errors import JobNotFound
from recsys.keys.base62 import job_id_of_object
from recsys.registry.records import Job, JobState, Progress
from tests.markers import TENSORFLOW
from tests.train.backend import BAD_CSV, GOOD_CSV, Backend

pytestmark = list(TENSORFLOW)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"user_id,item_id\n", "no-rows"),
        (b"user_id,price\na,b\n", "missing-column"),
        (b"user_id,item_id\na,b\na,c\n", "too-few-users"),
        (BAD_CSV, "too-many-bad-lines"),
        (gzip.compress(GOOD_CSV * 50, mtime=0)[:-20], "damaged-gzip"),
        (b"\x00\x01\x02", "not-a-csv"),
    ],
)
def test_bad_data_fails_the_job_and_publishes_nothing(backend: Backend, content: bytes, code: str) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id, content)
    job = backend.finish(event)
    assert job.problem is not None
    assert (job.state, job.problem.code, job.version) == (JobState.FAILED, code, None)
    assert job.problem.hint
    assert backend.objects("") == [event.name]
    assert backend.finish(event) == job


def test_a_failed_job_lists_the_bad_lines(backend: Backend) -> None:
    job = backend.finish(backend.upload("job1", backend.add_key().key_id, BAD_CSV))
    assert job.problem is not None
    assert [(error.line, error.code) for error in job.problem.errors] == [(3, "ragged-line"), (4, "blank-item-id")]
    assert job.report is not None
    assert (job.report["lines"], job.report["bad_lines"]) == (3, 2)


def test_bad_data_leaves_the_previous_model_current(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    backend.finish(backend.upload("job1", key_id))
    backend.finish(backend.upload("job2", key_id, BAD_CSV))
    assert backend.only_version_is(key_id, "job1.1")


def test_a_file_above_the_upload_limit_fails_the_job(backend: Backend) -> None:
    backend.settings = replace(backend.settings, max_upload_bytes=len(GOOD_CSV) - 1)
    job = backend.finish(backend.upload("job1", backend.add_key().key_id))
    assert job.problem is not None
    assert job.problem.code == "upload-too-large"


def test_a_csv_above_the_decompressed_limit_fails_the_job(backend: Backend) -> None:
    backend.settings = replace(backend.settings, max_unpacked_bytes=len(GOOD_CSV) - 1)
    job = backend.finish(backend.upload("job1", backend.add_key().key_id, gzip.compress(GOOD_CSV)))
    assert job.problem is not None
    assert job.problem.code == "too-large-unpacked"


def test_a_deleted_file_fails_the_job(backend: Backend) -> None:
    event = backend.upload("job1", backend.add_key().key_id)
    backend.store.delete(event.name)
    job = backend.finish(event)
    assert job.problem is not None
    assert job.problem.code == "upload-missing"


def test_an_upload_without_a_job_is_ignored(backend: Backend) -> None:
    assert backend.process(backend.put("uploads/unknown.csv")) is None
    assert backend.objects("") == ["uploads/unknown.csv"]


def test_an_upload_with_another_name_than_its_job_is_ignored(backend: Backend) -> None:
    event = backend.upload("job1", backend.add_key().key_id)
    assert backend.process(backend.put("uploads/job1.csv.gz", b"rubbish")) is None
    assert backend.registry.get_job("job1").state is JobState.QUEUED
    assert backend.finish(event).state is JobState.SUCCEEDED


@pytest.mark.parametrize("name", [f"inbox/{'x' * 252}.csv", "inbox/a\\b.csv", "inbox/a\nb.csv", "inbox/../b.csv"])
def test_an_invalid_object_name_is_ignored(backend: Backend, name: str) -> None:
    event = replace(backend.put("inbox/orders.csv"), name=name)
    assert backend.process(event) is None
    assert backend.objects("") == ["inbox/orders.csv"]
    with pytest.raises(JobNotFound):
        backend.registry.get_job(job_id_of_object(event.name, event.version))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("uploads/unknown.csv", "No job was created"),
        ("uploads/job1.csv.gz", "The job job1 expects the object"),
        ("inbox/read me.txt", "neither an upload nor a file in the inbox"),
        ("inbox/a\\b.csv", "must not contain a backslash"),
    ],
)
def test_the_log_contains_the_reason_why_an_object_is_ignored(
    backend: Backend, caplog: pytest.LogCaptureFixture, name: str, reason: str
) -> None:
    caplog.set_level(logging.INFO, "recsys.train")
    event = backend.upload("job1", backend.add_key().key_id)
    assert backend.process(replace(event, name=name)) is None
    (record,) = [record for record in caplog.records if record.name == "recsys.train"]
    assert reason in record.getMessage()
    assert vars(record)["object_name"] == name


def test_the_file_is_closed_before_fitting(backend: Backend) -> None:
    closed: list[bool] = []

    def record_closed(_job: Job, progress: Progress) -> None:
        if progress.phase == "fitting":
            closed.extend(stream.closed for stream in backend.store.opened)

    backend.finish(backend.upload("job1", backend.add_key().key_id), backend.worker(on_progress=record_closed))
    assert closed
    assert all(closed)


@pytest.mark.parametrize(
    "name", ["models/key1/job1.1/serving.npz", "receipts/x.json", "inbox/x.txt", "inbox/a/b/c.csv"]
)
def test_objects_that_are_not_sources_are_ignored(backend: Backend, name: str) -> None:
    assert backend.process(backend.put(name)) is None
    assert backend.objects("") == [name]
