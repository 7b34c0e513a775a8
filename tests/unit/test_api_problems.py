"""Error responses, request ids and the request log; health checks and the documentation page."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from anyio.from_thread import start_blocking_portal
from fastapi import FastAPI

from recsys.clock import after
from recsys.errors import (
    ArtifactDamaged,
    EmptyUpload,
    Gone,
    IdempotencyMismatch,
    InvalidApiKey,
    InvalidData,
    InvalidRequest,
    JobNotFound,
    ModelNotReady,
    ObjectExists,
    PayloadTooLarge,
    RateLimited,
    RecsysError,
    Unavailable,
    UnsupportedMediaType,
)
from recsys.http import problems
from recsys.keys.api_key import ApiKey, claim_token_sha256, new_claim_token
from recsys.redaction import redacted
from recsys.registry.key_record import KeyRecord
from recsys.registry.sqlite import SqliteRegistry
from tests.unit.http_fakes import Client, Service, assert_problem, publish, running

CANARY = str(ApiKey.mint())


def response_to(error: Exception) -> httpx.Response:
    """Return the response of an app whose route raises `error`."""
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def fail() -> None:
        raise error

    with start_blocking_portal() as portal:
        return Client(app, portal).get("/")


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (InvalidRequest("d"), 422, "invalid-request"),
        (EmptyUpload("d"), 422, "empty-upload"),
        (IdempotencyMismatch("d"), 422, "idempotency-mismatch"),
        (UnsupportedMediaType("d"), 415, "unsupported-media-type"),
        (PayloadTooLarge("d"), 413, "payload-too-large"),
        (InvalidData("d"), 422, "invalid-data"),
        (InvalidData("d", code="too-many-bad-lines"), 422, "too-many-bad-lines"),
        (InvalidApiKey("d"), 401, "invalid-api-key"),
        (JobNotFound("d"), 404, "job-not-found"),
        (ModelNotReady("d"), 409, "model-not-ready"),
        (ObjectExists("d"), 409, "object-exists"),
        (Gone("d"), 410, "claim-gone"),
        (RateLimited("d"), 429, "rate-limited"),
        (ArtifactDamaged("d"), 503, "artifact-damaged"),
        (Unavailable("d"), 503, "unavailable"),
        (RecsysError("d"), 500, "internal-error"),
        (ValueError("d"), 500, "internal-error"),
    ],
)
def test_error_class_determines_status_and_code(error: Exception, status: int, code: str) -> None:
    assert_problem(response_to(error), status, code)


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (Unavailable("d"), "5"),
        (Unavailable("d", retry_after_s=7), "7"),
        (ModelNotReady("d"), "5"),
        (ArtifactDamaged("d"), "30"),
        (InvalidRequest("d"), None),
    ],
)
def test_temporary_error_has_a_retry_after_header(error: RecsysError, retry_after: str | None) -> None:
    assert response_to(error).headers.get("retry-after") == retry_after


@pytest.mark.parametrize("error", [ValueError(CANARY), RecsysError("/etc/secret"), Unavailable("/etc/secret")])
def test_internal_details_are_not_exposed(error: Exception) -> None:
    text = response_to(error).text

    assert CANARY not in text
    assert "/etc/secret" not in text


def test_crash_is_logged_once_with_traceback_and_request_id_but_no_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    response = response_to(ValueError(f"cannot use {CANARY}"))

    (record,) = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert "Traceback" in record.getMessage()
    assert "ValueError: cannot use (secret)" in record.getMessage()
    assert vars(record)["request_id"] == response.headers["x-request-id"]


def test_unavailable_store_is_logged_with_its_error(caplog: pytest.LogCaptureFixture) -> None:
    response_to(Unavailable("disk /dev/sda1 is full"))

    assert "disk /dev/sda1 is full" in caplog.text


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/nothing", "/v1/train/", "/v1/recommendations/x", "/../etc/passwd"])
def test_unknown_path_is_not_found(service: Service, path: str) -> None:
    assert_problem(service.client.get(path), 404, "not-found")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/train", "OPTIONS, POST"),
        ("POST", "/v1/key", "DELETE, GET, HEAD, OPTIONS"),
        ("PUT", "/v1/recommendations", "OPTIONS, POST"),
        ("DELETE", "/v1/jobs/x", "GET, HEAD, OPTIONS"),
        ("BREW", "/health/live", "GET, HEAD, OPTIONS"),
    ],
)
def test_wrong_method_lists_the_allowed_ones(service: Service, method: str, path: str, allowed: str) -> None:
    response = service.client.request(method, path)

    assert_problem(response, 405, "method-not-allowed")
    assert response.headers["allow"] == allowed


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"user_id": "a", "n": ' + b"1" * 5000 + b"}", b'{"user_id": "\\ud800"}'],
    ids=["empty", "cut off", "not UTF-8", "deeply nested", "long number", "lone surrogate"],
)
def test_unreadable_body_is_rejected(service: Service, body: bytes) -> None:
    headers = {"content-type": "application/json", "x-api-key": str(service.published_key())}

    response = service.client.request("POST", "/v1/recommendations", content=body, headers=headers)

    document = assert_problem(response, 422, "invalid-request")
    assert "pointer" in document["errors"][0]


def test_json_without_its_content_type_gets_a_hint(service: Service) -> None:
    headers = {"content-type": "text/plain", "x-api-key": str(service.published_key())}

    response = service.client.request("POST", "/v1/recommendations", content=b'{"user_id": "u1"}', headers=headers)

    assert "Content-Type: application/json" in assert_problem(response, 422, "invalid-request")["hint"]


def test_invalid_value_is_located_and_quoted_in_part(service: Service) -> None:
    response = service.client.recommend(str(service.published_key()), exclude_items=["A", 5], n="x" * 500)

    document = assert_problem(response, 422, "invalid-request")
    assert [error["pointer"] for error in document["errors"]] == ["/n", "/exclude_items/1"]
    assert "x" * 70 in document["errors"][0]["detail"]
    assert "x" * 80 not in response.text


def test_field_name_is_escaped_in_the_json_pointer(service: Service) -> None:
    response = service.client.recommend(str(service.published_key()), **{"a/b~c": 1})

    assert assert_problem(response, 422, "invalid-request")["errors"][0]["pointer"] == "/a~1b~0c"


def test_list_of_findings_is_limited(service: Service) -> None:
    response = service.client.recommend(str(service.published_key()), exclude_items=list(range(5000)))

    document = assert_problem(response, 422, "invalid-request")
    assert len(document["errors"]) == 20
    assert "4999 more" in document["detail"]


def test_large_json_body_is_rejected(service: Service) -> None:
    response = service.client.recommend(str(service.published_key()), "u" * 3_000_000)

    assert_problem(response, 413, "payload-too-large")


def test_every_response_has_a_unique_request_id(service: Service) -> None:
    ids = {service.client.get("/health/live").headers["x-request-id"] for _ in range(3)}

    assert len(ids) == 3


def test_log_contains_the_route_and_not_the_path(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "recsys.http")
    api_key = service.new_key()

    service.client.get("/v1/jobs/secret-in-a-path", str(api_key))

    (record,) = [vars(record) for record in caplog.records if record.name == "recsys.http"]
    assert (record["method"], record["route"], record["status"]) == ("GET", "/v1/jobs/{job_id}", 404)
    assert record["key_id"] == api_key.key_id
    assert record["problem"] == "job-not-found"
    assert record["latency_ms"] > 0


def test_secrets_appear_in_no_log_line_and_in_one_response_only(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    responses: list[httpx.Response] = []
    with running(tmp_path) as service:
        issued = str(service.client.train(idempotency_key="an-idempotency-canary").json()["api_key"])
        rotated = str(service.client.post("/v1/key/rotate", issued).json()["api_key"])
        token = new_claim_token()
        service.registry.create_key(KeyRecord("dropDropDrop", service.now.timestamp))
        service.registry.offer_claim(
            claim_token_sha256(token), "dropDropDrop", expires_at=after(service.now.timestamp, 60)
        )
        claimed = str(service.client.post("/v1/key/claim", json={"claim_token": token}).json()["api_key"])
        publish(service.registry, service.store, ApiKey.parse(issued).key_id, tmp_path / "m", service.now)
        secrets = [issued, rotated, claimed, token, "an-idempotency-canary"]

        client = service.client
        for key in (issued, rotated, claimed):
            responses += [client.get(path, key) for path in ("/v1/key", "/v1/models", "/v1/jobs/x", f"/v1/jobs/{key}")]
            responses += [client.recommend(key), client.recommend(key, user_id=5), client.recommend(key + "x")]
            responses += [client.train(b"", key=key), client.train(key=key, content_type="application/json")]
            responses += [client.recommend(key, n=key), client.post("/v1/key/claim", json={"claim_token": [key]})]
        responses += [client.post("/v1/key/claim", json=body) for body in ({"claim_token": token}, {"token": token})]
        responses += [client.train(idempotency_key="an-idempotency-canary ü")]
        with monkeypatch.context() as patch:
            patch.setattr(SqliteRegistry, "get_key", _fail_with_a_secret)
            responses += [client.get("/v1/key", key) for key in (issued, rotated)]
        responses += [client.delete("/v1/key", claimed)]

    # httpx is the test's own client and logs its requests.
    records = [record for record in caplog.records if not record.name.startswith("httpx")]
    logged = repr([(record.getMessage(), vars(record)) for record in records]) + "".join(capsys.readouterr())
    for secret in secrets:
        assert secret not in logged
        assert not [response.text for response in responses if secret in response.text]
    for key in (issued, rotated, claimed):
        assert ApiKey.parse(key).secret not in logged


def _fail_with_a_secret(_: SqliteRegistry, key_id: str) -> Any:
    raise ZeroDivisionError(f"a message that quotes {CANARY} for {key_id}")


def test_keys_and_claim_tokens_are_redacted() -> None:
    key, token = str(ApiKey.mint()), new_claim_token()

    assert redacted(f"({key}) '{token}' rk_ ct_ work_item") == "((secret)) '(secret)' rk_ ct_ work_item"


# -- health checks and documentation


def test_liveness(service: Service) -> None:
    assert service.client.get("/health/live").json() == {"status": "live"}


def test_service_is_ready_if_its_storage_responds(service: Service) -> None:
    assert service.client.get("/health/ready").json() == {"status": "ready"}


@pytest.mark.parametrize("which", ["registry", "store"])
def test_service_is_not_ready_if_its_storage_does_not_respond(
    service: Service, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("off")

    monkeypatch.setattr(type(getattr(service, which)), {"registry": "get_key", "store": "info"}[which], fail)

    assert_problem(service.client.get("/health/ready"), 503, "unavailable")


def test_docs_page_shows_the_openapi_document(service: Service) -> None:
    page = service.client.get("/docs")
    document = service.client.get("/openapi.json")

    assert page.headers["content-type"].startswith("text/html")
    assert "openapi.json" in page.text
    assert document.headers["content-type"] == "application/json"
    assert "/v1/recommendations" in document.json()["paths"]
