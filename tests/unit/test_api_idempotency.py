"""POST /v1/train with an Idempotency-Key: repeated requests share one job."""

from __future__ import annotations

import httpx
import pytest

from recsys.errors import ObjectExists, Unavailable
from recsys.objects.files import FileObjectStore
from tests.unit.http_fakes import CSV, Service, assert_problem, registry_is_empty

REPEAT = "7d0e4c3e-1f67-4d27-8d3c-9a54d2d3f3b1"


def test_repeated_request_is_one_job_and_gets_the_same_key(service: Service) -> None:
    first = service.client.train(idempotency_key=REPEAT).json()
    second = service.client.train(idempotency_key=REPEAT).json()

    assert second == first
    assert service.stored() == [f"uploads/{first['job_id']}.csv"]


def test_repeated_form_with_another_boundary_is_the_same_request(service: Service) -> None:
    bodies = [
        service.client.request(
            "POST", "/v1/train", files={"file": ("a.csv", CSV)}, headers={"idempotency-key": REPEAT}
        ).json()
        for _ in range(2)
    ]

    assert bodies[0] == bodies[1]


def test_repeated_request_with_a_key_is_one_job(service: Service) -> None:
    key = str(service.new_key())

    bodies = [service.client.train(key=key, idempotency_key="monday").json() for _ in range(2)]

    assert bodies[0] == bodies[1]
    assert bodies[0]["api_key"] is None


def test_idempotency_keys_of_two_keys_are_independent(service: Service) -> None:
    bodies = [service.client.train(key=str(service.new_key()), idempotency_key="monday").json() for _ in range(2)]

    assert bodies[0]["job_id"] != bodies[1]["job_id"]


@pytest.mark.parametrize("with_key", [True, False])
def test_idempotency_key_with_another_file_is_rejected(service: Service, *, with_key: bool) -> None:
    key = str(service.new_key()) if with_key else None
    service.client.train(key=key, idempotency_key=REPEAT)
    stored = service.stored()
    rows = service.registry._sqlite_table._connection().execute("SELECT count(*) FROM registry").fetchone()

    response = service.client.train(CSV + b"u3,A\n", key=key, idempotency_key=REPEAT)

    assert_problem(response, 422, "idempotency-mismatch")
    assert service.stored() == stored
    assert service.registry._sqlite_table._connection().execute("SELECT count(*) FROM registry").fetchone() == rows


def test_repeated_request_stores_the_file_that_the_first_one_did_not(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FileObjectStore, "create", _unavailable)
        assert service.client.train(idempotency_key=REPEAT).status_code == 503
    assert service.stored() == []

    body = service.client.train(idempotency_key=REPEAT).json()

    assert service.stored() == [f"uploads/{body['job_id']}.csv"]


def test_repeated_request_does_not_store_a_deleted_upload_again(service: Service) -> None:
    body = service.client.train(idempotency_key=REPEAT).json()
    lease = service.registry.claim_job(body["job_id"], owner="w", data_timestamp="1#1", lease_s=60)
    service.registry.supersede_job(lease)
    service.store.delete(f"uploads/{body['job_id']}.csv")

    repeated = service.client.train(idempotency_key=REPEAT).json()

    assert repeated["status"] == "superseded"
    assert service.stored() == []


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/key/rotate"), ("DELETE", "/v1/key")])
def test_repeated_request_returns_no_key_after_a_rotation_or_revocation(
    service: Service, method: str, path: str
) -> None:
    key = service.client.train(idempotency_key=REPEAT).json()["api_key"]
    assert service.client.request(method, path, headers={"x-api-key": key}).is_success

    response = service.client.train(idempotency_key=REPEAT)

    assert "the rotation returned" in assert_problem(response, 409, "key-changed")["hint"]
    assert key not in response.text
    assert len(service.stored()) == 1


@pytest.mark.parametrize("text", ["short", "x" * 15, "x" * 256, "with a space in the middle"])
def test_short_or_malformed_idempotency_key_is_rejected(service: Service, text: str) -> None:
    assert_problem(service.client.train(idempotency_key=text), 422, "invalid-idempotency-key")
    assert service.stored() == []
    assert registry_is_empty(service)


def test_requests_without_idempotency_key_are_different_jobs(service: Service) -> None:
    first, second = service.client.train().json(), service.client.train().json()

    assert first["job_id"] != second["job_id"]
    assert first["key_id"] != second["key_id"]


def test_concurrent_identical_requests_are_one_job(service: Service) -> None:
    async def send(http: httpx.AsyncClient) -> httpx.Response:
        headers = {"content-type": "text/csv", "idempotency-key": REPEAT}
        return await http.post("/v1/train", content=CSV, headers=headers)

    responses = service.client.all_at_once([send] * 8)

    assert {response.status_code for response in responses} == {202}
    assert len({response.text for response in responses}) == 1
    assert len(service.stored()) == 1


def _unavailable(*_: object) -> None:
    raise Unavailable("off")


def test_store_does_not_overwrite(service: Service) -> None:
    """Repeated requests rely on this."""
    service.store.create("uploads/x.csv", b"1")
    with pytest.raises(ObjectExists):
        service.store.create("uploads/x.csv", b"2")
