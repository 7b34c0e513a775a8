"""Batches, similar and popular items. The model is that of `http_fakes.publish`: logits 3, 2, 1, 0 for A, B, C, D."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import httpx
import pytest

from recsys.keys.api_key import ApiKey
from recsys.model import batch_ranking
from tests.unit.http_fakes import Service, assert_problem, publish, serving

UNUSUAL_IDS = ["shoes/red/42", "50% off", "a%2Fb", "?what=#", "日本 ü+é", "/", "a//b", "similar", "x/similar"]
LISTS = ["/v1/popular", "/v1/items/A/similar"]


def batch(service: Service, key: ApiKey, *requests: Any, **defaults: Any) -> httpx.Response:
    return service.client.post("/v1/recommendations/batch", str(key), json={"requests": list(requests), **defaults})


def results(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    found: list[Any] = response.json()["results"]
    return found


def item_ids(body: Any) -> list[str]:
    return [item["item_id"] for item in body["items"]]


# -- batches


def test_batch_results_equal_single_results_in_order(service: Service) -> None:
    key = service.published_key()
    requests: list[dict[str, Any]] = [
        {"user_id": "u2"},
        {"user_id": "unknown"},
        {"recent_items": ["B"], "n": 1},
        {"user_id": "u1", "exclude_seen": False, "candidates": ["A", "D"]},
        {"user_id": "u1", "exclude_items": ["B"]},
        {"user_id": "u2"},
    ]

    response = batch(service, key, *requests)

    assert results(response) == [service.client.recommend_for(str(key), **request).json() for request in requests]
    assert response.json()["model_version"] == service.registry.get_key(key.key_id).current_version


def test_default_queries_of_a_batch_are_computed_together(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    key = service.published_key()
    single = [
        service.client.recommend_for(str(key), user_id=user_id, n=2).json() for user_id in ("u1", "unknown", "u2", "u1")
    ]
    monkeypatch.setattr(batch_ranking, "recommend_all", together := _CallCounter(batch_ranking.recommend_all))

    bodies = results(batch(service, key, *({"user_id": body["user_id"]} for body in single), n=2))

    assert bodies == single
    assert together.calls == 1


class _CallCounter:
    def __init__(self, function: Any) -> None:
        self._function = function
        self.calls = 0

    def __call__(self, *arguments: Any, **more: Any) -> Any:
        self.calls += 1
        return self._function(*arguments, **more)


def test_batch_options_are_defaults_for_its_requests(service: Service) -> None:
    bodies = results(
        batch(
            service,
            service.published_key(),
            {"user_id": "u1"},
            {"user_id": "u1", "n": 3, "exclude_seen": True, "exclude_items": [], "candidates": ["C", "A", "D"]},
            n=1,
            exclude_seen=False,
            exclude_items=["A"],
            candidates=["A", "B", "C"],
        )
    )

    assert [item_ids(body) for body in bodies] == [["B"], ["C", "D"]]


def test_batch_has_1_to_1000_requests(service: Service) -> None:
    key = service.published_key()

    assert len(results(batch(service, key, {"user_id": "u1"}))) == 1
    assert len(results(batch(service, key, *[{"user_id": "u1"}] * 1000))) == 1000
    document = assert_problem(batch(service, key, *[{"user_id": "u1"}] * 1001), 422, "invalid-request")
    assert document["errors"][0]["pointer"] == "/requests"


def test_batch_has_at_most_20000_items(service: Service) -> None:
    key = service.published_key()
    users = [{"user_id": "u1", "n": 1000}] * 19

    assert len(results(batch(service, key, *users, {"user_id": "u2", "n": 1000}))) == 20
    document = assert_problem(
        batch(service, key, *users, *users[:1], {"user_id": "u2", "n": 1}), 422, "invalid-request"
    )
    assert "Received: 20,001" in document["detail"]


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        ({}, "/requests"),
        ({"requests": []}, "/requests"),
        ({"requests": [{"user_id": "u1"}, {}]}, "/requests/1/user_id"),
        ({"requests": [{"user_id": "u1"}, {"user_id": 7}]}, "/requests/1/user_id"),
        ({"requests": [{"user_id": "u1", "top": 1}]}, "/requests/0/top"),
        ({"requests": [{"user_id": "u1"}], "n": 0}, "/n"),
        ({"requests": [{"user_id": "u1", "n": 1001}]}, "/requests/0/n"),
        ({"users": ["u1"], "requests": [{"user_id": "u1"}]}, "/users"),
    ],
)
def test_invalid_batch_is_located(service: Service, body: object, pointer: str) -> None:
    response = service.client.post("/v1/recommendations/batch", str(service.published_key()), json=body)

    assert assert_problem(response, 422, "invalid-request")["errors"][0]["pointer"] == pointer


def test_batch_does_not_block_other_requests(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The liveness check succeeds while a batch is computed."""
    key = service.published_key()
    alive: list[int] = []

    def slow(*_: Any, **__: Any) -> list[Any]:
        alive.append(service.client.get("/health/live").status_code)
        return []

    monkeypatch.setattr(batch_ranking, "recommend_all", slow)

    assert results(batch(service, key, {"user_id": "u1"})) == []
    assert alive == [200]


# -- similar and popular


def test_similar_items_do_not_include_the_item(service: Service) -> None:
    key = service.published_key()

    body = service.client.get("/v1/items/B/similar?n=2", str(key)).json()

    assert (body["item_id"], item_ids(body)) == ("B", ["A", "C"])
    assert body["model_version"] == service.registry.get_key(key.key_id).current_version
    assert body["items"][0] == {"item_id": "A", "rank": 1, "score": pytest.approx(0.9526, abs=1e-4)}


def test_similar_items_of_an_unknown_item_are_not_found(service: Service) -> None:
    response = service.client.get("/v1/items/no%20such/similar", str(service.published_key()))

    assert "'no such'" in assert_problem(response, 404, "item-not-found")["detail"]


def test_popular_items_are_ranked_by_share_of_users(service: Service) -> None:
    key = service.published_key()

    body = service.client.get("/v1/popular?n=3", str(key)).json()

    assert body == {
        "model_version": service.registry.get_key(key.key_id).current_version,
        "items": [
            {"item_id": "C", "rank": 1, "score": 1.0},
            {"item_id": "A", "rank": 2, "score": 0.5},
            {"item_id": "B", "rank": 3, "score": 0.5},
        ],
    }


@pytest.mark.parametrize(("path", "expected"), [("/v1/popular", ["A", "D"]), ("/v1/items/A/similar", ["D"])])
def test_lists_leave_out_excluded_items(service: Service, path: str, expected: list[str]) -> None:
    body = service.client.get(f"{path}?exclude_items=B&exclude_items=C", str(service.published_key())).json()

    assert item_ids(body) == expected


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("query", ["n=0", "n=1001", "n=ten", "n=", "top=5"])
def test_invalid_list_parameters_are_rejected(service: Service, path: str, query: str) -> None:
    document = assert_problem(
        service.client.get(f"{path}?{query}", str(service.published_key())), 422, "invalid-request"
    )

    assert f"query {query.partition('=')[0]}" in document["detail"]


@pytest.mark.parametrize("path", [*LISTS, "/v1/recommendations/batch"])
def test_missing_key_is_reported_before_invalid_parameters(service: Service, path: str) -> None:
    method = "POST" if path.endswith("batch") else "GET"

    assert_problem(service.client.request(method, f"{path}?n=0"), 401, "invalid-api-key")


@pytest.mark.parametrize("path", LISTS)
def test_list_of_a_key_without_a_model_is_not_ready(service: Service, path: str) -> None:
    assert_problem(service.client.get(path, str(service.new_key())), 409, "model-not-ready")


def test_wrong_method_lists_the_allowed_one(service: Service) -> None:
    response = service.client.post("/v1/popular")

    assert (response.status_code, response.headers["allow"]) == (405, "GET, HEAD, OPTIONS")


@pytest.mark.parametrize("item_id", UNUSUAL_IDS)
def test_item_id_in_the_path_is_decoded_once(service: Service, item_id: str) -> None:
    key = service.new_key()
    publish(
        service.registry,
        service.store,
        key.key_id,
        service.folder / "m",
        service.now,
        item_ids=["A", item_id, "C", "D"],
    )

    response = service.client.get(f"/v1/items/{quote(item_id, safe='')}/similar", str(key))

    assert response.status_code == 200, response.text
    assert (response.json()["item_id"], item_ids(response.json())) == (item_id, ["A", "C", "D"])


def test_uvicorn_decodes_the_item_id_once(service: Service) -> None:
    key, item_id = service.new_key(), "50% off/a%2Fb ü"
    publish(
        service.registry,
        service.store,
        key.key_id,
        service.folder / "m",
        service.now,
        item_ids=["A", item_id, "C", "D"],
    )
    with serving(service.client.app) as base_url:
        path = "/v1/items/50%25%20off/a%252Fb%20%C3%BC/similar"
        response = httpx.get(f"{base_url}{path}", headers={"X-API-Key": str(key)}, trust_env=False)

    assert response.status_code == 200, response.text
    assert (response.json()["item_id"], item_ids(response.json())) == (item_id, ["A", "C", "D"])


def test_log_contains_the_route_without_the_item_id(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "recsys.http")

    service.client.get("/v1/items/A/similar", str(service.published_key()))

    messages = [record.getMessage() for record in caplog.records if record.name == "recsys.http"]
    assert messages == ["GET /v1/items/{item_id}/similar 200"]
