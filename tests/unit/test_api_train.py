"""POST /v1/train: accepted bodies, stored files, responses, and that a rejected request stores nothing."""

from __future__ import annotations

import gzip
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import httpx
import pytest

from recsys.clock import after
from recsys.errors import Unavailable
from recsys.keys.api_key import ApiKey
from recsys.objects.files import FileObjectStore
from tests.unit.http_fakes import CSV, Service, assert_problem, registry_is_empty, running

DAY_S = 86_400


def train_form(service: Service, files: list[tuple[str, object]]) -> httpx.Response:
    return service.client.request("POST", "/v1/train", files=files)


def test_csv_upload_creates_a_key_a_job_and_a_stored_file(service: Service) -> None:
    response = service.client.train()

    assert response.status_code == 202
    body = response.json()
    assert body["status"] == "queued"
    assert ApiKey.parse(body["api_key"]).key_id == body["key_id"]
    assert response.headers["location"] == body["location"] == f"/v1/jobs/{body['job_id']}"
    assert response.headers["retry-after"] == "2"
    assert response.headers["cache-control"] == "no-store"
    assert service.store.read(f"uploads/{body['job_id']}.csv") == CSV
    job = service.registry.get_job(body["job_id"])
    assert (job.key_id, job.object_name) == (body["key_id"], f"uploads/{body['job_id']}.csv")
    assert job.expires_at == after(service.now.timestamp, 90 * DAY_S)


def test_new_key_expires_unless_it_gets_a_model(service: Service) -> None:
    key_id = service.client.train().json()["key_id"]

    assert service.registry.get_key(key_id).expires_at == after(service.now.timestamp, 7 * DAY_S)


def test_secret_of_the_key_is_not_stored(service: Service) -> None:
    body = service.client.train().json()

    secret = ApiKey.parse(body["api_key"]).secret.encode()
    files = [path for path in service.folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret in path.read_bytes()]


def test_multipart_file_is_stored_unchanged(service: Service) -> None:
    response = train_form(service, [("file", ("orders.csv", CSV, "application/vnd.ms-excel"))])

    assert response.status_code == 202
    assert service.store.read(f"uploads/{response.json()['job_id']}.csv") == CSV


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "application/csv"},
        {"content_type": "application/gzip"},
        {"content_type": "application/octet-stream"},
        {"content_type": "text/csv", "content_encoding": "gzip"},
    ],
)
def test_gzip_is_detected_by_its_magic_bytes(service: Service, headers: dict[str, str]) -> None:
    packed = gzip.compress(CSV)

    job_id = service.client.train(packed, **headers).json()["job_id"]

    assert service.store.read(f"uploads/{job_id}.csv.gz") == packed


def test_gzip_in_a_form_is_detected_by_its_magic_bytes(service: Service) -> None:
    packed = gzip.compress(CSV)

    job_id = train_form(service, [("file", ("orders.csv", packed, "text/csv"))]).json()["job_id"]

    assert service.store.read(f"uploads/{job_id}.csv.gz") == packed


def test_upload_with_a_key_retrains_that_key_without_repeating_it(service: Service) -> None:
    api_key = service.new_key()

    body = service.client.train(key=str(api_key)).json()

    assert body["key_id"] == api_key.key_id
    assert body["api_key"] is None
    assert service.registry.get_job(body["job_id"]).key_id == api_key.key_id


@pytest.mark.parametrize("key", ["", "rk_short", "rk_abcdefghijkl_" + "x" * 34])
def test_invalid_key_is_an_error_and_creates_no_new_key(service: Service, key: str) -> None:
    response = service.client.train(key=key)

    assert_problem(response, 401, "invalid-api-key")
    assert response.headers["www-authenticate"]
    assert service.stored() == []
    assert registry_is_empty(service)


@pytest.mark.parametrize("as_form", [True, False])
def test_empty_file_is_rejected_and_stores_nothing(service: Service, *, as_form: bool) -> None:
    response = train_form(service, [("file", ("empty.csv", b""))]) if as_form else service.client.train(b"")

    assert_problem(response, 422, "empty-upload")
    assert service.stored() == []
    assert registry_is_empty(service)


@pytest.mark.parametrize(
    ("files", "received"),
    [
        ([("data", ("orders.csv", CSV))], "'data'"),
        ([("file", ("a.csv", CSV)), ("file", ("b.csv", CSV))], "'file', 'file'"),
        ([("file", ("a.csv", CSV)), ("epochs", (None, "20"))], "'file', 'epochs'"),
        ([("file", (None, "orders.csv"))], "'file'"),
    ],
    ids=["another name", "two files", "unknown field", "text instead of a file"],
)
def test_form_with_anything_but_one_file_is_rejected(
    service: Service, files: list[tuple[str, object]], received: str
) -> None:
    document = assert_problem(train_form(service, files), 422, "invalid-multipart")

    assert document["detail"].endswith(f"Received the parts: {received}.")
    assert "curl -F file=@" in document["hint"]
    assert service.stored() == []
    assert registry_is_empty(service)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"junk", "multipart/form-data; boundary=x"),
        (b"--x\r\n", "multipart/form-data"),
        (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nu,i',
            "multipart/form-data; boundary=x",
        ),
    ],
    ids=["not a form", "no boundary", "cut off"],
)
def test_malformed_form_is_rejected(service: Service, body: bytes, content_type: str) -> None:
    assert_problem(service.client.train(body, content_type=content_type), 422, "invalid-multipart")
    assert service.stored() == []
    assert registry_is_empty(service)


def test_temporary_files_of_a_cut_off_form_are_closed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Starlette 1.10 leaves the file of an incomplete last part open unless parsing raises an error."""
    opened: list[Any] = []

    def open_recorded(**options: Any) -> Any:
        opened.append(SpooledTemporaryFile(**options))  # noqa: SIM115  # the parser has to close it
        return opened[-1]

    monkeypatch.setattr("starlette.formparsers.SpooledTemporaryFile", open_recorded)
    head = b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'

    response = service.client.train(head + b"u,i\n" * 500_000, content_type="multipart/form-data; boundary=x")

    assert "closing boundary" in assert_problem(response, 422, "invalid-multipart")["detail"]
    assert [file.closed for file in opened] == [True]


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "application/x-www-form-urlencoded"},
        {"content_type": "application/json"},
        {"content_type": ""},
        {"content_type": "text/csv", "content_encoding": "br"},
        {"content_type": "multipart/form-data; boundary=x", "content_encoding": "gzip"},
    ],
)
def test_unsupported_media_type_is_rejected_with_a_hint(service: Service, headers: dict[str, str]) -> None:
    document = assert_problem(service.client.train(**headers), 415, "unsupported-media-type")

    assert "curl -F file=@" in document["hint"]
    assert service.stored() == []


@pytest.mark.parametrize("content_type", ["text/csv", "Text/CSV; charset=utf-8", "text/tab-separated-values"])
@pytest.mark.parametrize("is_damaged", [False, True])
def test_gzip_sent_as_text_is_rejected_with_the_way_to_send_it(
    service: Service, content_type: str, is_damaged: bool
) -> None:
    """API Gateway's HTTP API decodes bodies of type `text/*` as UTF-8; the local service rejects them, too."""
    packed = gzip.compress(CSV)
    body = packed.decode("utf-8", "replace").encode() if is_damaged else packed

    document = assert_problem(service.client.train(body, content_type=content_type), 415, "unsupported-media-type")

    assert "application/gzip" in document["hint"]
    assert service.stored() == []
    assert registry_is_empty(service)


@pytest.mark.parametrize("path", ["/v1/train", "/v1/validate", "/v1/uploads"])
def test_without_anonymous_training_a_key_is_required(tmp_path: Path, path: str) -> None:
    with running(tmp_path, allow_anonymous_training=False) as service:
        headers = {"content-type": "text/csv"} if path != "/v1/uploads" else {}
        content = CSV if path != "/v1/uploads" else b""
        rejected = service.client.request("POST", path, content=content, headers=headers)

        document = assert_problem(rejected, 401, "api-key-required")
        assert "X-API-Key" in document["hint"]
        assert "x-api-key" in rejected.headers["www-authenticate"].lower()
        assert registry_is_empty(service)
        headers["x-api-key"] = str(service.new_key())
        assert service.client.request("POST", path, content=content, headers=headers).status_code in (201, 202)


@pytest.mark.parametrize("as_form", [True, False])
def test_file_of_exactly_the_limit_is_accepted(tmp_path: Path, *, as_form: bool) -> None:
    with running(tmp_path, max_request_bytes=len(CSV)) as service:
        response = train_form(service, [("file", ("a.csv", CSV))]) if as_form else service.client.train()

    assert response.status_code == 202


@pytest.mark.parametrize("as_form", [True, False])
def test_file_above_the_limit_is_referred_to_the_upload_route(tmp_path: Path, *, as_form: bool) -> None:
    with running(tmp_path, max_request_bytes=len(CSV) - 1) as service:
        response = train_form(service, [("file", ("a.csv", CSV))]) if as_form else service.client.train()

        document = assert_problem(response, 413, "payload-too-large")
        assert "POST /v1/uploads" in document["hint"]
        assert str(len(CSV) - 1) in document["detail"]
        assert service.stored() == []
        assert registry_is_empty(service)


def test_unavailable_store_does_not_accept_the_job(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("no space left on /secret/path")

    monkeypatch.setattr(FileObjectStore, "create", fail)

    response = service.client.train()

    document = assert_problem(response, 503, "unavailable")
    assert response.headers["retry-after"]
    assert "/secret/path" not in response.text
    assert "api_key" not in document


def test_options_of_the_query_and_of_the_form_are_kept_with_the_job(service: Service) -> None:
    files: list[tuple[str, object]] = [("file", ("orders.csv", CSV)), ("min_score", (None, "4"))]
    response = service.client.request("POST", "/v1/train?user=Kunde&exclude_items=a,b&min_score=1", files=files)

    assert response.status_code == 202
    job = service.registry.get_job(response.json()["job_id"])
    assert job.options == {"user": "Kunde", "min_score": 4.0, "exclude_items": ["a", "b"]}


def test_an_invalid_option_is_rejected_before_anything_is_stored(service: Service) -> None:
    response = service.client.request("POST", "/v1/train?delimiter=colon", files=[("file", ("orders.csv", CSV))])

    assert_problem(response, 422, "invalid-option")
    assert registry_is_empty(service)


def test_an_idempotency_key_with_other_options_is_another_request(service: Service) -> None:
    headers = {"Idempotency-Key": "0f8fad5b-d9cb-469f-a165-70867728950e", "Content-Type": "text/csv"}
    first = service.client.request("POST", "/v1/train?user=a", content=CSV, headers=headers)
    second = service.client.request("POST", "/v1/train?user=b", content=CSV, headers=headers)

    assert first.status_code == 202
    assert_problem(second, 422, "idempotency-mismatch")


def test_an_upload_form_takes_the_options_as_members_of_its_body(service: Service) -> None:
    body = {"gzip": True, "user": "Kunde", "min_score": 3}
    response = service.client.request("POST", "/v1/uploads", json=body)

    assert response.status_code == 201
    assert service.registry.get_job(response.json()["job_id"]).options == {"user": "Kunde", "min_score": 3.0}
