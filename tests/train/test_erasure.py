"""Erasure: after one training, an erased user is in no object of the key except older versions, which are marked."""

from __future__ import annotations

import io
import os
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq
import pytest

from recsys.clock import DAY_S, after
from recsys.errors import VersionNotFound
from recsys.model.recommender import Strategy, recommend
from recsys.objects.created import ObjectCreated
from recsys.registry.erasures import ERASED_WITHIN_DAYS, hidden_users
from recsys.registry.records import Job, JobState, Progress
from recsys.retention.collector import Collector
from recsys.retention.plan import READER_GRACE_S, RetentionPolicy
from recsys.settings import Settings
from tests.markers import TENSORFLOW
from tests.train.backend import GOOD_CSV, Backend

pytestmark = list(TENSORFLOW)

USER = "anna.4711@example.com"
ANNA = f"{USER},i1\n{USER},only-annas\n".encode()
APPEND = {"mode": "append"}


def send(backend: Backend, job_id: str, key_id: str, content: bytes, **fields: Any) -> ObjectCreated:
    name = f"uploads/{job_id}.csv"
    backend.registry.create_job(Job(job_id, key_id, name, created_at=backend.now, updated_at=backend.now, **fields))
    return backend.put(name, content)


def train(backend: Backend, job_id: str, key_id: str, content: bytes, **fields: Any) -> Job:
    job = backend.finish(send(backend, job_id, key_id, content, **fields))
    assert job.state is JobState.SUCCEEDED, job.problem
    return job


def erase(backend: Backend, key_id: str) -> None:
    backend.pass_s(1)
    backend.registry.erase_user(key_id, USER)


def collect(backend: Backend, *, upload_days: int | None = None) -> None:
    policy = RetentionPolicy(upload_days=upload_days)
    Collector(backend.registry.table, backend.store, policy, backend.clock).run()


def contains_user(name: str, content: bytes) -> bool:
    """Return whether a file contains the user; Parquet is decompressed."""
    if name.endswith(".parquet"):
        content = repr(pq.read_table(io.BytesIO(content)).to_pylist()).encode()
    return USER.encode() in content


def objects_with_the_user(backend: Backend, key_id: str) -> set[str]:
    """Return the versions, receipts and rows of the registry of a key that contain the user."""
    found = set()
    for name in backend.objects(f"models/{key_id}/") + backend.objects("receipts/"):
        if contains_user(name, backend.store.read(name)):
            found.add(name.split("/")[2] if name.startswith("models/") else name)
    if USER in str(backend.registry.get_key(key_id).to_document()):
        found.add("key")
    return found


@pytest.mark.parametrize("options", [APPEND, None], ids=["append", "replace"])
def test_after_one_training_the_user_is_in_no_object_but_marked_older_versions(
    backend: Backend, options: dict[str, str] | None
) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, GOOD_CSV + ANNA)
    assert objects_with_the_user(backend, key_id) == {"first.1"}
    erase(backend, key_id)
    erased_at = backend.now

    train(backend, "second", key_id, GOOD_CSV, options=options)

    assert objects_with_the_user(backend, key_id) == {"first.1"}
    model = backend.load(key_id)
    assert (USER in model.users, "only-annas" in model.items) == (False, False)
    assert recommend(model, USER, n=3).strategy is Strategy.POPULAR
    marks = {version.version: version.erase_by for version in backend.registry.list_versions(key_id)}
    assert marks == {"first.1": after(erased_at, ERASED_WITHIN_DAYS * DAY_S), "second.1": None}
    assert hidden_users(backend.registry.get_key(key_id)) is None


def test_versions_that_contain_the_user_are_deleted_within_the_documented_time(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, GOOD_CSV + ANNA)
    train(backend, "second", key_id, GOOD_CSV, options=APPEND)
    backend.registry.pin_version(key_id, "first.1")
    erase(backend, key_id)
    erase_by = after(backend.now, ERASED_WITHIN_DAYS * DAY_S)
    backend.now = after(erase_by, -1)
    collect(backend)
    assert objects_with_the_user(backend, key_id) == {"first.1", "second.1"}

    backend.now = erase_by
    collect(backend)
    assert backend.registry.get_key(key_id).current_version == "second.1"  # no training yet, so that it stays
    assert [version.version for version in backend.registry.list_versions(key_id)] == ["second.1"]
    with pytest.raises(VersionNotFound):
        backend.registry.activate_version(key_id, "first.1")

    train(backend, "third", key_id, GOOD_CSV, options=APPEND)
    collect(backend)
    backend.pass_s(READER_GRACE_S)
    collect(backend)
    assert objects_with_the_user(backend, key_id) == set()
    assert {name.split("/")[2] for name in backend.objects("models/")} == {"third.1"}


def test_after_the_documented_time_the_user_is_in_no_file_of_the_data_directory(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, GOOD_CSV + ANNA)
    uploaded_at = datetime.fromisoformat(backend.now).timestamp()
    os.utime(backend.root / "objects/uploads/first.csv", (uploaded_at, uploaded_at))  # the file's time is the real one
    erase(backend, key_id)
    train(backend, "second", key_id, GOOD_CSV, options=APPEND)
    files = [path for path in backend.root.rglob("*") if path.is_file()]
    assert any(contains_user(path.name, path.read_bytes()) for path in files)

    backend.pass_s(ERASED_WITHIN_DAYS * DAY_S)
    collect(backend, upload_days=Settings().upload_days)
    backend.pass_s(READER_GRACE_S)
    collect(backend, upload_days=Settings().upload_days)

    assert backend.load(key_id).version == "second.1"
    files = [path for path in backend.root.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"registry.sqlite3", "second.csv", "interactions.parquet"}
    assert [path.name for path in files if contains_user(path.name, path.read_bytes())] == []


def test_a_version_that_is_overdue_cannot_be_activated_before_it_is_deleted(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, GOOD_CSV + ANNA)
    erase(backend, key_id)
    train(backend, "second", key_id, GOOD_CSV, options=APPEND)
    backend.pass_s(ERASED_WITHIN_DAYS * DAY_S)
    with pytest.raises(VersionNotFound, match="contains erased users"):
        backend.registry.activate_version(key_id, "first.1")


def test_a_version_without_most_of_the_users_is_not_held_if_they_were_erased(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, GOOD_CSV)
    for number in range(5):
        backend.registry.erase_user(key_id, f"u{number}")
    job = train(backend, "second", key_id, b"user_id,item_id\nu6,i1\nu7,i2\n", options=APPEND)
    assert (job.held_reasons, backend.load(key_id).version) == (None, "second.1")
    assert set(backend.load(key_id).users) == {"u5", "u6", "u7"}


@pytest.mark.parametrize("options", [APPEND, None], ids=["append", "replace"])
def test_a_file_that_arrived_before_the_erasure_does_not_bring_the_user_back(
    backend: Backend, options: dict[str, str] | None
) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, GOOD_CSV + ANNA)
    waiting = [send(backend, f"waiting{number}", key_id, GOOD_CSV + ANNA, options=options) for number in range(2)]
    erase(backend, key_id)
    for event in waiting:
        job = backend.finish(event)
        assert job.state is JobState.SUCCEEDED
        assert job.report is not None
        assert job.report["skipped"]["erased-user"]["count"] == 2
    assert objects_with_the_user(backend, key_id) == {"first.1"}


def test_a_file_that_arrives_after_the_erasure_brings_the_user_back(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, GOOD_CSV + ANNA)
    erase(backend, key_id)
    train(backend, "later", key_id, f"user_id,item_id\n{USER},i2\n{USER},i3\n".encode(), options=APPEND)
    model = backend.load(key_id)
    user = model.users.find(USER)
    assert user is not None
    assert list(model.items.at(model.seen(user))) == ["i2", "i3"]
    train(backend, "next", key_id, GOOD_CSV, options=APPEND)
    assert USER in backend.load(key_id).users


def test_a_training_that_was_running_does_not_end_the_hiding_of_the_user(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    train(backend, "first", key_id, GOOD_CSV + ANNA)

    def erase_now(_job: Job, progress: Progress) -> None:
        if progress.phase == "publishing":
            erase(backend, key_id)

    event = send(backend, "running", key_id, GOOD_CSV, options=APPEND)
    backend.finish(event, backend.worker(on_progress=erase_now))
    hidden = hidden_users(backend.registry.get_key(key_id))
    assert hidden is not None
    assert USER in hidden
    assert all(version.erase_by for version in backend.registry.list_versions(key_id))
    train(backend, "next", key_id, GOOD_CSV, options=APPEND)
    assert USER not in backend.load(key_id).users
