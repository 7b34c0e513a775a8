"""The API documentation without the internet, and a shop's page that calls the API, in real Chromium."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser

from tests.integration.browser import Tab, chromium, opened, served_page
from tests.unit.http_fakes import Service, assert_problem, running, serving

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

CALL = """async ({base, method, path, headers, body}) => {
  try {
    const response = await fetch(base + path, {method, headers, body});
    return {status: response.status, text: await response.text()};
  } catch (error) {
    return {error: String(error)};
  }
}"""
SEND_FORM = """async (address) => {
  const form = new FormData();
  form.append("file", new Blob(["user_id,item_id\\nu1,A\\n"]), "orders.csv");
  await fetch(address, {method: "POST", mode: "no-cors", body: form}).catch(() => {});
}"""
SHOP_PAGE = """<!doctype html><title>Shop</title><ul id="items"></ul>
<script>
fetch("{base}/v1/recommendations", {{
  method: "POST",
  headers: {{"Content-Type": "application/json", "X-API-Key": "{key}"}},
  body: JSON.stringify({{user_id: "u1", n: 3}}),
}}).then((response) => response.json()).then((answer) => {{
  for (const item of answer.items) {{
    const entry = document.createElement("li");
    entry.textContent = item.item_id;
    document.getElementById("items").append(entry);
  }}
}});
</script>"""


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """The service on a port of its own."""
    with running(tmp_path_factory.mktemp("service")) as service, serving(service.client.app) as base_url:
        yield service, base_url


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def save_screenshot(tab: Tab, name: str) -> None:
    """Write the picture of the page that the documentation shows, if RECSYS_SCREENSHOTS names a folder."""
    folder = os.environ.get("RECSYS_SCREENSHOTS")
    if folder:
        tab.page.screenshot(path=Path(folder) / name)


def test_swagger_ui_shows_every_operation(live: tuple[Service, str], browser: Browser) -> None:
    service, base_url = live
    document = service.client.get("/openapi.json").json()
    ids = {operation["operationId"] for path in document["paths"].values() for operation in path.values()}

    with opened(browser, f"{base_url}/docs", viewport={"width": 1000, "height": 800}) as tab:
        tab.page.wait_for_selector(".opblock")
        shown = tab.page.eval_on_selector_all(".opblock", "blocks => blocks.map(block => block.id)")
        save_screenshot(tab, "swagger-ui.png")

        assert {name.rpartition("-")[2] for name in shown} == ids
        assert (tab.foreign_hosts(), tab.complaints) == (set(), [])


def test_swagger_ui_sends_a_request(live: tuple[Service, str], browser: Browser) -> None:
    _, base_url = live
    with opened(browser, f"{base_url}/docs#/Health/check_liveness") as tab:
        tab.page.click("#operations-Health-check_liveness .try-out__btn")
        tab.page.click("#operations-Health-check_liveness .execute")
        tab.page.wait_for_selector(".live-responses-table .response-col_status")

        assert '"live"' in tab.page.inner_text(".live-responses-table")


def test_redoc_shows_every_operation(live: tuple[Service, str], browser: Browser) -> None:
    service, base_url = live
    document = service.client.get("/openapi.json").json()
    summaries = {operation["summary"] for path in document["paths"].values() for operation in path.values()}

    with opened(browser, f"{base_url}/redoc", viewport={"width": 1300, "height": 800}) as tab:
        tab.page.wait_for_selector("h1")
        tab.page.wait_for_function("count => document.querySelectorAll('h2').length >= count", arg=len(summaries))
        headings = tab.page.eval_on_selector_all("h2", "headings => headings.map(heading => heading.innerText.trim())")

        assert summaries <= set(headings)
        assert tab.foreign_hosts() <= {"cdn.redoc.ly"}  # its logo, which the page's policy blocks


def test_docs_work_behind_a_path_prefix(live: tuple[Service, str], browser: Browser) -> None:
    _, base_url = live

    def forward(route: Any) -> None:
        address = route.request.url.replace("/shop/recsys/", "/")
        response = httpx.get(address, trust_env=False)
        kept = ("content-type", "content-security-policy")
        headers = {name: response.headers[name] for name in kept if name in response.headers}
        route.fulfill(status=response.status_code, headers=headers, body=response.content)

    with opened(browser, "about:blank") as tab:
        tab.page.route("**/shop/recsys/**", forward)
        tab.page.goto(f"{base_url}/shop/recsys/docs")
        tab.page.wait_for_selector(".opblock")


def created(service: Service, main: object, scope: str, **members: Any) -> str:
    response = service.client.post("/v1/keys", str(main), json={"name": "page", "scope": scope, **members})
    return str(response.json()["api_key"])


def test_shop_page_shows_recommendations_and_can_do_nothing_else(live: tuple[Service, str], browser: Browser) -> None:
    service, base_url = live
    main = service.published_key(version_name="shop")
    page = bytearray()

    with served_page(page) as shop, served_page(b"<!doctype html><title>Other</title>") as other:
        key = created(service, main, "recommend", origins=[shop])
        page.extend(SHOP_PAGE.format(base=base_url, key=key).encode())
        with opened(browser, shop) as tab:
            tab.page.wait_for_selector("#items li")
            shown = tab.page.eval_on_selector_all("li", "entries => entries.map(entry => entry.innerText)")
            assert shown == ["B", "C", "D"]
            assert calls_that_succeed(tab, base_url, key) == []
        with opened(browser, other) as tab:
            assert "error" in call(tab, base_url, "POST", "/v1/recommendations", key)
            assert calls_that_succeed(tab, base_url, key) == []
        # A browser hides a refusal from the page, so its reason is read here.
        headers = {"X-API-Key": key, "Origin": other}
        rejected = httpx.get(f"{base_url}/v1/popular", headers=headers, trust_env=False)
        assert_problem(rejected, 403, "origin-not-allowed")

    assert key.encode() in page
    assert b"rk_" not in page
    assert service.client.get("/v1/key", str(main)).status_code == 200


def test_form_of_a_foreign_page_cannot_train(
    live: tuple[Service, str], browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """Such a request has no preflight, so Chromium sends it."""
    service, base_url = live
    before = service.stored()
    caplog.set_level("INFO", "recsys.http")
    with served_page(b"<!doctype html><title>Other</title>") as other, opened(browser, other) as tab:
        tab.page.evaluate(SEND_FORM, f"{base_url}/v1/train")

    assert caplog.messages == ["POST (none) 403"]
    assert service.stored() == before


def call(tab: Tab, base_url: str, method: str, path: str, key: str | None) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"} | ({"X-API-Key": key} if key else {})
    body = json.dumps({"user_id": "u1"}) if method == "POST" else None
    arguments = {"base": base_url, "method": method, "path": path, "headers": headers, "body": body}
    result: dict[str, Any] = tab.page.evaluate(CALL, arguments)
    return result


def calls_that_succeed(tab: Tab, base_url: str, key: str) -> list[Any]:
    """Return those calls that a page must not be able to make and can make nevertheless."""
    calls = [
        ("POST", "/v1/train", key),
        ("POST", "/v1/uploads", key),
        ("POST", "/v1/train", None),
        ("POST", "/v1/key/rotate", key),
        ("DELETE", "/v1/key", key),
        ("GET", "/v1/key", key),
        ("POST", "/v1/keys", key),
    ]
    return [made for made in calls if "error" not in call(tab, base_url, *made)]
