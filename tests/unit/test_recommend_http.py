"""POST /v1/recommendations. The model is the one of `http_fakes.publish`: logits 3, 2, 1, 0 for A, B, C, D."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest

from recsys.keys.api_key import ApiKey
from recsys.model import recommender
from recsys.objects import layout
from recsys.objects.files import FileObjectStore
from tests.unit.http_fakes import Service, assert_problem, eventually, publish, running


def items(service: Service, key: ApiKey, user_id: str, **body: object) -> list[str]:
    response = service.client.recommend(str(key), user_id, **body)
    assert response.status_code == 200, response.text
    return [item["item_id"] for item in response.json()["items"]]


def test_known_user_gets_unseen_items_by_score(service: Service) -> None:
    key = service.published_key()

    body = service.client.recommend(str(key), "u1", n=2).json()

    version = service.registry.get_key(key.key_id).current_version
    assert body == {
        "user_id": "u1",
        "strategy": "personal",
        "model_version": version,
        "items": [
            {"item_id": "B", "rank": 1, "score": pytest.approx(1 / (1 + math.exp(-2)))},
            {"item_id": "C", "rank": 2, "score": pytest.approx(1 / (1 + math.exp(-1)))},
        ],
    }


def test_unknown_user_gets_popular_items(service: Service) -> None:
    body = service.client.recommend(str(service.published_key()), "unknown").json()

    assert body["strategy"] == "popular"
    assert [(item["item_id"], item["score"]) for item in body["items"]] == [
        ("C", 1.0),
        ("A", 0.5),
        ("B", 0.5),
        ("D", 0.0),
    ]


def test_unknown_user_with_recent_items_gets_session_recommendations(service: Service) -> None:
    body = service.client.recommend_for(
        str(service.published_key()), user_id="unknown", recent_items=["no such item", "A"]
    )

    assert (body.json()["user_id"], body.json()["strategy"]) == ("unknown", "session")
    assert [item["item_id"] for item in body.json()["items"]] == ["B", "C", "D"]


@pytest.mark.parametrize("no_user", [{}, {"user_id": None}])
def test_basket_needs_no_user(service: Service, no_user: dict[str, None]) -> None:
    body = service.client.recommend_for(str(service.published_key()), recent_items=["B"], n=2, **no_user).json()

    assert (body["user_id"], body["strategy"]) == (None, "session")
    assert [item["item_id"] for item in body["items"]] == ["A", "C"]


def test_unknown_recent_items_give_popular_items(service: Service) -> None:
    body = service.client.recommend_for(str(service.published_key()), recent_items=["no such item"]).json()

    assert (body["strategy"], body["items"][0]["item_id"]) == ("popular", "C")


def test_recent_items_of_a_known_user_are_not_recommended(service: Service) -> None:
    body = service.client.recommend_for(str(service.published_key()), user_id="u1", recent_items=["B"]).json()

    assert body["strategy"] == "personal"
    assert [item["item_id"] for item in body["items"]] == ["C", "D"]


def test_request_without_user_and_items_is_referred_to_popular_items(service: Service) -> None:
    document = assert_problem(service.client.recommend_for(str(service.published_key())), 422, "invalid-request")

    assert "GET /v1/popular" in document["hint"]
    assert document["errors"][0]["pointer"] == "/user_id"


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [(["D", "B"], ["B", "D"]), (["D", "no such item", "D"], ["D"]), (["A"], []), ([], []), (None, ["B", "C", "D"])],
)
def test_only_candidates_are_ranked(service: Service, candidates: list[str] | None, expected: list[str]) -> None:
    assert items(service, service.published_key(), "u1", candidates=candidates) == expected


def test_candidates_of_an_unknown_user_are_ranked_by_popularity(service: Service) -> None:
    assert items(service, service.published_key(), "unknown", candidates=["D", "B", "C"]) == ["C", "B", "D"]


def test_maximum_numbers_of_recent_items_and_candidates_are_accepted(service: Service) -> None:
    key = service.published_key()

    assert items(service, key, "unknown", recent_items=["A"] * 200, candidates=["C"] * 10_000) == ["C"]


def test_seen_items_are_included_on_request(service: Service) -> None:
    assert items(service, service.published_key(), "u1", exclude_seen=False) == ["A", "B", "C", "D"]


def test_excluded_items_are_left_out_and_unknown_ones_ignored(service: Service) -> None:
    assert items(service, service.published_key(), "u1", exclude_items=["C", "no such item"]) == ["B", "D"]


def test_n_above_the_number_of_items_returns_all(service: Service) -> None:
    assert items(service, service.published_key(), "u2", n=1000) == ["A", "D"]


def test_excluding_every_item_gives_an_empty_list(service: Service) -> None:
    assert items(service, service.published_key(), "u1", exclude_items=["B", "C", "D"]) == []


def test_default_n_returns_all_of_four_items(service: Service) -> None:
    assert len(items(service, service.published_key(), "unknown")) == 4


@pytest.mark.parametrize("n", [0, -1, 1001, 10**9, 10**400, "5", 1.5, True, None, [1]])
def test_n_that_is_not_an_integer_from_1_to_1000_is_rejected(service: Service, n: object) -> None:
    document = assert_problem(service.client.recommend(str(service.published_key()), n=n), 422, "invalid-request")

    assert document["errors"][0]["pointer"] == "/n"


@pytest.mark.parametrize("n", [1, 1000])
def test_n_at_its_limits_is_accepted(service: Service, n: int) -> None:
    assert service.client.recommend(str(service.published_key()), n=n).status_code == 200


def test_numeric_user_id_gets_a_hint_to_send_a_string(service: Service) -> None:
    response = service.client.post("/v1/recommendations", str(service.published_key()), json={"user_id": 17850})

    document = assert_problem(response, 422, "invalid-request")
    assert '"17850", not 17850' in document["hint"]
    assert document["errors"] == [
        {"pointer": "/user_id", "code": "string_type", "detail": "Input should be a valid string. Received: 17850"}
    ]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/user_id"),
        ({"recent_items": []}, "/user_id"),
        ({"user_id": "u1", "recent_items": "A"}, "/recent_items"),
        ({"user_id": "u1", "recent_items": [1]}, "/recent_items/0"),
        ({"user_id": "u1", "recent_items": ["A"] * 201}, "/recent_items"),
        ({"user_id": "u1", "candidates": ["A"] * 10_001}, "/candidates"),
        ({"user_id": ""}, "/user_id"),
        ({"user_id": None}, "/user_id"),
        ({"user_id": "u1", "top": 5}, "/top"),
        ({"user_id": "u1", "exclude_seen": "yes"}, "/exclude_seen"),
        ({"user_id": "u1", "exclude_items": "A"}, "/exclude_items"),
        ({"user_id": "u1", "exclude_items": [1]}, "/exclude_items/0"),
        ({"user_id": "u1", "exclude_items": ["x"] * 10_001}, "/exclude_items"),
        ([{"user_id": "u1"}], ""),
    ],
)
def test_invalid_request_is_located(service: Service, body: object, pointer: str) -> None:
    response = service.client.post("/v1/recommendations", str(service.published_key()), json=body)

    assert assert_problem(response, 422, "invalid-request")["errors"][0]["pointer"] == pointer


def test_maximum_number_of_excluded_items_is_accepted(service: Service) -> None:
    assert items(service, service.published_key(), "u1", exclude_items=["B"] * 10_000) == ["C", "D"]


@pytest.mark.parametrize("key", [None, "", "rk_cut", str(ApiKey.derive("unknown"))])
def test_request_without_a_valid_key_is_rejected(service: Service, key: str | None) -> None:
    assert_problem(service.client.recommend(key), 401, "invalid-api-key")


def test_invalid_key_is_reported_before_an_invalid_body(service: Service) -> None:
    assert_problem(service.client.recommend(str(ApiKey.mint()), n=0), 401, "invalid-api-key")


def test_key_without_a_model_gets_a_retry_after_header(service: Service) -> None:
    response = service.client.recommend(str(service.new_key()))

    assert "GET /v1/jobs" in assert_problem(response, 409, "model-not-ready")["hint"]
    assert response.headers["retry-after"] == "5"


def test_first_model_serves_as_soon_as_it_is_published(service: Service) -> None:
    key = service.new_key()
    assert service.client.recommend(str(key)).status_code == 409

    publish(service.registry, service.store, key.key_id, service.folder / "m", service.now)

    assert service.client.recommend(str(key)).status_code == 200


def test_revoked_key_works_until_its_cached_record_expires(tmp_path: Path) -> None:
    with running(tmp_path, key_cache_s=4.0) as service:
        key = str(service.published_key())
        assert service.client.recommend(key).status_code == 200
        service.client.delete("/v1/key", key)

        service.now.move(3.9)
        assert service.client.recommend(key).status_code == 200
        service.now.move(0.1)
        assert_problem(service.client.recommend(key), 401, "invalid-api-key")


def test_activated_version_serves_after_the_cached_record_expires(service: Service) -> None:
    key = service.new_key()
    first = publish(service.registry, service.store, key.key_id, service.folder / "1", service.now)
    second = publish(service.registry, service.store, key.key_id, service.folder / "2", service.now)
    assert service.client.recommend(str(key)).json()["model_version"] == second.version

    service.client.post(f"/v1/models/{first.version}/activate", str(key))
    service.now.move(4)

    assert service.client.recommend(str(key)).json()["model_version"] == second.version, (
        "A request waited for the load."
    )
    eventually(partial(is_served_by, service, key, first.version))


def test_keys_get_their_own_models(service: Service) -> None:
    keys = [service.published_key(version_name=name) for name in ("1", "2")]

    versions = [service.client.recommend(str(key)).json()["model_version"] for key in keys]

    assert versions == [service.registry.get_key(key.key_id).current_version for key in keys]


def test_damaged_model_is_unavailable_with_a_hint(service: Service) -> None:
    key = service.published_key()
    damage(service, key)

    response = service.client.recommend(str(key))

    assert "activate" in assert_problem(response, 503, "artifact-damaged")["hint"]
    assert response.headers["retry-after"]
    assert service.counted == ["ModelFailed"]


def test_previous_version_serves_while_the_current_one_is_damaged(service: Service) -> None:
    key = service.new_key()
    first = publish(service.registry, service.store, key.key_id, service.folder / "1", service.now)
    service.client.recommend(str(key))
    publish(service.registry, service.store, key.key_id, service.folder / "2", service.now)
    damage(service, key)
    service.now.move(4)

    for _ in range(2):
        response = service.client.recommend(str(key))
        assert (response.status_code, response.json()["model_version"]) == (200, first.version)
        eventually(lambda: service.counted == ["ModelLoaded", "ModelFailed"])


def test_model_is_read_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(service.published_key())
    service.client.recommend(key)

    def fail(*_: object) -> bytes:
        raise AssertionError("The model was read again.")

    monkeypatch.setattr(FileObjectStore, "read", fail)

    assert service.client.recommend(key).status_code == 200


def is_served_by(service: Service, key: ApiKey, version: str) -> bool:
    return bool(service.client.recommend(str(key)).json()["model_version"] == version)


def damage(service: Service, key: ApiKey) -> None:
    """Flip a bit in the serving file of the key's current version."""
    version = service.registry.get_key(key.key_id).current_version
    assert version is not None
    name = layout.model_prefix(key.key_id, version) + "serving.npz"
    content = bytearray(service.store.read(name))
    content[len(content) // 2] ^= 1
    service.store.replace(name, bytes(content))


# -- cached responses


def test_cached_response_is_served_without_the_model(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(service.published_key())
    first = service.client.recommend(key, "u1", n=2)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("The response was computed again.")

    monkeypatch.setattr(recommender, "recommend", fail)

    again = service.client.recommend(key, "u1", n=2)
    assert (again.content, again.headers["content-type"]) == (first.content, first.headers["content-type"])
    assert service.client.recommend(key, "u1", n=3).status_code == 500


def test_revoked_key_gets_no_cached_response(tmp_path: Path) -> None:
    with running(tmp_path, key_cache_s=4.0) as service:
        key = str(service.published_key())
        assert service.client.recommend(key).status_code == 200
        service.client.delete("/v1/key", key)
        service.now.move(4)

        assert_problem(service.client.recommend(key), 401, "invalid-api-key")


def test_cached_response_of_the_previous_version_is_not_served(service: Service) -> None:
    key = service.new_key()
    for folder in ("1", "2"):
        version = publish(service.registry, service.store, key.key_id, service.folder / folder, service.now)
        service.now.move(4)
        eventually(partial(is_served_by, service, key, version.version))


def test_cached_response_is_not_served_to_another_key(service: Service) -> None:
    keys = [service.published_key(version_name=name) for name in ("1", "2")]

    for _ in range(2):
        versions = [service.client.recommend(str(key)).json()["model_version"] for key in keys]
        assert versions == [service.registry.get_key(key.key_id).current_version for key in keys]
