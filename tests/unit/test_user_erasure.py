"""Erased users: answered like unknown ones at once, in every route, and named in no log line."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import quote

import pytest

from recsys.registry.erasures import Erasures
from tests.unit.http_fakes import Service, assert_problem, key_header


def erase(service: Service, key: object, user_id: str) -> Any:
    return service.client.request("DELETE", f"/v1/users/{quote(user_id, safe='')}", headers=key_header(str(key)))


def without_user(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "user_id"}


def wait_for_cached_key(service: Service) -> None:
    service.now.move(10)


def test_an_erased_user_is_answered_like_an_unknown_one(service: Service) -> None:
    key = service.published_key()
    options: list[dict[str, Any]] = [{}, {"recent_items": ["B"]}, {"exclude_seen": False}, {"candidates": ["A", "D"]}]
    options += [{"explain": True}, {"explain": True, "recent_items": ["B"]}]
    before = [service.client.recommend_for(str(key), user_id="u1", **each).json() for each in options]
    assert before[0]["strategy"] == "personal"

    response = erase(service, key, "u1")

    assert response.status_code == 200
    assert response.json() == {"user_id": "u1", "erased_at": service.now.timestamp}
    wait_for_cached_key(service)
    for each in options:
        erased = service.client.recommend_for(str(key), user_id="u1", **each).json()
        unknown = service.client.recommend_for(str(key), user_id="unknown", **each).json()
        assert (erased["user_id"], without_user(erased)) == ("u1", without_user(unknown))
    assert service.client.recommend_for(str(key), user_id="u2").json()["strategy"] == "personal"


def test_a_batch_answers_an_erased_user_like_an_unknown_one(service: Service) -> None:
    key = service.published_key()
    erase(service, key, "u1")
    wait_for_cached_key(service)
    requests = [{"user_id": user_id} for user_id in ("u1", "unknown", "u2")]
    response = service.client.post("/v1/recommendations/batch", str(key), json={"requests": requests})
    erased, unknown, other = response.json()["results"]
    assert (erased["user_id"], without_user(erased)) == ("u1", without_user(unknown))
    assert other["strategy"] == "personal"


@pytest.mark.parametrize("user_id", ["shop/user 1", "50% off", "a%2Fb", "日本 ü+é", "/", "?what=#"])
def test_any_id_can_be_erased(service: Service, user_id: str) -> None:
    key = service.published_key()
    assert erase(service, key, user_id).json()["user_id"] == user_id
    stored = Erasures.parse(service.registry.get_key(key.key_id).erasures)
    assert user_id in stored.unapplied(0)


def test_no_log_line_names_an_erased_user(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "recsys")
    erase(service, service.published_key(), "anna-4711")
    messages = [record.getMessage() for record in caplog.records if record.name == "recsys.http"]
    assert messages == ["DELETE /v1/users/{user_id} 200"]
    assert "anna-4711" not in " ".join(str(vars(record)) for record in caplog.records)


def test_only_the_main_key_may_erase_users(service: Service) -> None:
    main = service.published_key()
    for scope in ("train", "recommend"):
        body = {"name": "page", "scope": scope}
        scoped = service.client.post("/v1/keys", str(main), json=body).json()["api_key"]
        assert_problem(erase(service, scoped, "u1"), 403, "insufficient-scope")
    assert service.registry.get_key(main.key_id).erasures is None


def test_an_erasure_needs_a_user(service: Service) -> None:
    assert_problem(erase(service, service.published_key(), ""), 422, "invalid-request")
