"""The bad and the odd but valid files as requests and as drops, up to the job, the receipt and the recommendations."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from recsys.model.recommender import Strategy, recommend
from recsys.objects.created import ObjectCreated
from recsys.registry.records import Job, JobState
from recsys.settings import Settings
from tests.data_files.bad_files import BAD_FILES, BadFile
from tests.data_files.expected import ALL_USERS, assert_described, assert_explained, query, unseen_items
from tests.data_files.valid_files import VALID_FILES, ValidFile
from tests.markers import TENSORFLOW
from tests.train.backend import Backend
from tests.unit.http_fakes import Client, shared_app

pytestmark = list(TENSORFLOW)

TRAINED_ON = VALID_FILES[::8]
"""Files that are trained on; `python -m tests.benchmarks.files` trains on all of them in a running service."""

bad_files = pytest.mark.parametrize("file", BAD_FILES, ids=lambda file: file.name)
valid_files = pytest.mark.parametrize("file", VALID_FILES, ids=lambda file: file.name)


@pytest.fixture
def client(backend: Backend) -> Iterator[Client]:
    """Return a client of the HTTP functions on the store and the registry of the worker."""
    shared = shared_app(Settings())
    shared.reset_now()
    shared.registry.target, shared.table.target, shared.store.target = (
        backend.registry,
        backend.registry.table,
        backend.store,
    )
    with start_blocking_portal() as portal:
        yield Client(shared.app, portal)


def validated(client: Client, backend: Backend, file: BadFile | ValidFile) -> dict[str, Any]:
    """Send a file to `POST /v1/validate`, let a worker check it, and return the job as `GET /v1/jobs` does."""
    sent = client.request(
        "POST", "/v1/validate", params=query(file.options), files={"file": ("orders.csv", file.content)}
    )
    assert sent.status_code == 202, sent.text
    name = backend.registry.get_job(sent.json()["job_id"]).object_name
    backend.finish(ObjectCreated(name, backend.store.info(name).version, data_timestamp=f"{backend.now}#{name}"))
    assert backend.objects("") == [name], "a check leaves nothing behind except the upload"
    job: dict[str, Any] = client.get(sent.json()["location"], sent.json()["api_key"]).json()
    return job


def dropped(backend: Backend, file: BadFile | ValidFile) -> tuple[Job, dict[str, Any]]:
    """Drop a file with its options into the inbox, let a worker train on it, and return the job and the receipt."""
    if file.options:
        backend.store.create("inbox/orders.csv.json", json.dumps(file.options).encode())
    job = backend.finish(backend.put("inbox/orders.csv", file.content))
    return job, backend.receipt("receipts/orders.json")


@bad_files
def test_a_request_with_a_bad_file_is_explained(client: Client, backend: Backend, file: BadFile) -> None:
    job = validated(client, backend, file)
    assert job["status"] == "failed"
    assert_explained(job["problem"], file)


@valid_files
def test_a_request_with_an_odd_but_valid_file_is_described(client: Client, backend: Backend, file: ValidFile) -> None:
    job = validated(client, backend, file)
    assert (job["status"], job["problem"]) == ("succeeded", None)
    assert_described(job["report"], file.format)


@bad_files
def test_a_drop_of_a_bad_file_is_explained_by_its_receipt(backend: Backend, file: BadFile) -> None:
    job, receipt = dropped(backend, file)
    assert (job.state, receipt["status"]) == (JobState.FAILED, "failed")
    assert_explained(receipt["problem"], file)
    assert backend.objects("models/") == []
    assert "claim_token" not in receipt


@pytest.mark.parametrize("file", TRAINED_ON, ids=lambda file: file.name)
def test_ids_of_a_dropped_file_are_recommended_byte_for_byte(backend: Backend, file: ValidFile) -> None:
    job, receipt = dropped(backend, file)
    assert (job.state, receipt["status"]) == (JobState.SUCCEEDED, "succeeded")
    assert job.report is not None
    assert_described(job.report, file.format)
    model = backend.load(job.key_id)
    for user_id in ALL_USERS:
        recommended = recommend(model, user_id, n=10)
        assert recommended.strategy is Strategy.PERSONAL
        assert {item.item_id for item in recommended.items} == unseen_items(user_id)
