"""Invalid input against a running service: files, keys, request bodies and paths.

Each invalid request gets its status and a problem document with a hint, and leaves nothing behind.
"""

from __future__ import annotations

import gzip
import json
import re
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from recsys.keys.api_key import ApiKey
from tests.integration.live_service import (
    RECSYS,
    LiveService,
    clean_environment,
    eventually,
    multipart,
    orders,
    running_service,
    with_key,
)

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("live-bad-input")]

CSV = orders()
GOOD_LINES = b"".join(b"u%d,i%d\n" % (line % 50, line % 37) for line in range(200))
HEADER = b"user_id,item_id\n"

MAX_UNPACKED_BYTES = 512 * 1024**2
"""Smaller than the default, so that the tests are quick; the memory bound below does not depend on it."""
MAX_RSS_BYTES = 2.5 * 1024**3
"""Limit for one process; TensorFlow with a small model takes 0.7 GiB."""


@dataclass(frozen=True)
class Live:
    """A running service with one valid key, a revoked key, and a key whose first training job is still queued."""

    service: LiveService
    key: str
    key_id: str
    revoked_key: str
    queued_key: str
    secrets: list[str]
    """Every key that the service returned to this module."""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    folder = tmp_path_factory.mktemp("live-bad-input")
    environment = {
        "RECSYS_MAX_UNPACKED_BYTES": str(MAX_UNPACKED_BYTES),
        "RECSYS_MAX_REQUEST_BYTES": str(64 * 1024**2),
        "RECSYS_ANONYMOUS_TRAININGS_PER_HOUR": "0",
    }
    with running_service(folder / "data", folder / "log", environment=environment) as service:
        good, revoked = service.trained(CSV), service.trained(CSV)["api_key"]
        service.client.delete("/v1/key", headers=with_key(revoked))
        eventually(lambda: service.recommend(revoked, "u0").status_code == 401, "the revoked key still works")
        queued = service.client.post("/v1/uploads").json()["api_key"]  # its file is never sent
        secrets = [good["api_key"], revoked, queued]
        yield Live(service, good["api_key"], good["key_id"], revoked, queued, secrets)


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Assert that the response is a complete problem document with a hint, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem: dict[str, Any] = response.json()
    assert problem["type"] == f"urn:recsys:problem:{code}", problem
    assert problem["status"] == status
    for member in ("title", "detail", "hint", "request_id"):
        assert isinstance(problem.get(member), str), f"no {member}: {problem}"
        assert problem[member], f"empty {member}"
    assert problem["request_id"] == response.headers["x-request-id"]
    assert "Traceback" not in response.text
    return problem


# -- requests that are rejected before anything is stored


def empty_raw_body(service: LiveService) -> httpx.Response:
    return service.client.post("/v1/train", content=b"", headers={"Content-Type": "text/csv"})


def empty_file(service: LiveService) -> httpx.Response:
    return service.train(b"")


def missing_body(service: LiveService) -> httpx.Response:
    return service.client.post("/v1/train")


def json_body(service: LiveService) -> httpx.Response:
    return service.client.post("/v1/train", json={"file": "orders.csv"})


def path_instead_of_file(service: LiveService) -> httpx.Response:
    boundary = b'--b\r\nContent-Disposition: form-data; name="file"\r\n\r\norders.csv\r\n--b--\r\n'
    return service.client.post(
        "/v1/train", content=boundary, headers={"Content-Type": "multipart/form-data; boundary=b"}
    )


def other_part_name(service: LiveService) -> httpx.Response:
    return service.client.post("/v1/train", files={"orders": ("orders.csv", CSV, "text/csv")})


def over_the_limit(service: LiveService) -> httpx.Response:
    return service.train(b"x" * (65 * 1024**2))


def short_idempotency_key(service: LiveService) -> httpx.Response:
    return service.train(CSV, headers={"Idempotency-Key": "1"})


@pytest.mark.parametrize(
    ("send", "status", "code"),
    [
        (empty_raw_body, 422, "empty-upload"),
        (empty_file, 422, "empty-upload"),
        (missing_body, 415, "unsupported-media-type"),
        (json_body, 415, "unsupported-media-type"),
        (path_instead_of_file, 422, "invalid-multipart"),
        (other_part_name, 422, "invalid-multipart"),
        (over_the_limit, 413, "payload-too-large"),
        (short_idempotency_key, 422, "invalid-idempotency-key"),
    ],
)
def test_rejected_request_stores_nothing(live: Live, send: Any, status: int, code: str) -> None:
    before = live.service.files(".")
    assert_problem(send(live.service), status, code)
    assert live.service.files(".") == before


def test_problem_of_a_file_over_the_limit_names_the_upload_route(live: Live) -> None:
    assert "/v1/uploads" in assert_problem(over_the_limit(live.service), 413, "payload-too-large")["hint"]


# -- files that cannot be trained on


def with_lines(*lines: bytes) -> bytes:
    """Return 200 valid lines with `lines`, more than 1% of all, in the middle (from line 102 on)."""
    good = GOOD_LINES.splitlines(keepends=True)
    return HEADER + b"".join(good[:100]) + b"".join(line + b"\n" for line in lines) + b"".join(good[100:])


def with_scored_lines(*lines: bytes) -> bytes:
    """Return the same with the columns interaction_score and timestamp."""
    header = b"user_id,item_id,interaction_score,timestamp\n"
    good = [b"%s,1,1700000000\n" % line for line in GOOD_LINES.splitlines()]
    return header + b"".join(good[:100]) + b"".join(line + b"\n" for line in lines) + b"".join(good[100:])


BAD_FILES = {
    "header only": (HEADER, "no-rows"),
    "blank lines only": (HEADER + b"\n\n\n", "no-rows"),
    "white space only": (b"  \n \n", "empty-file"),
    "missing column": (b"user_id,price\nu1,p1\n", "missing-column"),
    "no header": (GOOD_LINES, "missing-column"),
    "colons": (b"user_id:item_id\nu1:i1\n", "missing-column"),
    "duplicate header": (b"user_id,item_id,Item_ID\nu1,i1,i2\n", "duplicate-column"),
    "binary junk": (bytes(range(256)) * 400, "not-a-csv"),
    "a PNG": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40, "not-utf8"),
    "UTF-16 without a mark": ((HEADER + GOOD_LINES).decode().encode("utf-16-le"), "not-utf8"),
    "a damaged zip archive": (b"PK\x03\x04" + bytes(1000), "damaged-zip"),
    "truncated gzip": (gzip.compress(CSV)[:-20], "damaged-gzip"),
    "gzip with a flipped bit": (gzip.compress(CSV)[:200] + b"\x00" + gzip.compress(CSV)[201:], "damaged-gzip"),
    "empty gzip": (gzip.compress(b""), "empty-file"),
    "one user": (HEADER + b"u1,i1\nu1,i2\n", "too-few-users"),
    "one item": (HEADER + b"u1,i1\nu2,i1\n", "too-few-items"),
    "a quote that is never closed": (HEADER + b'u1,"i1\n' + GOOD_LINES * 10, "too-many-bad-lines"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_untrainable_file_fails_with_a_problem_and_leaves_no_model(live: Live, name: str) -> None:
    content, code = BAD_FILES[name]
    assert_fails(live, content, code)


BAD_LINES = {
    "Latin-1 bytes": (with_lines(*["ü1,i1".encode("latin-1")] * 5), "not-utf8-user-id"),
    "too few fields": (with_lines(*[b"u1"] * 5), "ragged-line"),
    "too many fields": (with_lines(*[b"u1,i1,what"] * 5), "ragged-line"),
    "blank item id": (with_lines(*[b"u1,  "] * 5), "blank-item-id"),
    "unparsable score": (with_scored_lines(*[b"u1,i1,much,1700000000"] * 5), "bad-interaction-score"),
    "infinite score": (with_scored_lines(*[b"u1,i1,inf,1700000000"] * 5), "bad-interaction-score"),
    "unparsable timestamp": (with_scored_lines(*[b"u1,i1,1,yesterday"] * 5), "bad-timestamp"),
}


@pytest.mark.parametrize("name", BAD_LINES)
def test_bad_lines_are_listed_with_line_number_and_reason(live: Live, name: str) -> None:
    content, code = BAD_LINES[name]
    problem = assert_fails(live, content, "too-many-bad-lines")
    assert [(error["line"], error["code"]) for error in problem["errors"]] == [(line, code) for line in range(102, 107)]
    assert all(error["detail"] for error in problem["errors"])


def test_few_bad_lines_train_with_a_warning(live: Live) -> None:
    body = live.service.trained(with_lines(b"u1"))
    live.secrets.append(body["api_key"])
    assert (body["report"]["bad_lines"], body["report"]["bad_by_code"]) == (1, {"ragged-line": 1})
    assert body["report"]["warnings"]


def assert_fails(live: Live, content: bytes, code: str) -> dict[str, Any]:
    """Assert that training on `content` fails, and that the new key can read why but has no model."""
    problem = assert_problem(live.service.train(content), 422, code)
    key = problem["api_key"]
    live.secrets.append(key)
    assert live.service.files(f"models/{problem['key_id']}") == []
    job = live.service.job(key, problem["job_id"])
    assert (job["status"], job["problem"]["type"]) == ("failed", f"urn:recsys:problem:{code}")
    assert_problem(live.service.recommend(key, "u0"), 409, "model-not-ready")
    assert live.service.models(key) == {"current_version": None, "models": []}
    described = live.service.client.get("/v1/key", headers=with_key(key)).json()
    assert described["expires_at"] is not None, "a key without a model must expire"
    return problem


def test_failed_retraining_leaves_the_model_unchanged(live: Live) -> None:
    before = live.service.items(live.key, "u0")
    files = live.service.files(f"models/{live.key_id}")
    problem = assert_problem(live.service.train(HEADER, key=live.key), 422, "no-rows")
    assert problem["api_key"] is None
    assert live.service.items(live.key, "u0") == before
    assert live.service.files(f"models/{live.key_id}") == files


def gzip_that_unpacks_to_20_gb(row: bytes) -> bytes:
    """Return a gzip file that repeats one member, because concatenated members are a valid gzip file."""
    member_bytes = 64 * 1024**2
    member = gzip.compress(row * (member_bytes // len(row)), 9)
    return gzip.compress(HEADER) + member * (20 * 10**9 // member_bytes)


@pytest.mark.parametrize(
    ("row", "code"), [(b"1,2\n", "suspicious-compression"), (bytes(1024), "not-a-csv")], ids=["rows", "zeros"]
)
@pytest.mark.timeout(400)
def test_gzip_bomb_of_20_gb_is_rejected_in_bounded_memory(live: Live, row: bytes, code: str) -> None:
    bomb = gzip_that_unpacks_to_20_gb(row)
    assert len(bomb) < 22 * 10**6
    largest_rss_bytes = 0
    with ThreadPoolExecutor(1) as threads:
        response = threads.submit(live.service.train, bomb, wait_s=300)

        def look() -> bool:
            nonlocal largest_rss_bytes
            largest_rss_bytes = max(largest_rss_bytes, live.service.rss_bytes())
            return response.done()

        eventually(look, "the training did not end", timeout_s=330)
    problem = assert_problem(response.result(), 422, code)
    live.secrets.append(problem["api_key"])
    assert largest_rss_bytes < MAX_RSS_BYTES
    assert live.service.files(f"models/{problem['key_id']}") == []
    assert live.service.files(".tmp") == []
    assert not list((live.service.data_dir / ".scratch").rglob("recsys-train-*"))


def test_command_line_reports_the_error_although_the_csv_reader_reads_ahead(tmp_path: Path) -> None:
    """The CSV parser reads ahead in a thread, which aborted the interpreter during its shutdown."""
    (tmp_path / "zeros.csv.gz").write_bytes(gzip_that_unpacks_to_20_gb(bytes(1024)))
    ended = subprocess.run(
        [RECSYS, "train", "zeros.csv.gz", "--out", "model"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith("→ "), ended.stderr
    assert not (tmp_path / "model").exists()


def test_empty_file_sent_to_an_upload_form_fails_its_job(live: Live) -> None:
    offer = live.service.client.post("/v1/uploads").json()
    live.secrets.append(offer["api_key"])
    sent = live.service.client.post(offer["url"], data=offer["fields"], files=multipart(b""))
    assert sent.status_code == 204
    job = live.service.finished_job(offer["api_key"], offer["job_id"])
    assert (job["status"], job["problem"]["type"]) == ("failed", "urn:recsys:problem:empty-file")


def test_unannounced_upload_is_rejected_and_stores_nothing(live: Live) -> None:
    before = live.service.files(".")
    for name in ("uploads/0123456789012345678901.csv", "models/x/y/model.h5", "inbox/new.csv", "../../etc/passwd"):
        sent = live.service.client.post("/local/uploads", data={"name": name}, files=multipart(CSV))
        assert_problem(sent, 404, "job-not-found")
    assert live.service.files(".") == before


# -- keys


def unknown_key(live: Live) -> str:
    return str(ApiKey.mint())


def wrong_secret(live: Live) -> str:
    return str(ApiKey.mint(live.key_id))


def truncated_key(live: Live) -> str:
    return live.key[:-1]


def mistyped_key(live: Live) -> str:
    return live.key[:-8] + ("a" if live.key[-8] != "a" else "b") + live.key[-7:]


def revoked_key(live: Live) -> str:
    return live.revoked_key


def blank_key(live: Live) -> str:
    return ""


def bearer_token(live: Live) -> str:
    return "Bearer 1234"


BAD_KEYS = [unknown_key, wrong_secret, truncated_key, mistyped_key, revoked_key, blank_key, bearer_token]
ROUTES = [
    ("POST", "/v1/recommendations", {"user_id": "u0"}),
    ("GET", "/v1/jobs/0123456789012345678901", None),
    ("GET", "/v1/models", None),
    ("GET", "/v1/key", None),
    ("POST", "/v1/key/rotate", None),
    ("DELETE", "/v1/key", None),
    ("POST", "/v1/uploads", None),
]


@pytest.mark.parametrize("bad_key", BAD_KEYS)
@pytest.mark.parametrize(("method", "path", "body"), ROUTES)
def test_invalid_key_is_rejected_by_every_route(live: Live, bad_key: Any, method: str, path: str, body: Any) -> None:
    response = live.service.client.request(method, path, json=body, headers=with_key(bad_key(live)))
    assert_problem(response, 401, "invalid-api-key")
    assert "WWW-Authenticate" in response.headers


@pytest.mark.parametrize("bad_key", BAD_KEYS)
def test_training_with_an_invalid_key_stores_nothing(live: Live, bad_key: Any) -> None:
    before = live.service.files(".")
    assert_problem(live.service.train(CSV, key=bad_key(live)), 401, "invalid-api-key")
    assert live.service.files(".") == before


def test_recommendations_need_a_key(live: Live) -> None:
    assert_problem(live.service.recommend(None, "u0"), 401, "invalid-api-key")


def test_problem_about_a_key_does_not_contain_the_key(live: Live) -> None:
    for bad_key in (unknown_key, wrong_secret, truncated_key, mistyped_key, revoked_key):
        sent = bad_key(live)
        assert sent.rpartition("_")[2][:20] not in live.service.recommend(sent, "u0").text


def test_unknown_claim_token_is_gone(live: Live) -> None:
    response = live.service.client.post("/v1/key/claim", json={"claim_token": "ct_never-issued"})
    assert_problem(response, 410, "claim-gone")


# -- recommendations


@pytest.mark.parametrize("n", [0, -1, 10**9, 1.5, "10", None, True])
def test_invalid_n_is_rejected_with_its_pointer(live: Live, n: Any) -> None:
    problem = assert_problem(live.service.recommend(live.key, "u0", n=n), 422, "invalid-request")
    assert problem["errors"][0]["pointer"] == "/n"
    assert problem["errors"][0]["detail"]


@pytest.mark.parametrize("n", [0, -1, 10**9])
def test_problem_of_an_n_out_of_bounds_names_the_bounds(live: Live, n: int) -> None:
    problem = assert_problem(live.service.recommend(live.key, "u0", n=n), 422, "invalid-request")
    assert re.search(r"1000|1\b", problem["errors"][0]["detail"])


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({"user_id": "u0", "limit": 5}, "/limit"),
        ({"user_id": "u0", "a/b": 5}, "/a~1b"),
        ({"user_id": 17}, "/user_id"),
        ({"user_id": ""}, "/user_id"),
        ({}, "/user_id"),
        ({"user_id": "u0", "exclude_items": "i1"}, "/exclude_items"),
        ({"user_id": "u0", "exclude_seen": "yes"}, "/exclude_seen"),
    ],
)
def test_unknown_or_invalid_field_is_named_by_its_pointer(live: Live, body: Any, pointer: str) -> None:
    response = live.service.client.post("/v1/recommendations", json=body, headers=with_key(live.key))
    assert assert_problem(response, 422, "invalid-request")["errors"][0]["pointer"] == pointer


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"null", b'"u0"'])
def test_body_that_is_not_a_json_object_is_rejected(live: Live, content: bytes) -> None:
    headers = {**with_key(live.key), "Content-Type": "application/json"}
    response = live.service.client.post("/v1/recommendations", content=content, headers=headers)
    assert_problem(response, 422, "invalid-request")


def test_unknown_user_gets_popular_items(live: Live) -> None:
    response = live.service.recommend(live.key, "unknown user")
    assert (response.status_code, response.json()["strategy"], len(response.json()["items"])) == (200, "popular", 10)


def test_key_without_a_model_is_told_when_to_retry(live: Live) -> None:
    response = live.service.recommend(live.queued_key, "u0")
    assert_problem(response, 409, "model-not-ready")
    assert int(response.headers["retry-after"]) > 0


# -- jobs, versions and paths


@pytest.mark.parametrize("job_id", ["0123456789012345678901", "short", "..%2F..%2Fetc", "x" * 500])
def test_unknown_job_is_not_found(live: Live, job_id: str) -> None:
    response = live.service.client.get(f"/v1/jobs/{job_id}", headers=with_key(live.key))
    assert response.json()["type"] in ("urn:recsys:problem:job-not-found", "urn:recsys:problem:not-found")
    assert_problem(response, 404, response.json()["type"].rpartition(":")[2])


@pytest.mark.parametrize("version", ["0123456789012345678901.1", "latest", "..", "x" * 500])
def test_unknown_version_cannot_be_activated(live: Live, version: str) -> None:
    response = live.service.client.post(f"/v1/models/{version}/activate", headers=with_key(live.key))
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"


def test_unknown_path_is_not_found(live: Live) -> None:
    assert_problem(live.service.client.get("/v1/nothing"), 404, "not-found")


def test_wrong_method_gets_405_with_the_allowed_methods(live: Live) -> None:
    response = live.service.client.get("/v1/train")
    assert response.status_code == 405
    assert response.headers["allow"] == "OPTIONS, POST"
    assert response.headers["content-type"] == "application/problem+json"


# -- the service afterwards


def test_service_is_ready_after_all_invalid_requests(live: Live) -> None:
    assert live.service.client.get("/health/ready").status_code == 200
    assert live.service.items(live.key, "u0")
    assert "Traceback" not in live.service.output()
    assert "Starting it again" not in live.service.output(), "the worker ended"


def test_no_key_or_token_is_in_the_output_or_in_any_file(live: Live) -> None:
    """Search for every key of this module and for one claim token, which may only occur in its receipt."""
    (live.service.data_dir / "inbox" / "canary.csv").write_bytes(CSV)
    receipt = live.service.data_dir / "receipts" / "canary.json"
    eventually(receipt.exists, "there is no receipt", timeout_s=120)
    token = json.loads(receipt.read_text())["claim_token"]
    live.service.client.post("/v1/key/claim", json={"claim_token": token + "x"})
    rotated = live.service.client.post("/v1/key/rotate", headers=with_key(live.key)).json()["api_key"]
    live.service.client.get(f"/v1/jobs/{rotated}", headers=with_key(rotated))
    live.service.client.get(f"/v1/{token}")
    content_by_path = {path: path.read_bytes() for path in files_of(live.service)}
    assert len(live.secrets) > 2
    for secret in [*live.secrets, rotated]:
        canary = secret.rpartition("_")[2][:28].encode()  # without the checksum, which can be computed
        assert [str(path) for path, content in content_by_path.items() if canary in content] == []
    assert [path for path, content in content_by_path.items() if token.encode() in content] == [receipt]


def files_of(service: LiveService) -> list[Path]:
    return [service.log, *(path for path in service.data_dir.rglob("*") if path.is_file())]
