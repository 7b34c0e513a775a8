"""Scoped keys: creation, what each scope permits, and what becomes of them when the main key changes."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.keys.api_key import ApiKey
from recsys.keys.authentication import Authenticator
from recsys.keys.scoped_api_key import ScopedApiKey
from recsys.redaction import redacted
from recsys.registry.scoped_keys import MAX_SCOPED_KEYS, Scope
from tests.unit.http_fakes import CSV, Service, assert_problem

SHOP = "https://shop.example"
OTHER = "https://other.example"


def create(service: Service, key: object, scope: str = "recommend", **members: Any) -> dict[str, Any]:
    response = service.client.post("/v1/keys", str(key), json={"name": "page", "scope": scope, **members})
    assert response.status_code == 201, response.text
    assert response.headers["cache-control"] == "no-store"
    body: dict[str, Any] = response.json()
    return body


def from_page(service: Service, key: str, origin: str, path: str = "/v1/popular") -> Any:
    return service.client.request("GET", path, headers={"x-api-key": key, "origin": origin})


@pytest.mark.parametrize(("scope", "prefix"), [("recommend", "pk_"), ("train", "tk_")])
def test_scoped_key_is_shown_once_and_stored_as_a_digest(service: Service, scope: str, prefix: str) -> None:
    main = service.new_key()

    created = create(service, main, scope)
    text = created.pop("api_key")

    assert text.startswith(f"{prefix}{main.key_id}_{created['scoped_key_id']}_")
    assert service.client.get("/v1/keys", str(main)).json() == {"keys": [created]}
    (stored,) = service.registry.get_key(main.key_id).scoped_keys
    assert stored.secret_sha256 == ScopedApiKey.parse(text).sha256()
    assert ScopedApiKey.parse(text).secret not in str(service.registry.get_key(main.key_id).to_document())


def test_publishable_key_only_recommends(service: Service) -> None:
    key = create(service, service.published_key())["api_key"]

    assert service.client.recommend(key).status_code == 200
    assert service.client.post("/v1/recommendations/batch", key, json={"requests": [{"user_id": "u1"}]}).is_success
    assert service.client.get("/v1/items/A/similar", key).status_code == 200
    assert service.client.get("/v1/popular", key).status_code == 200


def test_train_key_trains_uploads_and_reads_jobs(service: Service) -> None:
    main = service.published_key()
    key = create(service, main, "train")["api_key"]

    trained = service.client.train(CSV, key)

    assert (trained.status_code, trained.json()["key_id"], trained.json()["api_key"]) == (202, main.key_id, None)
    assert service.client.get(trained.json()["location"], key).status_code == 200
    assert service.client.post("/v1/uploads", key).status_code == 201


EVERYTHING = {
    ("POST", "/v1/train"),
    ("POST", "/v1/validate"),
    ("POST", "/v1/uploads"),
    ("GET", "/v1/jobs/x"),
    ("POST", "/v1/recommendations"),
    ("POST", "/v1/recommendations/batch"),
    ("GET", "/v1/items/A/similar"),
    ("GET", "/v1/popular"),
    ("GET", "/v1/models"),
    ("POST", "/v1/models/x/activate"),
    ("POST", "/v1/models/x/pin"),
    ("DELETE", "/v1/models/x/pin"),
    ("GET", "/v1/key"),
    ("POST", "/v1/key/rotate"),
    ("DELETE", "/v1/key"),
    ("POST", "/v1/keys"),
    ("GET", "/v1/keys"),
    ("DELETE", "/v1/keys/x"),
    ("GET", "/v1/audit"),
}
PERMITTED = {
    "recommend": {call for call in EVERYTHING if call[1].startswith(("/v1/rec", "/v1/items", "/v1/popular"))},
    "train": {("POST", "/v1/train"), ("POST", "/v1/validate"), ("POST", "/v1/uploads"), ("GET", "/v1/jobs/x")},
}


@pytest.mark.parametrize(
    ("scope", "method", "path"),
    [(scope, *call) for scope, permitted in PERMITTED.items() for call in sorted(EVERYTHING - permitted)],
)
def test_everything_else_is_forbidden(service: Service, scope: str, method: str, path: str) -> None:
    main = service.published_key()
    key = create(service, main, scope)["api_key"]
    before = service.registry.get_key(main.key_id)
    body = {"json": {"name": "x", "scope": "train"}} if path == "/v1/keys" else {"json": {"user_id": "u1"}}

    response = service.client.request(method, path, headers={"x-api-key": key}, **(body if method == "POST" else {}))

    assert_problem(response, 403, "insufficient-scope")
    assert service.registry.get_key(main.key_id) == before


def test_typo_in_a_scoped_key_is_named(service: Service) -> None:
    key = create(service, service.published_key())["api_key"]
    typo = key[:-1] + ("a" if key[-1] != "a" else "b")

    assert "typo" in assert_problem(service.client.get("/v1/popular", typo), 401, "invalid-api-key")["detail"]


@pytest.mark.parametrize("change", ["scope", "key_id", "scoped_key_id", "secret"])
def test_forged_scoped_key_is_invalid(service: Service, change: str) -> None:
    main, other = service.published_key(), service.new_key()
    genuine = ScopedApiKey.parse(create(service, main)["api_key"])
    values = {name: getattr(genuine, name) for name in ("scope", "key_id", "scoped_key_id", "secret")}
    values[change] = {
        "scope": Scope.TRAIN,
        "key_id": other.key_id,
        "scoped_key_id": "00000000",
        "secret": ScopedApiKey.mint(Scope.RECOMMEND, main.key_id).secret,
    }[change]

    response = service.client.get("/v1/popular", str(ScopedApiKey(**values)))

    assert_problem(response, 401, "invalid-api-key")


def test_scoped_secret_does_not_work_as_a_main_key(service: Service) -> None:
    scoped = ScopedApiKey.parse(create(service, service.published_key())["api_key"])

    forged = ApiKey(scoped.key_id, scoped.secret)

    assert_problem(service.client.get("/v1/key", str(forged)), 401, "invalid-api-key")


def test_deleted_scoped_key_stops_working_after_the_cache_expires(service: Service) -> None:
    main = service.published_key()
    created, kept = create(service, main), create(service, main)
    assert service.client.get("/v1/popular", created["api_key"]).status_code == 200

    response = service.client.delete(f"/v1/keys/{created['scoped_key_id']}", str(main))

    assert response.status_code == 204
    service.now.move(5)
    assert_problem(service.client.get("/v1/popular", created["api_key"]), 401, "invalid-api-key")
    assert service.client.get("/v1/popular", kept["api_key"]).status_code == 200
    again = service.client.delete(f"/v1/keys/{created['scoped_key_id']}", str(main))
    assert created["scoped_key_id"] in assert_problem(again, 404, "scoped-key-not-found")["detail"]
    pasted = service.client.delete(f"/v1/keys/{created['api_key']}", str(main))
    assert "(secret)" in assert_problem(pasted, 404, "scoped-key-not-found")["detail"]


def test_new_scoped_key_works_although_the_record_is_cached(service: Service) -> None:
    main = service.published_key()
    assert service.client.get("/v1/popular", str(main)).status_code == 200

    assert service.client.get("/v1/popular", create(service, main)["api_key"]).status_code == 200


def test_number_of_scoped_keys_is_limited(service: Service) -> None:
    main = service.new_key()
    for _ in range(MAX_SCOPED_KEYS):
        create(service, main)

    response = service.client.post("/v1/keys", str(main), json={"name": "one more", "scope": "train"})

    assert_problem(response, 409, "too-many-scoped-keys")


def test_rotation_of_the_main_key_keeps_scoped_keys(service: Service) -> None:
    main = service.published_key()
    key = create(service, main)["api_key"]

    rotated = service.client.post("/v1/key/rotate", str(main), json={"overlap_s": 0}).json()["api_key"]

    service.now.move(5)
    assert service.client.get("/v1/popular", key).status_code == 200
    assert len(service.client.get("/v1/keys", rotated).json()["keys"]) == 1
    assert_problem(service.client.get("/v1/keys", str(main)), 401, "invalid-api-key")


def test_rotated_out_main_key_cannot_create_scoped_keys(service: Service) -> None:
    main = service.published_key()
    service.client.post("/v1/key/rotate", str(main))

    response = service.client.post("/v1/keys", str(main), json={"name": "page", "scope": "recommend"})

    assert_problem(response, 401, "invalid-api-key")


def test_revocation_of_the_main_key_revokes_scoped_keys(service: Service) -> None:
    main = service.published_key()
    publishable, training = create(service, main)["api_key"], create(service, main, "train")["api_key"]

    service.client.delete("/v1/key", str(main))

    service.now.move(5)
    assert_problem(service.client.get("/v1/popular", publishable), 401, "invalid-api-key")
    assert_problem(service.client.train(CSV, training), 401, "invalid-api-key")


@pytest.mark.parametrize(
    "members",
    [
        {"scope": "admin"},
        {"name": ""},
        {"name": "two\nlines"},
        {"origins": ["*"]},
        {"origins": ["shop.example"]},
        {"origins": ["https://shop.example/"]},
        {"origins": ["https://Shop.example"]},
        {"origins": ["https://shop.example:443"]},
        {"origins": [f"https://{n}.example" for n in range(11)]},
        {"scope": "train", "origins": [SHOP]},
        {"color": "red"},
    ],
    ids=str,
)
def test_invalid_scoped_key_is_rejected(service: Service, members: dict[str, Any]) -> None:
    body = {"name": "page", "scope": "recommend", **members}

    assert_problem(service.client.post("/v1/keys", str(service.new_key()), json=body), 422, "invalid-request")


def test_page_of_another_origin_is_rejected(service: Service) -> None:
    key = create(service, service.published_key(), origins=[SHOP])["api_key"]

    allowed, rejected = from_page(service, key, SHOP), from_page(service, key, OTHER)

    assert allowed.status_code == 200
    assert allowed.headers["access-control-allow-origin"] == SHOP
    assert "Origin" in allowed.headers["vary"]
    assert_problem(rejected, 403, "origin-not-allowed")
    assert "access-control-allow-origin" not in rejected.headers


def test_server_without_an_origin_can_use_a_limited_key(service: Service) -> None:
    key = create(service, service.published_key(), origins=[SHOP])["api_key"]

    assert service.client.get("/v1/popular", key).status_code == 200


def test_page_can_read_the_problem_of_its_own_request(service: Service) -> None:
    key = create(service, service.published_key(), origins=[SHOP])["api_key"]

    response = from_page(service, key, SHOP, "/v1/items/unknown/similar")

    assert_problem(response, 404, "item-not-found")
    assert response.headers["access-control-allow-origin"] == SHOP


def test_key_without_origins_permits_no_page_to_read(service: Service) -> None:
    main = service.published_key()
    for key in (create(service, main)["api_key"], str(main)):
        response = from_page(service, key, SHOP)

        assert response.status_code == 200
        assert "access-control-allow-origin" not in response.headers


def test_a_scoped_key_takes_one_registry_read(service: Service) -> None:
    main = service.published_key()
    key = create(service, main)["api_key"]
    read: list[str] = []

    class CountingRegistry:
        def get_key(self, key_id: str) -> Any:
            read.append(key_id)
            return service.registry.get_key(key_id)

    authenticator = Authenticator(CountingRegistry(), clock=service.now.clock)
    access = authenticator.authorize(key, Scope.RECOMMEND)

    assert read == [main.key_id]
    assert (access.record.key_id, access.scoped_key is not None) == (main.key_id, True)


@pytest.mark.parametrize("scope", list(Scope))
def test_scoped_keys_are_redacted_from_logs(scope: Scope) -> None:
    key = ScopedApiKey.mint(scope, "shop12345678")

    assert redacted(f"failed with {key}.") == "failed with (secret)."
    assert key.secret not in repr(key)
