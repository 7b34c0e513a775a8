"""Cross-origin requests, HEAD, OPTIONS, and the headers that every response has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from recsys.http.cors import PUBLISHABLE_ROUTES
from recsys.http.origins import parse_origins
from recsys.settings import InvalidSetting, Settings
from recsys_local import openapi
from recsys_local.app import create_app
from tests.unit.http_fakes import CSV, Client, Service, assert_problem

SHOP = "https://shop.example"
OTHER = "https://other.example"
ALLOW_ORIGIN = "access-control-allow-origin"


def preflight(client: Client, path: str, method: str, origin: str = SHOP) -> Any:
    headers = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": "x-api-key"}
    return client.request("OPTIONS", path, headers=headers)


@pytest.fixture
def permitting(service: Service) -> Client:
    """The same service, whose operator permits pages of the shop on every route."""
    app = create_app(service.registry, service.store, Settings(cors_origins=SHOP))
    return Client(app, service.client._portal)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/recommendations"),
        ("POST", "/v1/recommendations/batch"),
        ("GET", "/v1/items/a/b/similar"),
        ("GET", "/v1/popular"),
    ],
)
def test_preflight_of_a_recommending_route_is_granted_to_any_origin(service: Service, method: str, path: str) -> None:
    response = preflight(service.client, path, method)

    assert response.status_code == 204
    assert response.headers[ALLOW_ORIGIN] == "*"
    assert method in response.headers["access-control-allow-methods"]
    assert "X-API-Key" in response.headers["access-control-allow-headers"]


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/train"), ("POST", "/v1/key/rotate"), ("DELETE", "/v1/key"), ("POST", "/v1/keys")],
)
def test_preflight_of_other_routes_is_granted_to_permitted_origins_only(
    service: Service, permitting: Client, method: str, path: str
) -> None:
    assert ALLOW_ORIGIN not in preflight(service.client, path, method).headers
    assert ALLOW_ORIGIN not in preflight(permitting, path, method, OTHER).headers
    granted = preflight(permitting, path, method)
    assert (granted.status_code, granted.headers[ALLOW_ORIGIN]) == (204, SHOP)


def test_permitted_origin_reads_every_response(service: Service, permitting: Client) -> None:
    key = str(service.published_key())

    ours = permitting.request("GET", "/v1/key", headers={"x-api-key": key, "origin": SHOP})
    theirs = permitting.request("GET", "/v1/key", headers={"x-api-key": key, "origin": OTHER})
    unauthorized = permitting.request("GET", "/v1/key", headers={"origin": SHOP})

    assert ours.headers[ALLOW_ORIGIN] == unauthorized.headers[ALLOW_ORIGIN] == SHOP
    assert ALLOW_ORIGIN not in theirs.headers
    assert all("Origin" in response.headers["vary"] for response in (ours, theirs, unauthorized))


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_form_of_another_origin_cannot_train(service: Service, site: str) -> None:
    """A browser sends such a form without a preflight."""
    headers = {"origin": OTHER, "sec-fetch-site": site}

    response = service.client.request("POST", "/v1/train", files={"file": ("orders.csv", CSV)}, headers=headers)

    assert_problem(response, 403, "origin-not-allowed")
    assert service.stored() == []


def test_page_of_the_service_and_permitted_pages_can_train(service: Service, permitting: Client) -> None:
    own = {"origin": "http://service", "sec-fetch-site": "same-origin"}
    shop = {"origin": SHOP, "sec-fetch-site": "cross-site"}

    assert service.client.request("POST", "/v1/train", files={"file": CSV}, headers=own).status_code == 202
    assert permitting.request("POST", "/v1/train", files={"file": CSV}, headers=shop).status_code == 202


def test_publishable_routes_are_those_of_the_recommending_function() -> None:
    documented = {
        path.replace("{item_id}", "{item_id:path}")
        for path, operations in openapi.document()["paths"].items()
        for operation in operations.values()
        if operation["tags"] == ["Recommendations"]
    }

    assert documented == PUBLISHABLE_ROUTES


@pytest.mark.parametrize("setting", ["*", "shop.example", "https://shop.example/path", "https://shop.example:443"])
def test_invalid_origin_in_the_setting_ends_the_start(setting: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidSetting, match="RECSYS_CORS_ORIGINS"):
        parse_origins(setting)


@pytest.mark.parametrize("path", ["/v1/key", "/v1/popular", "/v1/models", "/health/live", "/openapi.json", "/docs"])
def test_head_is_get_without_the_body(service: Service, path: str) -> None:
    key = str(service.published_key())
    got = service.client.get(path, key)

    head = service.client.request("HEAD", path, headers={"x-api-key": key})

    assert (head.status_code, head.content) == (got.status_code, b"")
    same = ("content-type", "content-length", "etag", "cache-control")
    assert [head.headers.get(name) for name in same] == [got.headers.get(name) for name in same]


def test_head_is_logged_with_its_route(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "recsys.http"):
        service.client.request("HEAD", "/health/live")

    assert caplog.messages[-1] == "HEAD /health/live 200"


def test_head_of_a_path_without_get_is_405(service: Service) -> None:
    response = service.client.request("HEAD", "/v1/train")

    assert (response.status_code, response.headers["allow"], response.content) == (405, "OPTIONS, POST", b"")


def test_options_lists_the_methods(service: Service) -> None:
    response = service.client.request("OPTIONS", "/v1/key")

    assert (response.status_code, response.headers["allow"]) == (204, "DELETE, GET, HEAD, OPTIONS")
    assert ALLOW_ORIGIN not in response.headers
    assert_problem(service.client.request("OPTIONS", "/nowhere"), 404, "not-found")


@pytest.mark.parametrize("path", ["/v1/key", "/health/live", "/nowhere", "/docs", "/openapi.json"])
def test_every_response_has_security_headers(service: Service, path: str) -> None:
    headers = service.client.get(path).headers

    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == ("no-cache" if path in ("/docs", "/openapi.json") else "no-store")
