"""POST /v1/train: what is taken, what is stored, what comes back, and what is left behind by a mistake."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from recsys.clock import after
from recsys.errors import ObjectExists, Unavailable
from recsys.keys.api_key import ApiKey
from recsys.objects.files import FileObjectStore
from tests.unit.http_fakes import CSV, Service, assert_problem, running

DAY_S = 86_400


def train_form(service: Service, files: list[tuple[str, object]]) -> httpx.Response:
    return service.client.request("POST", "/v1/train", files=files)


def registry_is_empty(service: Service) -> bool:
    """Nothing is in the registry's table, whatever it would be called."""
    rows = service.registry._sqlite_table._connection().execute("SELECT count(*) FROM registry").fetchone()
    return bool(rows[0] == 0)


def test_a_csv_becomes_a_key_a_job_and_a_stored_file(service: Service) -> None:
    response = service.client.train()

    assert response.status_code == 202
    answer = response.json()
    assert answer["status"] == "queued"
    assert ApiKey.parse(answer["api_key"]).key_id == answer["key_id"]
    assert response.headers["location"] == answer["location"] == f"/v1/jobs/{answer['job_id']}"
    assert response.headers["retry-after"] == "2"
    assert response.headers["cache-control"] == "no-store"
    assert service.store.read(f"uploads/{answer['job_id']}.csv") == CSV
    job = service.registry.get_job(answer["job_id"])
    assert (job.key_id, job.object_name) == (answer["key_id"], f"uploads/{answer['job_id']}.csv")
    assert job.expires_at == after(service.now.timestamp, 90 * DAY_S)


def test_a_new_key_goes_by_itself_unless_it_gets_a_model(service: Service) -> None:
    key_id = service.client.train().json()["key_id"]

    assert service.registry.get_key(key_id).expires_at == after(service.now.timestamp, 7 * DAY_S)


def test_the_key_is_not_stored(service: Service) -> None:
    answer = service.client.train().json()

    secret = ApiKey.parse(answer["api_key"]).secret.encode()
    files = [path for path in service.folder.rglob("*") if path.is_file()]
    assert files
    assert not [path for path in files if secret in path.read_bytes()]


def test_a_multipart_file_is_stored_as_it_is(service: Service) -> None:
    response = train_form(service, [("file", ("orders.csv", CSV, "application/vnd.ms-excel"))])

    assert response.status_code == 202
    assert service.store.read(f"uploads/{response.json()['job_id']}.csv") == CSV


@pytest.mark.parametrize(
    "headers",
    [
        {"content_type": "text/csv; charset=utf-8"},
        {"content_type": "application/gzip"},
        {"content_type": "application/octet-stream"},
        {"content_type": "text/csv", "content_encoding": "gzip"},
    ],
)
def test_gzip_is_told_by_its_bytes(service: Service, headers: dict[str, str]) -> None:
    packed = gzip.compress(CSV)

    job_id = service.client.train(packed, **headers).json()["job_id"]

    assert service.store.read(f"uploads/{job_id}.csv.gz") == packed


def test_a_gzip_in_a_form_is_told_by_its_bytes(service: Service) -> None:
    packed = gzip.compress(CSV)

    job_id = train_form(service, [("file", ("orders.csv", packed, "text/csv"))]).json()["job_id"]

    assert service.store.read(f"uploads/{job_id}.csv.gz") == packed


def test_with_a_key_that_key_is_trained_again_and_not_repeated(service: Service) -> None:
    api_key = service.new_key()

    answer = service.client.train(key=str(api_key)).json()

    assert answer["key_id"] == api_key.key_id
    assert answer["api_key"] is None
    assert service.registry.get_job(answer["job_id"]).key_id == api_key.key_id


@pytest.mark.parametrize("key", ["", "rk_short", "rk_abcdefghijkl_" + "x" * 34])
def test_a_broken_key_is_an_error_and_never_a_new_key(service: Service, key: str) -> None:
    response = service.client.train(key=key)

    assert_problem(response, 401, "invalid-api-key")
    assert response.headers["www-authenticate"]
    assert service.stored() == []
    assert registry_is_empty(service)


@pytest.mark.parametrize("as_form", [True, False])
def test_an_empty_file_is_refused_and_leaves_nothing(service: Service, *, as_form: bool) -> None:
    response = train_form(service, [("file", ("empty.csv", b""))]) if as_form else service.client.train(b"")

    assert_problem(response, 422, "empty-upload")
    assert service.stored() == []
    assert registry_is_empty(service)


@pytest.mark.parametrize(
    "files",
    [
        [("data", ("orders.csv", CSV))],
        [("file", ("a.csv", CSV)), ("file", ("b.csv", CSV))],
        [("file", ("a.csv", CSV)), ("epochs", (None, "20"))],
        [("file", (None, "orders.csv"))],
    ],
    ids=["another name", "two files", "an unknown field", "text in place of a file"],
)
def test_a_form_holds_one_file_and_nothing_else(service: Service, files: list[tuple[str, object]]) -> None:
    document = assert_problem(train_form(service, files), 422, "invalid-multipart")

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
    ids=["no form", "no boundary", "cut off"],
)
def test_a_broken_form_is_refused(service: Service, body: bytes, content_type: str) -> None:
    assert_problem(service.client.train(body, content_type=content_type), 422, "invalid-multipart")
    assert service.stored() == []
    assert registry_is_empty(service)


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
def test_another_kind_of_body_is_refused_with_the_way_to_send_it(service: Service, headers: dict[str, str]) -> None:
    document = assert_problem(service.client.train(**headers), 415, "unsupported-media-type")

    assert "curl -F file=@" in document["hint"]
    assert service.stored() == []


@pytest.mark.parametrize("as_form", [True, False])
def test_a_file_of_exactly_the_limit_is_taken(tmp_path: Path, *, as_form: bool) -> None:
    with running(tmp_path, max_request_bytes=len(CSV)) as service:
        response = train_form(service, [("file", ("a.csv", CSV))]) if as_form else service.client.train()

    assert response.status_code == 202


@pytest.mark.parametrize("as_form", [True, False])
def test_a_file_over_the_limit_is_sent_to_the_upload_route(tmp_path: Path, *, as_form: bool) -> None:
    with running(tmp_path, max_request_bytes=len(CSV) - 1) as service:
        response = train_form(service, [("file", ("a.csv", CSV))]) if as_form else service.client.train()

        document = assert_problem(response, 413, "payload-too-large")
        assert "POST /v1/uploads" in document["hint"]
        assert str(len(CSV) - 1) in document["detail"]
        assert service.stored() == []
        assert registry_is_empty(service)


def test_a_stream_without_a_length_is_cut_at_the_limit(tmp_path: Path) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(100):
            yield b"x" * 1000

    async def send(http: httpx.AsyncClient) -> httpx.Response:
        return await http.post("/v1/train", content=endless(), headers={"content-type": "text/csv"})

    with running(tmp_path, max_request_bytes=5000) as service:
        (response,) = service.client.all_at_once([send])

    assert_problem(response, 413, "payload-too-large")


def test_a_store_that_fails_is_an_error_and_not_an_accepted_job(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise Unavailable("no space left on /secret/path")

    monkeypatch.setattr(FileObjectStore, "create", fail)

    response = service.client.train()

    document = assert_problem(response, 503, "unavailable")
    assert response.headers["retry-after"]
    assert "/secret/path" not in response.text
    assert "api_key" not in document


# -- Idempotency-Key

REPEAT = "7d0e4c3e-1f67-4d27-8d3c-9a54d2d3f3b1"


def test_a_repeated_request_is_one_job_and_gets_the_same_key(service: Service) -> None:
    first = service.client.train(idempotency_key=REPEAT).json()
    second = service.client.train(idempotency_key=REPEAT).json()

    assert second == first
    assert service.stored() == [f"uploads/{first['job_id']}.csv"]


def test_a_repeated_form_is_the_same_request_although_its_boundary_differs(service: Service) -> None:
    answers = [
        service.client.request(
            "POST", "/v1/train", files={"file": ("a.csv", CSV)}, headers={"idempotency-key": REPEAT}
        ).json()
        for _ in range(2)
    ]

    assert answers[0] == answers[1]


def test_a_repeat_by_a_key_is_one_job(service: Service) -> None:
    key = str(service.new_key())

    answers = [service.client.train(key=key, idempotency_key="monday").json() for _ in range(2)]

    assert answers[0] == answers[1]
    assert answers[0]["api_key"] is None


def test_two_keys_do_not_share_their_idempotency_keys(service: Service) -> None:
    answers = [service.client.train(key=str(service.new_key()), idempotency_key="monday").json() for _ in range(2)]

    assert answers[0]["job_id"] != answers[1]["job_id"]


@pytest.mark.parametrize("with_key", [True, False])
def test_another_file_under_the_same_idempotency_key_is_refused(service: Service, *, with_key: bool) -> None:
    key = str(service.new_key()) if with_key else None
    service.client.train(key=key, idempotency_key=REPEAT)
    stored = service.stored()
    rows = service.registry._sqlite_table._connection().execute("SELECT count(*) FROM registry").fetchone()

    response = service.client.train(CSV + b"u3,A\n", key=key, idempotency_key=REPEAT)

    assert_problem(response, 422, "idempotency-mismatch")
    assert service.stored() == stored
    assert service.registry._sqlite_table._connection().execute("SELECT count(*) FROM registry").fetchone() == rows


def test_a_repeat_mends_a_request_that_died_before_its_file_was_stored(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(FileObjectStore, "create", _unavailable)
        assert service.client.train(idempotency_key=REPEAT).status_code == 503
    assert service.stored() == []

    answer = service.client.train(idempotency_key=REPEAT).json()

    assert service.stored() == [f"uploads/{answer['job_id']}.csv"]


def test_a_repeat_after_the_upload_was_cleaned_up_stores_nothing(service: Service) -> None:
    answer = service.client.train(idempotency_key=REPEAT).json()
    lease = service.registry.claim_job(answer["job_id"], owner="w", data_timestamp="1#1", lease_s=60)
    service.registry.supersede_job(lease)
    service.store.delete(f"uploads/{answer['job_id']}.csv")

    repeated = service.client.train(idempotency_key=REPEAT).json()

    assert repeated["status"] == "superseded"
    assert service.stored() == []


@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/key/rotate"), ("DELETE", "/v1/key")])
def test_a_repeat_after_the_key_was_rotated_or_revoked_is_told_no_dead_key(
    service: Service, method: str, path: str
) -> None:
    key = service.client.train(idempotency_key=REPEAT).json()["api_key"]
    assert service.client.request(method, path, headers={"x-api-key": key}).is_success

    response = service.client.train(idempotency_key=REPEAT)

    assert "rotated to" in assert_problem(response, 409, "key-changed")["hint"]
    assert key not in response.text
    assert len(service.stored()) == 1


@pytest.mark.parametrize("text", ["short", "x" * 15, "x" * 256, "with a space in the middle"])
def test_an_idempotency_key_that_can_be_guessed_or_read_two_ways_is_refused(service: Service, text: str) -> None:
    assert_problem(service.client.train(idempotency_key=text), 422, "invalid-idempotency-key")
    assert service.stored() == []
    assert registry_is_empty(service)


def test_requests_without_idempotency_key_are_different_jobs(service: Service) -> None:
    first, second = service.client.train().json(), service.client.train().json()

    assert first["job_id"] != second["job_id"]
    assert first["key_id"] != second["key_id"]


def test_the_same_request_twice_at_once_is_one_job(service: Service) -> None:
    async def send(http: httpx.AsyncClient) -> httpx.Response:
        headers = {"content-type": "text/csv", "idempotency-key": REPEAT}
        return await http.post("/v1/train", content=CSV, headers=headers)

    answers = service.client.all_at_once([send] * 8)

    assert {answer.status_code for answer in answers} == {202}
    assert len({answer.text for answer in answers}) == 1
    assert len(service.stored()) == 1


def _unavailable(*_: object) -> None:
    raise Unavailable("off")


def test_the_store_refuses_to_overwrite(service: Service) -> None:
    """What the idempotent repeat relies on."""
    service.store.create("uploads/x.csv", b"1")
    with pytest.raises(ObjectExists):
        service.store.create("uploads/x.csv", b"2")
