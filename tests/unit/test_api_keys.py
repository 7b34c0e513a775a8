"""Routes for keys (properties, rotation, revocation, claims) and for the versions of a key's model."""

from __future__ import annotations

from urllib.parse import unquote

import pytest

from recsys.clock import after
from recsys.keys.api_key import ApiKey, claim_token_sha256, new_claim_token
from recsys.registry.key_record import KeyRecord
from tests.unit.http_fakes import METRICS, Service, assert_problem, publish

DAY_S = 86_400


def test_key_is_described_without_its_secret(service: Service) -> None:
    trained = service.client.train().json()

    described = service.client.get("/v1/key", trained["api_key"]).json()

    assert described == {
        "key_id": trained["key_id"],
        "created_at": service.now.timestamp,
        "current_version": None,
        "catalogue_version": None,
        "expires_at": after(service.now.timestamp, 7 * DAY_S),
        "previous_key_expires_at": None,
        "exclude_items": [],
    }


def test_key_with_a_model_does_not_expire(service: Service) -> None:
    described = service.client.get("/v1/key", str(service.published_key())).json()

    assert described["current_version"]
    assert described["expires_at"] is None


@pytest.mark.parametrize(
    "broken",
    [
        None,
        "",
        "rk_",
        "not a key",
        "rk_abcdefghijkl_0123456789",
        "Bearer x",
        "\u00fc".encode().decode("latin-1"),
        "x" * 8000,
    ],
)
def test_invalid_key_is_rejected(service: Service, broken: str | None) -> None:
    response = service.client.get("/v1/key", broken)

    document = assert_problem(response, 401, "invalid-api-key")
    assert "X-API-Key" in document["hint"]
    assert response.headers["www-authenticate"].startswith("ApiKey")


def test_typo_and_unknown_key_are_distinguished(service: Service) -> None:
    key = str(service.new_key())
    typo = key[:20] + ("a" if key[20] != "a" else "b") + key[21:]

    assert "typo" in assert_problem(service.client.get("/v1/key", typo), 401, "invalid-api-key")["detail"]
    assert (
        "unknown" in assert_problem(service.client.get("/v1/key", str(ApiKey.mint())), 401, "invalid-api-key")["detail"]
    )


def test_wrong_secret_of_a_known_key_is_rejected(service: Service) -> None:
    forged = ApiKey.mint(service.new_key().key_id)

    assert_problem(service.client.get("/v1/key", str(forged)), 401, "invalid-api-key")


def test_unclaimed_key_of_an_import_is_rejected(service: Service) -> None:
    service.registry.create_key(KeyRecord("dropDropDrop", service.now.timestamp))

    assert_problem(service.client.get("/v1/key", str(ApiKey.mint("dropDropDrop"))), 401, "invalid-api-key")


def test_previous_key_is_valid_for_a_day_after_rotation(service: Service) -> None:
    old = str(service.published_key())

    response = service.client.post("/v1/key/rotate", old)
    new = response.json()["api_key"]

    assert response.status_code == 200
    assert response.headers["cache-control"] == "no-store"
    assert ApiKey.parse(new).key_id == ApiKey.parse(old).key_id == response.json()["key_id"]
    until = service.client.get("/v1/key", new).json()["previous_key_expires_at"]
    assert until == after(service.now.timestamp, DAY_S)
    assert service.client.get("/v1/key", old).status_code == 200
    service.now.move(DAY_S)
    assert_problem(service.client.get("/v1/key", old), 401, "invalid-api-key")
    assert service.client.get("/v1/key", new).json()["previous_key_expires_at"] is None


def test_rotation_without_overlap_invalidates_the_previous_key(service: Service) -> None:
    old = str(service.published_key())

    new = service.client.post("/v1/key/rotate", old, json={"overlap_s": 0}).json()["api_key"]

    assert_problem(service.client.get("/v1/key", old), 401, "invalid-api-key")
    assert service.client.get("/v1/key", new).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/key/rotate"),
        ("DELETE", "/v1/key"),
        ("POST", "/v1/models/{version}/activate"),
        ("POST", "/v1/models/{version}/pin"),
        ("DELETE", "/v1/models/{version}/pin"),
    ],
)
def test_previous_key_cannot_change_the_key_or_its_version(service: Service, method: str, path: str) -> None:
    api_key = service.new_key()
    first = publish(service.registry, service.store, api_key.key_id, service.folder / "1", service.now)
    publish(service.registry, service.store, api_key.key_id, service.folder / "2", service.now)
    new = service.client.post("/v1/key/rotate", str(api_key)).json()["api_key"]
    unchanged = service.registry.get_key(api_key.key_id)
    path = path.format(version=first.version)

    response = service.client.request(method, path, headers={"x-api-key": str(api_key)})

    assert "new key" in assert_problem(response, 401, "invalid-api-key")["hint"]
    assert service.registry.get_key(api_key.key_id) == unchanged
    assert service.client.request(method, path, headers={"x-api-key": new}).is_success


def test_previous_key_can_read_train_and_recommend_during_the_overlap(service: Service) -> None:
    old = str(service.published_key())
    service.client.post("/v1/key/rotate", old)

    assert service.client.get("/v1/models", old).status_code == 200
    assert service.client.train(key=old).status_code == 202
    assert service.client.recommend(old).status_code == 200


@pytest.mark.parametrize("overlap_s", [-1, 7 * DAY_S + 1, "60", 1.5, None, True, 10**400])
def test_overlap_outside_of_0_to_7_days_is_rejected(service: Service, overlap_s: object) -> None:
    old = str(service.published_key())

    document = assert_problem(
        service.client.post("/v1/key/rotate", old, json={"overlap_s": overlap_s}), 422, "invalid-request"
    )

    assert document["errors"][0]["pointer"] == "/overlap_s"
    assert service.client.get("/v1/key", old).status_code == 200


def test_overlap_of_seven_days_is_accepted(service: Service) -> None:
    old = str(service.published_key())

    assert service.client.post("/v1/key/rotate", old, json={"overlap_s": 7 * DAY_S}).status_code == 200


def test_revoked_key_is_rejected_by_every_route(service: Service) -> None:
    key = str(service.published_key())

    response = service.client.delete("/v1/key", key)

    assert (response.status_code, response.content) == (204, b"")
    for method, path in [("GET", "/v1/key"), ("GET", "/v1/models"), ("DELETE", "/v1/key"), ("POST", "/v1/uploads")]:
        assert_problem(service.client.request(method, path, headers={"x-api-key": key}), 401, "invalid-api-key")
    assert_problem(service.client.train(key=key), 401, "invalid-api-key")


# -- claims


def offered_claim(service: Service) -> str:
    """Return the token of an import receipt of a new tenant."""
    service.registry.create_key(KeyRecord("dropDropDrop", service.now.timestamp))
    token = new_claim_token()
    expires_at = after(service.now.timestamp, DAY_S)
    service.registry.offer_claim(claim_token_sha256(token), "dropDropDrop", expires_at=expires_at)
    return token


def test_claim_token_is_exchanged_for_a_valid_key(service: Service) -> None:
    response = service.client.post("/v1/key/claim", json={"claim_token": offered_claim(service)})

    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["key_id"] == "dropDropDrop"
    assert service.client.get("/v1/key", response.json()["api_key"]).json()["key_id"] == "dropDropDrop"


def test_claim_token_works_once(service: Service) -> None:
    token = offered_claim(service)
    service.client.post("/v1/key/claim", json={"claim_token": token})

    document = assert_problem(service.client.post("/v1/key/claim", json={"claim_token": token}), 410, "claim-gone")

    assert "Drop the file into the inbox again" in document["hint"]


def test_claim_token_expires_after_a_day(service: Service) -> None:
    token = offered_claim(service)
    service.now.move(DAY_S)

    assert_problem(service.client.post("/v1/key/claim", json={"claim_token": token}), 410, "claim-gone")


def test_unknown_claim_token_is_gone(service: Service) -> None:
    assert_problem(service.client.post("/v1/key/claim", json={"claim_token": "ct_x"}), 410, "claim-gone")


@pytest.mark.parametrize("body", [None, {}, {"claim_token": ""}, {"claim_token": "x" * 201}, {"claim_token": 5}])
def test_claim_without_a_valid_token_is_rejected(service: Service, body: object) -> None:
    assert_problem(service.client.post("/v1/key/claim", json=body), 422, "invalid-request")


# -- versions


def test_models_are_listed_newest_first_with_the_current_one_marked(service: Service) -> None:
    api_key = service.new_key()
    first = publish(service.registry, service.store, api_key.key_id, service.folder / "1", service.now)
    second = publish(service.registry, service.store, api_key.key_id, service.folder / "2", service.now)

    listed = service.client.get("/v1/models", str(api_key)).json()

    assert listed["current_version"] == second.version
    assert [(model["version"], model["current"]) for model in listed["models"]] == [
        (second.version, True),
        (first.version, False),
    ]
    assert listed["models"][0] == {
        "version": second.version,
        "job_id": second.job_id,
        "created_at": second.created_at,
        "current": True,
        "pinned": False,
        "held": False,
        "held_reasons": [],
        "metrics": METRICS,
    }


def test_key_without_models_gets_an_empty_list(service: Service) -> None:
    assert service.client.get("/v1/models", str(service.new_key())).json() == {"current_version": None, "models": []}


def test_older_version_can_be_activated(service: Service) -> None:
    api_key = service.new_key()
    first = publish(service.registry, service.store, api_key.key_id, service.folder / "1", service.now)
    publish(service.registry, service.store, api_key.key_id, service.folder / "2", service.now)

    response = service.client.post(f"/v1/models/{first.version}/activate", str(api_key))

    assert (response.status_code, response.json()["current_version"]) == (200, first.version)
    assert service.client.get("/v1/models", str(api_key)).json()["current_version"] == first.version


def test_version_is_pinned_and_unpinned(service: Service) -> None:
    api_key = service.new_key()
    version = publish(service.registry, service.store, api_key.key_id, service.folder / "1", service.now).version

    for method, pinned in [("POST", True), ("DELETE", False)]:
        response = service.client.request(method, f"/v1/models/{version}/pin", headers={"x-api-key": str(api_key)})
        assert (response.status_code, response.json()) == (200, {"version": version, "pinned": pinned})
        (listed,) = service.client.get("/v1/models", str(api_key)).json()["models"]
        assert listed["pinned"] is pinned


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_unknown_version_cannot_be_pinned(service: Service, method: str) -> None:
    headers = {"x-api-key": str(service.published_key())}
    for version in ("nothing", "0" * 22 + ".1"):
        response = service.client.request(method, f"/v1/models/{version}/pin", headers=headers)
        assert_problem(response, 404, "version-not-found")


@pytest.mark.parametrize("version", ["nothing", "0" * 22 + ".1", "x" * 3000, "%00.1"])
def test_unknown_version_cannot_be_activated(service: Service, version: str) -> None:
    response = service.client.post(f"/v1/models/{version}/activate", str(service.published_key()))

    detail = assert_problem(response, 404, "version-not-found")["detail"]
    assert repr(unquote(version)[:80]) in detail


def test_version_of_another_key_cannot_be_activated(service: Service) -> None:
    version = publish(
        service.registry, service.store, service.new_key().key_id, service.folder / "theirs", service.now
    ).version
    mine = str(service.published_key())

    assert_problem(service.client.post(f"/v1/models/{version}/activate", mine), 404, "version-not-found")
