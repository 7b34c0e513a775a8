"""`Prefer: wait=N`: parsing the header, and the response when the job ends during the wait."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import pytest

from recsys.errors import FieldError, Problem, Unavailable
from recsys.objects.files import FileObjectStore
from recsys.objects.store import ObjectInfo
from recsys.registry.records import Job, JobState
from recsys.registry.sqlite import SqliteRegistry
from recsys_api.jobs import wait_until_final
from recsys_api.prefer import wait_s
from tests.unit.http_fakes import METRICS, REPORT, Now, Service, assert_problem, new_job, publish, running

BAD_DATA = Problem(
    "invalid-data",
    "The data cannot be trained on",
    "There is no column item_id.",
    "Name the columns user_id,item_id.",
    (FieldError("missing-column", "item_id", line=1),),
)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], None),
        (["wait=10"], 10),
        (["respond-async, wait=10"], 10),
        (["respond-async", "wait=10"], 10),
        (["WAIT=10"], 10),
        (["wait = 10"], 10),
        (['wait="10"'], 10),
        (['return="a, wait=3", wait=10'], 10),
        (["wait=10; odd=1, x"], 10),
        (["handling=lenient; wait=3, wait=10"], 10),
        (["wait=10, wait=20"], 10),
        (["wait=0"], 0),
        (["wait"], None),
        (["wait="], None),
        (["wait=-1"], None),
        (["wait=1.5"], None),
        (["wait=soon"], None),
        (["wait=" + "9" * 5000], None),
        (["wait=９"], None),
        ([";;,,=,"], None),
        (["waiting=5"], None),
    ],
)
def test_wait_is_read_from_the_prefer_header(headers: list[str], expected: int | None) -> None:
    assert wait_s(headers) == expected


@contextmanager
def worker(service: Service, finish: Callable[[Job], None]) -> Iterator[None]:
    """Call `finish` with the job of the first upload that appears."""

    def work() -> None:
        for _ in range(500):
            names = [name for name in service.stored() if name.startswith("uploads/")]
            if names:
                finish(service.registry.get_job(names[0].removeprefix("uploads/").partition(".")[0]))
                return
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


def test_training_that_succeeds_during_the_wait_returns_metrics(service: Service) -> None:
    def finish(job: Job) -> None:
        publish(service.registry, service.store, job.key_id, service.folder / "model", service.now, job=job)

    with worker(service, finish):
        response = service.client.train(prefer="wait=20")

    assert response.status_code == 201
    assert response.headers["preference-applied"] == "wait=20"
    body = response.json()
    assert body["status"] == "succeeded"
    assert (body["metrics"], body["report"]) == (METRICS, REPORT)
    assert body["model_version"] == f"{body['job_id']}.1"
    assert response.headers["location"] == f"/v1/jobs/{body['job_id']}"
    assert service.client.recommend(body["api_key"]).status_code == 200


def test_training_that_fails_during_the_wait_returns_problem_and_key(service: Service) -> None:
    def finish(job: Job) -> None:
        lease = service.registry.claim_job(job.job_id, owner="w", data_timestamp="1#1", lease_s=60)
        service.registry.fail_job(lease, BAD_DATA, None)

    with worker(service, finish):
        response = service.client.train(prefer="wait=20")

    document = assert_problem(response, 422, "invalid-data")
    assert document["detail"] == BAD_DATA.detail
    assert document["hint"] == BAD_DATA.hint
    assert document["errors"] == [{"code": "missing-column", "detail": "item_id", "line": 1}]
    assert document["status"] == 422
    assert service.client.get(f"/v1/jobs/{document['job_id']}", document["api_key"]).json()["status"] == "failed"


def test_training_that_is_superseded_during_the_wait_is_reported(service: Service) -> None:
    def finish(job: Job) -> None:
        service.registry.supersede_job(
            service.registry.claim_job(job.job_id, owner="w", data_timestamp="1#1", lease_s=60)
        )

    with worker(service, finish):
        response = service.client.train(prefer="wait=20")

    assert response.status_code == 200
    assert response.json()["status"] == "superseded"


def test_response_after_the_wait_is_202(tmp_path: Path) -> None:
    with running(tmp_path, max_wait_s=1) as service:
        response = service.client.train(prefer="wait=60")

    assert response.status_code == 202
    assert response.headers["preference-applied"] == "wait=1"
    assert response.json()["status"] == "queued"


def test_wait_starts_with_the_request(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The 30 seconds of API Gateway also start with the request."""
    lookups: list[str] = []
    create, get_job = FileObjectStore.create, SqliteRegistry.get_job

    def create_slowly(store: FileObjectStore, name: str, content: bytes | BinaryIO) -> ObjectInfo:
        time.sleep(1.1)
        return create(store, name, content)

    def count_lookups(registry: SqliteRegistry, job_id: str) -> Job:
        lookups.append(job_id)
        return get_job(registry, job_id)

    monkeypatch.setattr(FileObjectStore, "create", create_slowly)
    monkeypatch.setattr(SqliteRegistry, "get_job", count_lookups)

    response = service.client.train(prefer="wait=1")

    assert response.status_code == 202
    assert response.headers["preference-applied"] == "wait=1"
    assert lookups == []


def test_no_preference_is_applied_without_a_wait(service: Service) -> None:
    assert "preference-applied" not in service.client.train(prefer="respond-async").headers


def test_polling_slows_down(tmp_path: Path) -> None:
    now = Now()
    registry = SqliteRegistry(tmp_path / "r", now.clock)
    job = new_job(registry, "key", now.timestamp)
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        now.move(seconds)

    waited = asyncio.run(wait_until_final(registry, job, timeout_s=3, sleep=sleep, timer=now.timer))
    registry.close()

    assert waited.state is JobState.QUEUED
    assert pauses[0] == pytest.approx(0.1)
    assert max(pauses) == pytest.approx(0.5)
    assert sum(pauses) == pytest.approx(3)


def test_unavailable_registry_does_not_lose_the_accepted_job(tmp_path: Path) -> None:
    now = Now()
    registry = SqliteRegistry(tmp_path / "r", now.clock)
    job = new_job(registry, "key", now.timestamp)

    class UnavailableRegistry(SqliteRegistry):
        def __init__(self) -> None: ...

        def get_job(self, job_id: str) -> Job:
            raise Unavailable("off")

    async def sleep(seconds: float) -> None:
        now.move(seconds)

    assert asyncio.run(wait_until_final(UnavailableRegistry(), job, timeout_s=2, sleep=sleep, timer=now.timer)) == job
    registry.close()
