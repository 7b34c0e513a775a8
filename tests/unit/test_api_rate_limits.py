"""Rate limits over HTTP: 429 with its headers, per key and per client address, and `GET /v1/usage`."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest
from fastapi import Request

from recsys.http.rate_limits import client_network
from tests.unit.http_fakes import CSV, Service, assert_problem, registry_is_empty, running


def test_anonymous_trainings_are_limited_per_hour(tmp_path: Path) -> None:
    with running(tmp_path, anonymous_trainings_per_hour=2) as service:
        first, second = service.client.train(), service.client.post("/v1/uploads")
        assert (first.status_code, second.status_code) == (202, 201)
        assert first.headers["ratelimit-policy"] == '"anonymous-trainings";q=2;w=3600'
        assert first.headers["ratelimit"] == '"anonymous-trainings";r=1;t=1800'

        refused = service.client.train()

        problem = assert_problem(refused, 429, "rate-limited")
        assert "2 trainings without an API key per client address and hour" in problem["detail"]
        assert refused.headers["retry-after"] == "1800"
        assert refused.headers["ratelimit"] == '"anonymous-trainings";r=0;t=1800'
        assert_problem(service.client.post("/v1/uploads"), 429, "rate-limited")
        service.now.move(1800)
        assert service.client.train().status_code == 202


def test_refused_training_stores_nothing_and_its_body_is_not_read(tmp_path: Path) -> None:
    with running(tmp_path, anonymous_trainings_per_hour=1) as service:
        # The first request is refused for its content type, and counts nevertheless.
        service.client.request("POST", "/v1/train", content=b"x", headers={"content-type": "text/html"})
        reads = 0

        async def receive() -> dict[str, object]:
            nonlocal reads
            reads += 1
            return {"type": "http.request", "body": CSV, "more_body": False}

        statuses = []

        async def send(message: dict[str, object]) -> None:
            statuses.append(message.get("status"))

        scope = {
            "type": "http",
            "method": "POST",
            "path": "/v1/train",
            "query_string": b"",
            "headers": [(b"content-type", b"text/csv"), (b"content-length", b"%d" % len(CSV))],
            "client": ("127.0.0.1", 1),
        }
        service.client.run(lambda: service.client.app(scope, receive, send))

        assert statuses[0] == 429
        assert reads == 0
        assert registry_is_empty(service)
        assert service.stored() == []


def test_trainings_of_a_key_are_limited_per_day(tmp_path: Path) -> None:
    with running(tmp_path, trainings_per_day=2, anonymous_trainings_per_hour=1) as service:
        key, other = str(service.new_key()), str(service.new_key())
        assert [service.client.train(key=key).status_code for _ in range(3)] == [202, 202, 429]
        assert_problem(service.client.post("/v1/uploads", key), 429, "rate-limited")
        assert service.client.train(key=other).status_code == 202
        assert service.client.train().status_code == 202
        service.now.move(12 * 3600)
        assert service.client.train(key=key).headers["ratelimit"] == '"trainings";r=0;t=43200'


def test_recommendations_of_a_key_are_limited_per_minute_on_all_routes(tmp_path: Path) -> None:
    with running(tmp_path, recommendations_per_minute=3) as service:
        key, other = str(service.published_key()), str(service.published_key(version_name="other"))
        responses = [
            service.client.recommend(key),
            service.client.post("/v1/recommendations/batch", key, json={"requests": [{"user_id": "u1"}] * 9}),
            service.client.get("/v1/popular", key),
            service.client.get("/v1/items/A/similar", key),
        ]
        assert [response.status_code for response in responses] == [200, 200, 200, 429]
        assert responses[0].headers["ratelimit-policy"] == '"recommendations";q=3;w=60'
        assert [response.headers["ratelimit"].partition(";")[2] for response in responses] == [
            "r=2;t=20",
            "r=1;t=40",
            "r=0;t=20",
            "r=0;t=20",
        ]
        assert_problem(responses[3], 429, "rate-limited")
        assert service.client.recommend(other).status_code == 200
        service.now.move(20)
        assert service.client.recommend(key).status_code == 200


def test_zero_turns_limits_off(tmp_path: Path) -> None:
    settings = {"anonymous_trainings_per_hour": 0, "trainings_per_day": 0, "recommendations_per_minute": 0}
    with running(tmp_path, **settings) as service:
        key = str(service.published_key())
        responses = [service.client.train(), service.client.train(key=key), service.client.recommend(key)]
        assert {response.status_code for response in responses} == {200, 202}
        assert not any("ratelimit" in response.headers for response in responses)
        assert service.client.get("/v1/usage", key).json()["limits"] == []


def test_usage_states_limits_versions_and_storage(tmp_path: Path) -> None:
    with running(tmp_path, trainings_per_day=4, recommendations_per_minute=60) as service:
        key = service.published_key()
        service.published_key(version_name="of another key")
        service.client.train(key=str(key))
        service.client.recommend(str(key))
        stored = sum(info.size_bytes for info in service.store.list(f"models/{key.key_id}/"))
        assert stored > 1000

        usage = service.client.get("/v1/usage", str(key))

        assert usage.json() == {
            "key_id": key.key_id,
            "limits": [
                {"name": "trainings", "limit": 4, "remaining": 3, "reset_s": 21600},
                {"name": "recommendations", "limit": 60, "remaining": 59, "reset_s": 1},
            ],
            "versions": 1,
            "stored_bytes": stored,
        }
        assert service.client.get("/v1/usage", str(key)).json() == usage.json()


def test_usage_needs_the_main_key(service: Service) -> None:
    assert_problem(service.client.get("/v1/usage"), 401, "invalid-api-key")


@pytest.mark.parametrize(
    ("host", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
    ],
)
def test_ipv6_clients_are_counted_by_network(host: str, network: str) -> None:
    assert client_network(Request({"type": "http", "client": (host, 1)})) == network


def test_client_without_an_address_is_counted_too() -> None:
    assert client_network(Request({"type": "http", "client": None})) == "unknown"


def test_addresses_have_limits_of_their_own(tmp_path: Path) -> None:
    with running(tmp_path, anonymous_trainings_per_hour=1) as service:

        async def train_from(address: str) -> int:
            transport = httpx.ASGITransport(service.client.app, client=(address, 1))
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                # The header is not trusted; only the server may replace the address.
                headers = {"content-type": "text/csv", "x-forwarded-for": "198.51.100.1"}
                return (await client.post("/v1/train", content=CSV, headers=headers)).status_code

        addresses = ["203.0.113.7", "203.0.113.7", "203.0.113.8", "2001:db8::1", "2001:db8::2"]
        statuses = [service.client.run(lambda address=address: train_from(address)) for address in addresses]
        assert statuses == [202, 429, 202, 202, 429]
