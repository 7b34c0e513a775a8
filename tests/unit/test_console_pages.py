"""The files of the console: their policy and caching, the redirect from `/`, and the local sign-in links."""

from __future__ import annotations

import asyncio
import gzip
import re
import stat
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from deployment.console_assets import BUILT, LICENCES
from recsys.errors import Gone
from recsys.objects.files import FileObjectStore
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from recsys_api.routes.console import create_console_router
from recsys_api.static_files import CONSOLE_ASSETS
from recsys_local.app import create_app
from recsys_local.console import SignIn, SignInLinks
from tests.unit.http_fakes import Service, assert_problem

STATIC = files("recsys_api").joinpath("static")
BROWSER = "text/html,application/xhtml+xml,*/*;q=0.8"
MAX_COMPRESSED_BYTES = 60_000


def get(service: Service, path: str, method: str = "GET", **headers: str) -> httpx.Response:
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    return service.client.request(method, path, headers=sent)


def answer(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    """Send one request to an app of its own."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
            return await client.request(method, path, **options)

    return asyncio.run(send())


def assets(service: Service) -> dict[str, str]:
    """Return the address of each asset of the page by its name."""
    found = re.findall(r'(?:src|href)="(console/[^"]+)"', get(service, "/console").text)
    return {address.rpartition("/")[2]: f"/{address}" for address in found}


def test_page_has_a_strict_policy_and_nothing_inline(service: Service) -> None:
    response = get(service, "/console")
    policy = response.headers["content-security-policy"]

    assert response.headers["content-type"] == "text/html; charset=utf-8"
    assert policy.startswith("default-src 'self';")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert re.findall(r"<script[^>]*>(?!</script>)|<style|\sstyle=|\son\w+=", response.text) == []
    assert set(assets(service)) == set(CONSOLE_ASSETS)


def test_policy_permits_uploads_to_the_object_store(tmp_path: Path) -> None:
    store = FileObjectStore(tmp_path, base_url="https://bucket.s3.example")
    app = FastAPI()
    app.include_router(create_console_router(store))

    response = answer(app, "GET", "/console")

    assert "connect-src 'self' https://bucket.s3.example;" in response.headers["content-security-policy"]


def test_assets_are_cacheable_forever_and_compressed(service: Service) -> None:
    for name, path in assets(service).items():
        plain, compressed = get(service, path, accept_encoding="identity"), get(service, path, accept_encoding="gzip")
        assert plain.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert compressed.content == plain.content
        assert ("content-encoding" in compressed.headers) == (name in BUILT)


def test_unchanged_page_is_not_sent_again(service: Service) -> None:
    etag = get(service, "/console").headers["etag"]
    unchanged = get(service, "/console", if_none_match=etag)
    assert (unchanged.status_code, unchanged.content, unchanged.headers["etag"]) == (304, b"", etag)


@pytest.mark.parametrize("path", ["/console", "/"])
def test_head_has_the_headers_of_get(service: Service, path: str) -> None:
    head, full = (get(service, path, method, accept=BROWSER) for method in ("HEAD", "GET"))
    assert (head.status_code, head.content) == (full.status_code, b"")
    assert head.headers.get("etag") == full.headers.get("etag")


@pytest.mark.parametrize("path", ["/console/nothing", "/console/assets/0/console.js", "/console/assets/0/app.py"])
def test_unknown_path_is_not_found(service: Service, path: str) -> None:
    assert_problem(get(service, path), 404, "not-found")


def test_root_sends_browsers_to_the_console(service: Service) -> None:
    response = get(service, "/", accept=BROWSER)
    assert (response.status_code, response.headers["location"]) == (303, "console")
    assert "Accept" in response.headers["vary"]


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_root_is_not_found_for_other_clients(service: Service, accept: str) -> None:
    assert_problem(get(service, "/", accept=accept), 404, "not-found")


def test_committed_assets_are_small_and_have_licences() -> None:
    sizes = {name: len(STATIC.joinpath(f"{name}.gz").read_bytes()) for name in BUILT}
    licences = STATIC.joinpath(LICENCES).read_text("utf-8")

    assert sum(sizes.values()) < MAX_COMPRESSED_BYTES
    assert b"http://" not in gzip.decompress(STATIC.joinpath("console.css.gz").read_bytes())
    for package in ("preact@", "@preact/signals@", "uplot@"):
        assert f"== {package}" in licences


# -- sign-in links


@pytest.fixture
def links(tmp_path: Path) -> SignInLinks:
    return SignInLinks(tmp_path / "sign-in.json", "http://here")


def token_of(link: str) -> str:
    return link.removeprefix("http://here/console#sign-in=")


def test_link_does_not_contain_the_key_and_works_once(links: SignInLinks) -> None:
    sign_in = SignIn(api_key="rk_secret", job_id="job", user_id="anna")
    link = links.create(sign_in)

    assert "rk_secret" not in link
    assert links.redeem(token_of(link)) == sign_in
    with pytest.raises(Gone):
        links.redeem(token_of(link))


def test_new_link_replaces_the_previous_one(links: SignInLinks) -> None:
    first, second = (links.create(SignIn(api_key=key, job_id="job", user_id="anna")) for key in ("rk_1", "rk_2"))
    with pytest.raises(Gone):
        links.redeem(token_of(first))
    assert links.redeem(token_of(second)).api_key == "rk_2"


def test_only_the_owner_can_read_the_file_of_a_link_which_has_no_token(links: SignInLinks, tmp_path: Path) -> None:
    link = links.create(SignIn(api_key="rk_secret", job_id="job", user_id="anna"))
    file = tmp_path / "sign-in.json"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token_of(link) not in file.read_text()


@pytest.mark.parametrize("damaged", ["", "[]", "{}", '{"token_sha256": 1}'])
def test_damaged_file_of_a_link_is_no_link(links: SignInLinks, tmp_path: Path, damaged: str) -> None:
    (tmp_path / "sign-in.json").write_text(damaged)
    with pytest.raises(Gone):
        links.redeem("ct_any")


def test_route_exchanges_the_token_for_the_key(links: SignInLinks, tmp_path: Path) -> None:
    registry = SqliteRegistry(tmp_path / "registry.sqlite3")
    app = create_app(registry, FileObjectStore(tmp_path), Settings(), sign_in_links=links)
    token = token_of(links.create(SignIn(api_key="rk_secret", job_id="job", user_id="anna")))

    def redeemed(**headers: str) -> httpx.Response:
        return answer(app, "POST", "/local/sign-in", json={"token": token}, headers=headers)

    foreign = redeemed(**{"sec-fetch-site": "cross-site", "origin": "https://other.example"})
    assert_problem(foreign, 403, "origin-not-allowed")
    response = redeemed()
    assert response.json() == {"api_key": "rk_secret", "job_id": "job", "user_id": "anna"}
    assert response.headers["cache-control"] == "no-store"
    assert assert_problem(redeemed(), 410, "claim-gone")["title"] == "The sign-in link is no longer valid"
    registry.close()
