"""The API documentation: complete in the package, cacheable, and behind any path prefix."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from importlib.resources import files
from typing import Any

import pytest

from deployment.docs_assets import PACKAGES
from recsys_api.static_files import DOCS_ASSETS
from tests.unit.http_fakes import Service, assert_problem

STATIC = files("recsys_api").joinpath("static")
PAGES = ("/docs", "/redoc")


def addresses(html: str) -> list[str]:
    return re.findall(r'(?:src|href|spec-url)="([^"]+)"', html)


def get(service: Service, path: str, **headers: str) -> Any:
    return service.client.request(
        "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
    )


@pytest.mark.parametrize("page", PAGES)
def test_page_has_no_inline_script_and_only_relative_addresses(service: Service, page: str) -> None:
    response = service.client.get(page)
    html = response.text

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert re.findall(r"<script[^>]*>(?!</script>)", html) == []
    assert "script-src 'self';" in response.headers["content-security-policy"]
    assert addresses(html)
    assert all(re.match(r"docs/assets/|openapi\.json$|data:,$", address) for address in addresses(html))


@pytest.mark.parametrize("page", PAGES)
def test_assets_are_served_with_a_long_lifetime(service: Service, page: str) -> None:
    assets = [address for address in addresses(service.client.get(page).text) if address.startswith("docs/")]
    assert assets
    for address in assets:
        response = service.client.get(f"/{address}")
        assert response.status_code == 200
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert response.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")


def test_asset_is_compressed_for_clients_that_accept_it(service: Service) -> None:
    path = next(f"/{a}" for a in addresses(service.client.get("/docs").text) if a.endswith("swagger-ui-bundle.js"))

    plain, compressed = get(service, path, accept_encoding="identity"), get(service, path, accept_encoding="gzip")

    assert "content-encoding" not in plain.headers
    assert compressed.headers["content-encoding"] == "gzip"
    assert int(compressed.headers["content-length"]) < len(plain.content) / 3
    assert compressed.content == plain.content
    assert compressed.headers["etag"] != plain.headers["etag"]
    assert "Accept-Encoding" in compressed.headers["vary"]


@pytest.mark.parametrize("path", ["/openapi.json", *PAGES])
def test_unchanged_document_is_not_sent_again(service: Service, path: str) -> None:
    etag = service.client.get(path).headers["etag"]

    unchanged = get(service, path, if_none_match=f'"other", {etag}')

    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)
    assert get(service, path, if_none_match='"other"').status_code == 200


@pytest.mark.parametrize(
    "path", ["/docs/assets/0/page.css", "/docs/assets/x/secrets.txt", "/docs/assets/0/..%2Fapp.py"]
)
def test_unknown_asset_is_not_found(service: Service, path: str) -> None:
    assert_problem(service.client.get(path), 404, "not-found")


def test_committed_assets_are_those_that_were_recorded() -> None:
    recorded = json.loads(STATIC.joinpath("assets.json").read_text("utf-8"))

    assert {entry["package"] for entry in recorded.values()} == set(PACKAGES)
    assert set(recorded) == {name for name in DOCS_ASSETS if STATIC.joinpath(f"{name}.gz").is_file()}
    for name, entry in recorded.items():
        stored = STATIC.joinpath(f"{name}.gz").read_bytes()
        assert len(stored) < 2_000_000
        assert hashlib.sha256(gzip.decompress(stored)).hexdigest() == entry["sha256"]
    licences = STATIC.joinpath("LICENSES.txt").read_text("utf-8")
    assert "Apache License" in licences
    assert "MIT License" in licences
