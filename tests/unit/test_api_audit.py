"""`GET /v1/audit`: the audit log of the key that sends the request."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.http_fakes import Service, assert_problem, running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as service:
        yield service


def test_the_log_is_returned_newest_first(service: Service) -> None:
    key = service.published_key()
    service.now.move(1)
    created = service.client.post("/v1/keys", str(key), json={"name": "page", "scope": "recommend"}).json()
    body = service.client.get("/v1/audit", str(key)).json()
    assert [event["event"] for event in body["events"]] == ["scoped_key.created", "version.published", "key.created"]
    assert body["events"][0] == {
        "at": service.now.timestamp,
        "event": "scoped_key.created",
        "detail": {"scoped_key_id": created["scoped_key_id"], "name": "page", "scope": "recommend"},
    }
    assert body["next"] is None


def test_the_log_is_read_page_by_page(service: Service) -> None:
    key = service.published_key()
    first = service.client.get("/v1/audit?limit=1", str(key)).json()
    second = service.client.get(f"/v1/audit?limit=1&cursor={first['next']}", str(key)).json()
    assert [page["events"][0]["event"] for page in (first, second)] == ["version.published", "key.created"]
    assert second["next"] is None


def test_a_key_sees_only_its_own_log(service: Service) -> None:
    service.published_key()
    other = service.new_key()
    assert [event["event"] for event in service.client.get("/v1/audit", str(other)).json()["events"]] == ["key.created"]


@pytest.mark.parametrize("query", ["limit=0", "limit=201", "limit=x", "cursor=", "cursor=2026", "cursor=AUDIT%23x"])
def test_an_invalid_query_is_rejected(service: Service, query: str) -> None:
    assert_problem(service.client.get(f"/v1/audit?{query}", str(service.new_key())), 422, "invalid-request")


def test_a_rotated_out_key_cannot_read_the_log(service: Service) -> None:
    key = service.new_key()
    service.client.post("/v1/key/rotate", str(key), json={"overlap_s": 60})
    assert_problem(service.client.get("/v1/audit", str(key)), 401, "invalid-api-key")


def test_no_secret_is_in_the_log(service: Service) -> None:
    key = service.new_key()
    rotated = service.client.post("/v1/key/rotate", str(key), json={"overlap_s": 0}).json()["api_key"]
    text = service.client.get("/v1/audit", rotated).text
    assert key.secret not in text
    assert rotated not in text
