"""POST /v1/validate, and how the API shows versions that are held."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from recsys.registry.records import Assessment, JobPurpose, ModelVersion
from recsys.registry.registry import Published
from tests.unit.http_fakes import CSV, METRICS, REPORT, Service, assert_problem, eventually, publish

REASONS = [{"code": "loses-users", "text": "The file has 2 of the 300 users."}]
COMPARISON = {"current": {"users": 300}, "new": {"users": 2}}
REPEAT = "a-repeated-request-0001"


def validate(service: Service, **headers: str) -> Any:
    return service.client.request("POST", "/v1/validate", files={"file": ("orders.csv", CSV)}, headers=headers)


def hold(service: Service, key_id: str, job_id: str, current: str) -> ModelVersion:
    """End a job as the training function does when the comparison holds its version."""
    service.now.move(1)
    lease = service.registry.claim_job(job_id, owner="w", data_timestamp=f"{service.now.timestamp}#1", lease_s=60)
    version = ModelVersion(key_id, lease.version, job_id, service.now.timestamp, "d" * 64, METRICS)
    assessment = Assessment(current, COMPARISON, REASONS)
    assert service.registry.publish_version(lease, version, REPORT, assessment) is Published.HELD
    return version


def uploads(service: Service) -> list[str]:
    return [name for name in service.stored() if name.startswith("uploads/")]


@contextmanager
def finishing(service: Service, finish: Any) -> Iterator[None]:
    """Call `finish` with the id of the first job whose file is stored, in a thread."""

    def work() -> None:
        eventually(lambda: bool(uploads(service)))
        finish(uploads(service)[0].removeprefix("uploads/").removesuffix(".csv"))

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def test_validation_is_a_job_of_its_own_purpose(service: Service) -> None:
    response = validate(service)

    body = response.json()
    assert (response.status_code, body["purpose"], body["status"]) == (202, "validate", "queued")
    assert response.headers["location"] == body["location"]
    assert service.registry.get_job(body["job_id"]).purpose is JobPurpose.VALIDATE
    assert service.client.get(body["location"], body["api_key"]).json()["purpose"] == "validate"
    assert service.store.read(f"uploads/{body['job_id']}.csv") == CSV


def test_options_of_a_validation_are_those_of_a_training(service: Service) -> None:
    path = "/v1/validate?user=a&min_score=4&force=true&mode=append"
    body = service.client.request("POST", path, files={"file": CSV}).json()
    assert service.registry.get_job(body["job_id"]).options == {
        "user": "a",
        "min_score": 4.0,
        "force": True,
        "mode": "append",
    }
    assert body["mode"] is None  # nothing is trained
    wrong = service.client.request("POST", "/v1/validate?force=perhaps", files={"file": CSV})
    assert_problem(wrong, 422, "invalid-option")


def test_report_is_returned_after_a_wait(service: Service) -> None:
    def finish(job_id: str) -> None:
        lease = service.registry.claim_job(job_id, owner="w", data_timestamp="1#1", lease_s=60)
        service.registry.finish_validation(lease, REPORT)

    with finishing(service, finish):
        response = validate(service, prefer="wait=20")

    assert response.status_code == 200
    assert (response.json()["status"], response.json()["report"]) == ("succeeded", REPORT)


def test_validation_and_training_do_not_share_an_idempotency_key(service: Service) -> None:
    checked = validate(service, **{"idempotency-key": REPEAT}).json()
    again = validate(service, **{"idempotency-key": REPEAT}).json()
    trained = service.client.request(
        "POST", "/v1/train", files={"file": ("orders.csv", CSV)}, headers={"idempotency-key": REPEAT}
    ).json()
    assert again == checked
    assert trained["job_id"] != checked["job_id"]
    assert (trained["purpose"], trained["api_key"]) == ("train", checked["api_key"])


def test_upload_form_can_be_for_a_validation(service: Service) -> None:
    body = service.client.post("/v1/uploads", json={"purpose": "validate"}).json()
    assert service.registry.get_job(body["job_id"]).purpose is JobPurpose.VALIDATE
    assert_problem(service.client.post("/v1/uploads", json={"purpose": "look"}), 422, "invalid-request")


def test_held_version_is_reported_listed_and_promoted(service: Service) -> None:
    api_key = service.new_key()
    good = publish(service.registry, service.store, api_key.key_id, service.folder / "1", service.now)
    job_id = service.client.train(key=str(api_key)).json()["job_id"]
    held = hold(service, api_key.key_id, job_id, good.version)

    job = service.client.get(f"/v1/jobs/{job_id}", str(api_key)).json()
    assert (job["status"], job["model_version"]) == ("held", held.version)
    assert (job["held_reasons"], job["comparison"]) == (REASONS, COMPARISON)
    listed = service.client.get("/v1/models", str(api_key)).json()
    assert listed["current_version"] == good.version
    assert [(model["held"], model["held_reasons"]) for model in listed["models"]] == [(True, REASONS), (False, [])]

    assert service.client.post(f"/v1/models/{held.version}/activate", str(api_key)).status_code == 200
    listed = service.client.get("/v1/models", str(api_key)).json()
    assert (listed["current_version"], listed["models"][0]["held"]) == (held.version, False)


def test_training_that_is_held_during_the_wait_tells_why(service: Service) -> None:
    api_key = service.new_key()
    good = publish(service.registry, service.store, api_key.key_id, service.folder / "1", service.now)

    with finishing(service, lambda job_id: hold(service, api_key.key_id, job_id, good.version)):
        response = service.client.train(key=str(api_key), prefer="wait=20")

    body = response.json()
    assert (response.status_code, body["status"], body["model_version"]) == (200, "held", f"{body['job_id']}.1")
    assert (body["held_reasons"], body["comparison"]) == (REASONS, COMPARISON)
    assert (body["metrics"], body["report"]) == (METRICS, REPORT)
