"""POST /v1/uploads and GET /v1/jobs/{job_id}."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import Problem
from recsys.registry.records import Progress
from tests.unit.http_fakes import METRICS, REPORT, Service, assert_problem, new_job, publish, running


def test_an_upload_gets_a_key_a_job_and_a_form(service: Service) -> None:
    response = service.client.post("/v1/uploads")

    assert response.status_code == 201
    answer = response.json()
    assert response.headers["location"] == f"/v1/jobs/{answer['job_id']}"
    assert response.headers["cache-control"] == "no-store"
    assert answer["fields"] == {"name": f"uploads/{answer['job_id']}.csv"}
    assert answer["url"].endswith("/local/uploads")
    assert (answer["max_bytes"], answer["expires_in_s"]) == (1024**3, 3600)
    job = service.registry.get_job(answer["job_id"])
    assert (job.key_id, job.object_name) == (answer["key_id"], answer["fields"]["name"])
    assert service.client.get("/v1/key", answer["api_key"]).json()["key_id"] == answer["key_id"]


def test_an_upload_of_gzip_is_named_so(service: Service) -> None:
    answer = service.client.post("/v1/uploads", json={"gzip": True}).json()

    assert answer["fields"]["name"].endswith(".csv.gz")


def test_an_upload_with_a_key_trains_that_key(service: Service) -> None:
    api_key = service.new_key()

    answer = service.client.post("/v1/uploads", str(api_key)).json()

    assert (answer["key_id"], answer["api_key"]) == (api_key.key_id, None)


def test_the_size_limit_of_an_upload_is_a_setting(tmp_path: Path) -> None:
    with running(tmp_path, max_upload_bytes=7) as service:
        assert service.client.post("/v1/uploads").json()["max_bytes"] == 7


@pytest.mark.parametrize("body", [{"gzip": "yes"}, {"gzip": 1}, {"size": 5}, [], "gzip"])
def test_an_upload_that_is_asked_for_in_another_way_is_refused(service: Service, body: object) -> None:
    assert_problem(service.client.post("/v1/uploads", json=body), 422, "invalid-request")


def test_a_queued_job_says_when_to_ask_again(service: Service) -> None:
    answer = service.client.train().json()

    response = service.client.get(answer["location"], answer["api_key"])

    assert response.status_code == 200
    assert response.headers["retry-after"] == "2"
    assert response.json() == {
        "job_id": answer["job_id"],
        "key_id": answer["key_id"],
        "status": "queued",
        "progress": None,
        "report": None,
        "metrics": None,
        "problem": None,
        "model_version": None,
        "created_at": service.now.timestamp,
        "updated_at": service.now.timestamp,
    }


def test_a_running_job_says_how_far_it_is(service: Service) -> None:
    api_key = service.new_key()
    job = new_job(service.registry, api_key.key_id, service.now.timestamp)
    lease = service.registry.claim_job(job.job_id, owner="w", data_timestamp="1#1", lease_s=60)
    service.registry.renew_lease(lease, lease_s=60, progress=Progress("fitting", 2, 10, 0.5, 0.25))

    answer = service.client.get(f"/v1/jobs/{job.job_id}", str(api_key)).json()

    assert answer["status"] == "running"
    assert answer["progress"] == {"phase": "fitting", "epoch": 2, "epochs": 10, "loss": 0.5, "validation_ndcg": 0.25}


def test_a_job_that_succeeded_has_its_version_metrics_and_report(service: Service) -> None:
    api_key = service.new_key()
    version = publish(service.registry, service.store, api_key.key_id, service.folder / "m", service.now)

    response = service.client.get(f"/v1/jobs/{version.job_id}", str(api_key))

    answer = response.json()
    assert (answer["status"], answer["model_version"]) == ("succeeded", version.version)
    assert (answer["metrics"], answer["report"]) == (METRICS, REPORT)
    assert "retry-after" not in response.headers


def test_a_job_that_failed_says_why_and_what_to_do(service: Service) -> None:
    api_key = service.new_key()
    job = new_job(service.registry, api_key.key_id, service.now.timestamp)
    lease = service.registry.claim_job(job.job_id, owner="w", data_timestamp="1#1", lease_s=60)
    service.registry.fail_job(lease, Problem("invalid-data", "Bad data", "No item_id.", "Add item_id."), REPORT)

    answer = service.client.get(f"/v1/jobs/{job.job_id}", str(api_key)).json()

    assert answer["status"] == "failed"
    assert answer["report"] == REPORT
    assert answer["problem"] == {
        "type": "urn:recsys:problem:invalid-data",
        "title": "Bad data",
        "detail": "No item_id.",
        "hint": "Add item_id.",
    }


@pytest.mark.parametrize("job_id", ["0" * 22, "no-such-job", "x" * 3000, "%00", "..%2f", "%F0%9F%9B%92"])
def test_an_unknown_job_is_not_found(service: Service, job_id: str) -> None:
    assert_problem(
        service.client.get(f"/v1/jobs/{job_id}", str(service.new_key())),
        404,
        "not-found" if "%2f" in job_id else "job-not-found",
    )


def test_the_job_of_another_key_looks_like_one_that_does_not_exist(service: Service) -> None:
    job = new_job(service.registry, service.new_key().key_id, service.now.timestamp)
    stranger = str(service.new_key())

    theirs = assert_problem(service.client.get(f"/v1/jobs/{job.job_id}", stranger), 404, "job-not-found")
    nobodys = assert_problem(service.client.get(f"/v1/jobs/{'0' * 22}", stranger), 404, "job-not-found")

    assert theirs["detail"].replace(job.job_id, "") == nobodys["detail"].replace("0" * 22, "")


def test_a_job_needs_a_key(service: Service) -> None:
    answer = service.client.train().json()

    assert_problem(service.client.get(answer["location"]), 401, "invalid-api-key")


def test_a_job_goes_after_its_time(service: Service) -> None:
    api_key = service.published_key()
    job_id = service.client.train(key=str(api_key)).json()["job_id"]

    service.now.move(90 * 86_400)

    assert_problem(service.client.get(f"/v1/jobs/{job_id}", str(api_key)), 404, "job-not-found")
