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


def test_a_known_user_gets_what_they_did_not_have_by_the_model_s_score(service: Service) -> None:
    key = service.published_key()

    answer = service.client.recommend(str(key), "u1", n=2).json()

    version = service.registry.get_key(key.key_id).current_version
    assert answer == {
        "user_id": "u1",
        "strategy": "personal",
        "model_version": version,
        "items": [
            {"item_id": "B", "rank": 1, "score": pytest.approx(1 / (1 + math.exp(-2)))},
            {"item_id": "C", "rank": 2, "score": pytest.approx(1 / (1 + math.exp(-1)))},
        ],
    }


def test_an_unknown_user_gets_the_popular_items(service: Service) -> None:
    answer = service.client.recommend(str(service.published_key()), "nobody").json()

    assert answer["strategy"] == "popular"
    assert [(item["item_id"], item["score"]) for item in answer["items"]] == [
        ("C", 1.0),
        ("A", 0.5),
        ("B", 0.5),
        ("D", 0.0),
    ]


def test_an_unknown_user_with_items_that_are_known_gets_what_goes_with_them(service: Service) -> None:
    answer = service.client.ask(str(service.published_key()), user_id="nobody", recent_items=["no such item", "A"])

    assert (answer.json()["user_id"], answer.json()["strategy"]) == ("nobody", "session")
    assert [item["item_id"] for item in answer.json()["items"]] == ["B", "C", "D"]


@pytest.mark.parametrize("nobody", [{}, {"user_id": None}])
def test_a_basket_needs_no_user(service: Service, nobody: dict[str, None]) -> None:
    answer = service.client.ask(str(service.published_key()), recent_items=["B"], n=2, **nobody).json()

    assert (answer["user_id"], answer["strategy"]) == (None, "session")
    assert [item["item_id"] for item in answer["items"]] == ["A", "C"]


def test_items_that_are_all_unknown_say_nothing_of_anybody(service: Service) -> None:
    answer = service.client.ask(str(service.published_key()), recent_items=["no such item"]).json()

    assert (answer["strategy"], answer["items"][0]["item_id"]) == ("popular", "C")


def test_what_a_known_user_had_since_is_not_recommended_again(service: Service) -> None:
    answer = service.client.ask(str(service.published_key()), user_id="u1", recent_items=["B"]).json()

    assert answer["strategy"] == "personal"
    assert [item["item_id"] for item in answer["items"]] == ["C", "D"]


def test_neither_a_user_nor_items_is_told_where_nobody_can_ask(service: Service) -> None:
    document = assert_problem(service.client.ask(str(service.published_key())), 422, "invalid-request")

    assert "GET /v1/popular" in document["hint"]
    assert document["errors"][0]["pointer"] == "/user_id"


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [(["D", "B"], ["B", "D"]), (["D", "no such item", "D"], ["D"]), (["A"], []), ([], []), (None, ["B", "C", "D"])],
)
def test_only_candidates_are_ranked(service: Service, candidates: list[str] | None, expected: list[str]) -> None:
    assert items(service, service.published_key(), "u1", candidates=candidates) == expected


def test_candidates_of_somebody_unknown_are_ranked_by_popularity(service: Service) -> None:
    assert items(service, service.published_key(), "nobody", candidates=["D", "B", "C"]) == ["C", "B", "D"]


def test_two_hundred_recent_items_and_ten_thousand_candidates_are_taken(service: Service) -> None:
    key = service.published_key()

    assert items(service, key, "nobody", recent_items=["A"] * 200, candidates=["C"] * 10_000) == ["C"]


def test_seen_items_come_back_when_they_are_asked_for(service: Service) -> None:
    assert items(service, service.published_key(), "u1", exclude_seen=False) == ["A", "B", "C", "D"]


def test_excluded_items_are_left_out_and_unknown_ones_passed_over(service: Service) -> None:
    assert items(service, service.published_key(), "u1", exclude_items=["C", "no such item"]) == ["B", "D"]


def test_more_items_than_there_are_gives_all(service: Service) -> None:
    assert items(service, service.published_key(), "u2", n=1000) == ["A", "D"]


def test_everything_excluded_gives_an_empty_list(service: Service) -> None:
    assert items(service, service.published_key(), "u1", exclude_items=["B", "C", "D"]) == []


def test_ten_items_unless_said_otherwise(service: Service) -> None:
    assert len(items(service, service.published_key(), "nobody")) == 4


@pytest.mark.parametrize("n", [0, -1, 1001, 10**9, 10**400, "5", 1.0, 1.5, True, None, [1]])
def test_n_is_a_whole_number_from_1_to_1000(service: Service, n: object) -> None:
    document = assert_problem(service.client.recommend(str(service.published_key()), n=n), 422, "invalid-request")

    assert document["errors"][0]["pointer"] == "/n"


@pytest.mark.parametrize("n", [1, 1000])
def test_n_may_be_its_limits(service: Service, n: int) -> None:
    assert service.client.recommend(str(service.published_key()), n=n).status_code == 200


def test_a_number_for_a_user_gets_told_to_send_text(service: Service) -> None:
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
def test_a_request_of_another_shape_is_pointed_at(service: Service, body: object, pointer: str) -> None:
    response = service.client.post("/v1/recommendations", str(service.published_key()), json=body)

    assert assert_problem(response, 422, "invalid-request")["errors"][0]["pointer"] == pointer


def test_ten_thousand_items_may_be_excluded(service: Service) -> None:
    assert items(service, service.published_key(), "u1", exclude_items=["B"] * 10_000) == ["C", "D"]


@pytest.mark.parametrize("key", [None, "", "rk_cut", str(ApiKey.derive("unknown"))])
def test_without_a_key_that_is_known_there_is_no_answer(service: Service, key: str | None) -> None:
    assert_problem(service.client.recommend(key), 401, "invalid-api-key")


def test_a_wrong_key_is_told_before_a_wrong_body(service: Service) -> None:
    assert_problem(service.client.recommend(str(ApiKey.mint()), n=0), 401, "invalid-api-key")


def test_a_key_without_a_model_is_told_to_wait(service: Service) -> None:
    response = service.client.recommend(str(service.new_key()))

    assert "GET /v1/jobs" in assert_problem(response, 409, "model-not-ready")["hint"]
    assert response.headers["retry-after"] == "5"


def test_the_first_model_answers_the_moment_it_is_published(service: Service) -> None:
    key = service.new_key()
    assert service.client.recommend(str(key)).status_code == 409

    publish(service.registry, service.store, key.key_id, service.folder / "m", service.now)

    assert service.client.recommend(str(key)).status_code == 200


def test_a_revoked_key_works_for_as_long_as_records_are_cached_and_no_longer(tmp_path: Path) -> None:
    with running(tmp_path, key_cache_s=4.0) as service:
        key = str(service.published_key())
        assert service.client.recommend(key).status_code == 200
        service.client.delete("/v1/key", key)

        service.now.move(3.9)
        assert service.client.recommend(key).status_code == 200
        service.now.move(0.1)
        assert_problem(service.client.recommend(key), 401, "invalid-api-key")


def test_an_activated_version_answers_when_the_cached_record_is_over(service: Service) -> None:
    key = service.new_key()
    first = publish(service.registry, service.store, key.key_id, service.folder / "1", service.now)
    second = publish(service.registry, service.store, key.key_id, service.folder / "2", service.now)
    assert service.client.recommend(str(key)).json()["model_version"] == second.version

    service.client.post(f"/v1/models/{first.version}/activate", str(key))
    service.now.move(4)

    assert service.client.recommend(str(key)).json()["model_version"] == second.version, "nobody waits for the load"
    eventually(partial(answers_from, service, key, first.version))


def test_one_key_never_gets_the_model_of_another(service: Service) -> None:
    keys = [service.published_key(version_name=name) for name in ("1", "2")]

    versions = [service.client.recommend(str(key)).json()["model_version"] for key in keys]

    assert versions == [service.registry.get_key(key.key_id).current_version for key in keys]


def test_a_damaged_model_is_unavailable_with_the_mend(service: Service) -> None:
    key = service.published_key()
    damage(service, key)

    response = service.client.recommend(str(key))

    assert "activate" in assert_problem(response, 503, "artifact-damaged")["hint"]
    assert response.headers["retry-after"]
    assert service.counted == ["ModelFailed"]


def test_while_a_new_version_is_damaged_the_one_before_answers(service: Service) -> None:
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


def test_a_model_is_read_once(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    key = str(service.published_key())
    service.client.recommend(key)

    def fail(*_: object) -> bytes:
        raise AssertionError("read again")

    monkeypatch.setattr(FileObjectStore, "read", fail)

    assert service.client.recommend(key).status_code == 200


def answers_from(service: Service, key: ApiKey, version: str) -> bool:
    return bool(service.client.recommend(str(key)).json()["model_version"] == version)


def damage(service: Service, key: ApiKey) -> None:
    """Flip a bit of what serving reads of the key's current version."""
    version = service.registry.get_key(key.key_id).current_version
    assert version is not None
    name = layout.model_prefix(key.key_id, version) + "serving.npz"
    content = bytearray(service.store.read(name))
    content[len(content) // 2] ^= 1
    service.store.replace(name, bytes(content))


# -- answers that were given before


def test_an_answer_that_was_given_before_is_given_again_without_the_model(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = str(service.published_key())
    first = service.client.recommend(key, "u1", n=2)

    def fail(*_: object, **__: object) -> None:
        raise AssertionError("made again")

    monkeypatch.setattr(recommender, "recommend", fail)

    again = service.client.recommend(key, "u1", n=2)
    assert (again.content, again.headers["content-type"]) == (first.content, first.headers["content-type"])
    assert service.client.recommend(key, "u1", n=3).status_code == 500


def test_a_revoked_key_gets_no_answer_that_was_given_before(tmp_path: Path) -> None:
    with running(tmp_path, key_cache_s=4.0) as service:
        key = str(service.published_key())
        assert service.client.recommend(key).status_code == 200
        service.client.delete("/v1/key", key)
        service.now.move(4)

        assert_problem(service.client.recommend(key), 401, "invalid-api-key")


def test_an_answer_of_the_version_before_is_not_given_again(service: Service) -> None:
    key = service.new_key()
    for folder in ("1", "2"):
        version = publish(service.registry, service.store, key.key_id, service.folder / folder, service.now)
        service.now.move(4)
        eventually(partial(answers_from, service, key, version.version))


def test_one_key_never_gets_an_answer_of_another(service: Service) -> None:
    keys = [service.published_key(version_name=name) for name in ("1", "2")]

    for _ in range(2):
        versions = [service.client.recommend(str(key)).json()["model_version"] for key in keys]
        assert versions == [service.registry.get_key(key.key_id).current_version for key in keys]
