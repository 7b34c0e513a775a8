"""The pages of the console in real Chromium, each on its own, beside a service with hand-made models."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from recsys_local.training_report import render
from recsys_train.data.report import DataReport
from tests.integration.browser import accessibility_findings, chromium, opened
from tests.integration.console_steps import DESKTOP, PHONE, check_page, drop_file, open_page, sign_in
from tests.unit.http_fakes import Service, running, serving
from tests.unit.test_training_report import METRICS

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

PAGES = ("Data", "Versions", "Try it", "Keys")
REPORT: dict[str, Any] = {
    "source": "orders.csv",
    "metrics": METRICS
    | {
        "verdict": "The model ranks better than plain popularity.",
        "lift_over_popularity": 2.5,
        "lift_interval_95": [2.0, 3.0],
        "reliability": {"table": [{"mean_score": 0.02, "observed": 0.03, "pairs": 900}]},
        "training": {"curve": [{"epoch": epoch, "loss": 1 / epoch, "validation_ndcg": 0.2} for epoch in (1, 2)]},
        "data": DataReport(mapping={"user": "Email"}, mapping_source="names", format={"type": "csv"}).to_json(),
    },
    "items": {
        "points": [[-1, 0, 0.5, "Green tea"], [0, 1, 0.25, "Mug"], [1, -1, 0.25, "Jam"]],
        "n_items": 3,
        "examples": [{"name": "Green tea", "similar": ["Mug", "Jam"]}],
    },
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """The service in this process, with hand-made models instead of trained ones."""
    with running(tmp_path_factory.mktemp("small")) as service, serving(service.client.app) as base_url:
        yield service, base_url


# -- every page


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_accessible_and_fits_the_screen(
    small: tuple[Service, str], browser: Browser, scheme: Any, viewport: Any
) -> None:
    service, base_url = small
    key = service.published_key(version_name=f"{scheme}-{viewport['width']}")
    service.client.post("/v1/keys", str(key), json={"name": "shop page", "scope": "recommend"})
    with opened(browser, f"{base_url}/console", viewport=viewport, color_scheme=scheme) as tab:
        page = tab.page
        check_page(page)
        sign_in(page, key)
        for name in PAGES:
            open_page(page, name)
            page.wait_for_load_state("networkidle")
            check_page(page)
        assert (tab.foreign_hosts(), tab.complaints) == (set(), [])


def test_console_can_be_used_with_the_keyboard_only(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    key = service.published_key(version_name="keyboard")
    with opened(browser, f"{base_url}/console") as tab:
        page = tab.page
        expect(page.get_by_role("heading", level=1)).to_be_focused()
        for _ in range(2):  # "Choose a file", then the field
            page.keyboard.press("Tab")
        page.keyboard.type(str(key))
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", level=1, name="Try it")).to_be_focused()

        page.get_by_role("link", name="Versions").focus()
        page.keyboard.press("Enter")

        expect(page.get_by_role("heading", level=1, name="Versions")).to_be_focused()
        assert page.title() == "Versions – recsys console"


def test_rejected_key_is_explained(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    scoped = service.client.post("/v1/keys", str(service.new_key()), json={"name": "a", "scope": "train"}).json()
    with opened(browser, f"{base_url}/console") as tab:
        for key, text in (("rk_wrong", "API key"), (scoped["api_key"], "has the scope `train`")):
            sign_in(tab.page, key)
            expect(tab.page.get_by_role("alert")).to_contain_text(text)
        assert tab.page.evaluate("sessionStorage.getItem('recsys.key')") is None


def test_key_that_is_revoked_meanwhile_ends_the_session(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    key = service.published_key(version_name="revoked")
    with opened(browser, f"{base_url}/console") as tab:
        sign_in(tab.page, key)
        expect(tab.page.locator("ol.items > li")).not_to_have_count(0)
        service.client.delete("/v1/key", str(key))
        tab.page.get_by_role("link", name="Versions").click()

        expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
        expect(tab.page.get_by_role("status")).to_have_text("The API key is no longer valid.")


def test_scoped_key_is_created_and_deleted(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    key = service.published_key(version_name="scoped")
    with opened(browser, f"{base_url}/console") as tab:
        page = tab.page
        sign_in(page, key)
        open_page(page, "Keys")
        page.get_by_label("Name").fill("shop page")
        page.get_by_label("Origins").fill("https://shop.example")
        page.get_by_role("button", name="Create the key").click()
        created = page.locator("code.key").inner_text()
        expect(page.get_by_role("cell", name="https://shop.example")).to_be_visible()
        assert service.client.recommend(created).status_code == 200

        page.get_by_role("cell").get_by_role("button", name="Delete").click()
        page.get_by_role("dialog").get_by_role("button", name="Delete").click()

        expect(page.get_by_role("region", name="Scoped keys").get_by_role("cell")).to_have_count(0)
        assert service.client.get("/v1/keys", str(key)).json() == {"keys": []}


def test_basket_grows_and_similar_items_are_shown(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    with opened(browser, f"{base_url}/console") as tab:
        page = tab.page
        sign_in(page, service.published_key(version_name="basket"))
        names = page.locator(".name")
        expect(names).to_have_text(["C", "A", "B", "D"])  # the most popular ones first

        page.get_by_role("button", name="Add to basket: C").click()
        expect(names).to_have_text(["A", "B", "D"])
        page.get_by_role("button", name="Add to basket: B").click()
        expect(names).to_have_text(["A", "D"])
        assert page.get_by_label("Items, oldest first").input_value() == "C\nB"

        page.get_by_role("button", name="Similar: D").click()
        expect(names).to_have_text(["A", "B", "C"])
        page.get_by_text("The request").click()
        assert "/v1/items/D/similar?n=10" in page.inner_text("pre")


# -- the training report


@pytest.mark.parametrize(("viewport", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")], ids=["desktop", "phone"])
def test_training_report_is_accessible_and_needs_no_network(
    browser: Browser, tmp_path: Path, viewport: Any, scheme: Any
) -> None:
    report = tmp_path / "report.html"
    report.write_text(render(REPORT), encoding="utf-8")
    with opened(browser, report.as_uri(), viewport=viewport, color_scheme=scheme) as tab:
        page = tab.page
        expect(page.get_by_role("heading", level=1, name="Training on orders.csv")).to_be_visible()
        expect(page.get_by_role("heading", level=2)).to_have_text(
            [
                *("Quality", "Learning curve", "Quality by length of the history", "Quality by popularity of the item"),
                *("Reliability of the scores", "Map of the items", "Data"),
            ]
        )
        expect(page.locator(".plot canvas")).to_have_count(6)
        for summary in page.get_by_text("Show as a table").all():
            summary.click()
        expect(page.get_by_role("row", name="3–4 1,234 0.250 0.050 0.300 0.100")).to_be_visible()
        check_page(page)
        assert (tab.requested, tab.complaints) == ([report.as_uri()], [])


def test_items_are_found_and_named_on_the_map(browser: Browser, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    report.write_text(render(REPORT), encoding="utf-8")
    with opened(browser, report.as_uri(), viewport=DESKTOP) as tab:
        page = tab.page
        page.get_by_label("Find items").fill("TEA")
        expect(page.get_by_text("1 found: Green tea")).to_be_visible()
        plot = page.locator(".map .u-over")
        plot.scroll_into_view_if_needed()
        area = plot.bounding_box()
        assert area is not None
        # The map is 0.2 wider than its points on each side: Green tea is at its left end, in the middle.
        page.mouse.move(area["x"] + area["width"] * 0.2 / 2.4, area["y"] + area["height"] / 2)
        expect(page.get_by_text("Green tea (50% of the users)")).to_be_visible()
        page.mouse.move(0, 0)
        expect(page.get_by_text("Green tea (50% of the users)")).to_be_hidden()


# -- services with more routes, by responses of their documented shape


def answering(page: Page, base_url: str, responses: dict[str, Any]) -> None:
    """Answer `METHOD path` with the given JSON instead of passing the request on to the service."""

    def answer(route: Route) -> None:
        path = route.request.url.removeprefix(base_url)
        found = responses.get(f"{route.request.method} {path}")
        if found is None:
            route.continue_()
        else:
            route.fulfill(status=200, content_type="application/json", body=json.dumps(found))

    page.route("**/*", answer)


def test_parts_of_missing_routes_are_not_shown(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    with opened(browser, "about:blank") as tab:
        page = tab.page
        answering(page, base_url, {"GET /openapi.json": {"paths": {}}})
        page.goto(f"{base_url}/console")
        sign_in(page, service.published_key(version_name="older"))
        open_page(page, "Keys")
        expect(page.get_by_role("heading", level=2)).to_have_text(["API key", "Scoped keys", "Revoke"])
        open_page(page, "Versions")
        expect(page.get_by_role("button", name="Pin")).to_have_count(0)


def test_training_of_a_session_that_ended_does_not_appear_in_the_next(
    small: tuple[Service, str], browser: Browser
) -> None:
    service, base_url = small
    progress = {"phase": "fitting", "epoch": 1, "epochs": 3, "loss": 0.5, "validation_ndcg": 0.1}
    job = {"job_id": "job", "key_id": "key", "status": "running", "progress": progress, "report": None, "metrics": None}
    with opened(browser, "about:blank") as tab:
        page = tab.page
        answering(page, base_url, {
            "POST /v1/train?": {"job_id": "job", "key_id": "key", "api_key": None},
            "GET /v1/jobs/job": {**job, "problem": None, "model_version": None, "queue_position": None},
        })  # fmt: skip
        page.goto(f"{base_url}/console")
        sign_in(page, service.published_key(version_name="ended"))
        open_page(page, "Data")
        drop_file(page, "orders.csv", b"user_id,item_id\nu1,A\n")
        page.get_by_role("button", name="Train on this file").click()
        expect(page.get_by_role("img", name="Learning curve. Epoch 1: loss 0.500, NDCG@20 0.100.")).to_be_visible()

        page.get_by_role("button", name="Sign out").click()
        sign_in(page, service.published_key(version_name="next"))
        open_page(page, "Data")

        page.wait_for_timeout(1500)  # three polls
        expect(page.get_by_text("Drop a CSV or Parquet file here")).to_be_visible()


def test_titles_pictures_and_reasons_are_shown(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    attributes = {
        "title": "Tea mug",
        "price": 4.5,
        "url": "https://shop.example/mug",
        "image_url": "javascript:alert(1)",
    }
    item = {"item_id": "A", "rank": 1, "score": 0.9, "attributes": attributes}
    reasons = [{"item_id": "B", "contribution": 1.5, "title": "Tea pot"}]
    request = {"properties": {"recent_items": {}, "fields": {}, "explain": {}}}
    with opened(browser, "about:blank") as tab:
        page = tab.page
        answering(page, base_url, {
            "GET /openapi.json": {"paths": {}, "components": {"schemas": {"Request": request}}},
            "POST /v1/recommendations": {
                "strategy": "personal", "model_version": "v", "user_id": "u1",
                "items": [{**item, "reasons": reasons}],
            },
        })  # fmt: skip
        page.goto(f"{base_url}/console")
        sign_in(page, service.published_key(version_name="titles"))
        page.get_by_text("A user", exact=True).click()
        page.get_by_label("User id").fill("u1")
        page.get_by_role("button", name="Show recommendations").click()

        assert page.get_by_role("link", name="Tea mug").get_attribute("href") == "https://shop.example/mug"
        expect(page.locator("ol.items")).to_contain_text("Because of Tea pot")
        assert page.locator("ol.items img").count() == 0  # its address is not one of the web
        assert accessibility_findings(page) == []


def test_usage_and_history_are_shown(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    limits = [{"name": "trainings per hour", "limit": 20, "remaining": 19, "reset_s": 120}]
    event = {"at": "2026-11-24T12:00:00Z", "event": "key.rotated", "detail": {"overlap_s": 0}}
    paths = {"/v1/usage": {"get": {}}, "/v1/audit": {"get": {}}}
    with opened(browser, "about:blank") as tab:
        page = tab.page
        answering(page, base_url, {
            "GET /openapi.json": {"paths": paths},
            "GET /v1/usage": {"key_id": "key", "limits": limits, "versions": 2, "stored_bytes": 1_500_000},
            "GET /v1/audit": {"events": [event], "next": "older"},
            "GET /v1/audit?cursor=older": {"events": [{**event, "event": "key.created"}], "next": None},
        })  # fmt: skip
        page.goto(f"{base_url}/console")
        sign_in(page, service.published_key(version_name="usage"))
        open_page(page, "Keys")
        expect(page.get_by_role("row", name="trainings per hour 19 20 2 minutes")).to_be_visible()
        expect(page.get_by_text("1.5 MB")).to_be_visible()
        page.get_by_role("button", name="Show older events").click()
        expect(page.get_by_role("cell", name="key.created")).to_be_visible()
        expect(page.get_by_role("button", name="Show older events")).to_have_count(0)
        assert accessibility_findings(page) == []
