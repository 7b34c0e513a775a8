"""POST /v1/uploads and GET /v1/jobs/{job_id}."""

from __future__ import annotations

from pathlib import Path

import pytest

from recsys.errors import Problem
from recsys.registry.records import Progress
from tests.unit.http_fakes import METRICS, REPORT, Service, assert_problem, new_job, publish, running


def test_upload_form_comes_with_a_key_and_a_job(service: Service) -> None:
    response = service.client.post("/v1/uploads")

    assert response.status_code == 201
    body = response.json()
    assert response.headers["location"] == f"/v1/jobs/{body['job_id']}"
    assert response.headers["cache-control"] == "no-store"
    assert body["fields"] == {"name": f"uploads/{body['job_id']}.csv"}
    assert body["url"].endswith("/local/uploads")
    assert (body["max_bytes"], body["expires_in_s"]) == (1024**3, 3600)
    job = service.registry.get_job(body["job_id"])
    assert (job.key_id, job.object_name) == (body["key_id"], body["fields"]["name"])
    assert service.client.get("/v1/key", body["api_key"]).json()["key_id"] == body["key_id"]


def test_upload_form_for_gzip_has_the_gz_suffix(service: Service) -> None:
    body = service.client.post("/v1/uploads", json={"gzip": True}).json()

    assert body["fields"]["name"].endswith(".csv.gz")


def test_upload_form_with_a_key_is_for_that_key(service: Service) -> None:
    api_key = service.new_key()

    body = service.client.post("/v1/uploads", str(api_key)).json()

    assert (body["key_id"], body["api_key"]) == (api_key.key_id, None)


def test_size_limit_of_the_form_is_a_setting(tmp_path: Path) -> None:
    with running(tmp_path, max_upload_bytes=7) as service:
        assert service.client.post("/v1/uploads").json()["max_bytes"] == 7


@pytest.mark.parametrize("body", [{"gzip": "yes"}, {"gzip": 1}, {"size": 5}, [], "gzip"])
def test_invalid_upload_options_are_rejected(service: Service, body: object) -> None:
    assert_problem(service.client.post("/v1/uploads", json=body), 422, "invalid-request")


def test_queued_job_has_a_retry_after_header(service: Service) -> None:
    body = service.client.train().json()

    response = service.client.get(body["location"], body["api_key"])

    assert response.status_code == 200
    assert response.headers["retry-after"] == "2"
    assert response.json() == {
        "job_id": body["job_id"],
        "purpose": "train",
        "key_id": body["key_id"],
        "status": "queued",
        "mode": "replace",
        "progress": None,
        "report": None,
        "metrics": None,
        "problem": None,
        "model_version": None,
        "held_reasons": [],
        "comparison": None,
        "queue_position": None,
        "estimated_wait_s": None,
        "created_at": service.now.timestamp,
        "updated_at": service.now.timestamp,
    }


def test_running_job_has_progress(service: Service) -> None:
    api_key = service.new_key()
    job = new_job(service.registry, api_key.key_id, service.now.timestamp)
    lease = service.registry.claim_job(job.job_id, owner="w", data_timestamp="1#1", lease_s=60)
    service.registry.renew_lease(lease, lease_s=60, progress=Progress("fitting", 2, 10, 0.5, 0.25))

    body = service.client.get(f"/v1/jobs/{job.job_id}", str(api_key)).json()

    assert body["status"] == "running"
    assert body["progress"] == {"phase": "fitting", "epoch": 2, "epochs": 10, "loss": 0.5, "validation_ndcg": 0.25}


def test_succeeded_job_has_version_metrics_and_report(service: Service) -> None:
    api_key = service.new_key()
    version = publish(service.registry, service.store, api_key.key_id, service.folder / "m", service.now)

    response = service.client.get(f"/v1/jobs/{version.job_id}", str(api_key))

    body = response.json()
    assert (body["status"], body["model_version"]) == ("succeeded", version.version)
    assert (body["metrics"], body["report"]) == (METRICS, REPORT)
    assert "retry-after" not in response.headers


def test_failed_job_has_problem_and_report(service: Service) -> None:
    api_key = service.new_key()
    job = new_job(service.registry, api_key.key_id, service.now.timestamp)
    lease = service.registry.claim_job(job.job_id, owner="w", data_timestamp="1#1", lease_s=60)
    service.registry.fail_job(lease, Problem("invalid-data", "Bad data", "No item_id.", "Add item_id."), REPORT)

    body = service.client.get(f"/v1/jobs/{job.job_id}", str(api_key)).json()

    assert body["status"] == "failed"
    assert body["report"] == REPORT
    assert body["problem"] == {
        "type": "urn:recsys:problem:invalid-data",
        "title": "Bad data",
        "detail": "No item_id.",
        "hint": "Add item_id.",
    }


@pytest.mark.parametrize("job_id", ["0" * 22, "no-such-job", "x" * 3000, "%00", "..%2f", "%F0%9F%9B%92"])
def test_unknown_job_is_not_found(service: Service, job_id: str) -> None:
    assert_problem(
        service.client.get(f"/v1/jobs/{job_id}", str(service.new_key())),
        404,
        "not-found" if "%2f" in job_id else "job-not-found",
    )


def test_job_of_another_key_looks_like_an_unknown_job(service: Service) -> None:
    job = new_job(service.registry, service.new_key().key_id, service.now.timestamp)
    other_key = str(service.new_key())

    existing = assert_problem(service.client.get(f"/v1/jobs/{job.job_id}", other_key), 404, "job-not-found")
    unknown = assert_problem(service.client.get(f"/v1/jobs/{'0' * 22}", other_key), 404, "job-not-found")

    assert existing["detail"].replace(job.job_id, "") == unknown["detail"].replace("0" * 22, "")


def test_job_needs_a_key(service: Service) -> None:
    body = service.client.train().json()

    assert_problem(service.client.get(body["location"]), 401, "invalid-api-key")


def test_job_expires(service: Service) -> None:
    api_key = service.published_key()
    job_id = service.client.train(key=str(api_key)).json()["job_id"]

    service.now.move(90 * 86_400)

    assert_problem(service.client.get(f"/v1/jobs/{job_id}", str(api_key)), 404, "job-not-found")
