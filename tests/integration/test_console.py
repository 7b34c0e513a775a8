"""The console in real Chromium: a shop from its first file to the rotation of its key, and every page on its own."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.integration.browser import Tab, accessibility_findings, chromium, opened
from tests.integration.live_service import LiveService, eventually, orders, running_service
from tests.unit.http_fakes import Service, running, serving

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1200, "height": 800}
PAGES = ("Data", "Versions", "Try it", "Keys")
TRAINING_MS = 600_000  # a minute on an idle machine
# Chromium prints every response with an error status; a page that asks for a model that does not exist gets a 409.
EXPECTED_COMPLAINT = re.compile(r"status of (401|409|410)")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """The service in this process, with hand-made models instead of trained ones."""
    with running(tmp_path_factory.mktemp("small")) as service, serving(service.client.app) as base_url:
        yield service, base_url


@pytest.fixture(scope="module")
def live(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """The local service as `make run` starts it. It is not started where Chromium is missing."""
    folder = tmp_path_factory.mktemp("live")
    with running_service(folder / "data", folder / "log", "--sample") as service:
        yield service


def save_screenshot(page: Page, name: str, *, height: int | None = None) -> None:
    """Write the picture of the page that the documentation shows, if RECSYS_SCREENSHOTS names a folder."""
    folder = os.environ.get("RECSYS_SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"console-{name}.png", clip={"x": 0, "y": 0, **page_size(page, height)})


def page_size(page: Page, height: int | None) -> Any:
    viewport = page.viewport_size or DESKTOP
    return {"width": viewport["width"], "height": height or viewport["height"]}


def sign_in(page: Page, key: object) -> None:
    page.get_by_label("API key").fill(str(key))
    page.get_by_role("button", name="Sign in").click()


def open_page(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_focused()


def shop_export(**options: Any) -> bytes:
    """Return orders as an export of a shop system names its columns."""
    header = "Name,Email,Created at,Lineitem quantity,Lineitem name,Lineitem sku"
    rows = [line.split(",") for line in orders(**options).decode().splitlines()[1:]]
    lines = [
        f"#{1000 + number},{user}@shop.example,2026-01-{1 + int(time) // 60 % 28:02d} 10:00:00 +0000,1,Mug,{item}"
        for number, (user, item, _, time) in enumerate(rows)
    ]
    return "\n".join([header, *lines]).encode() + b"\n"


def drop_file(page: Page, name: str, content: bytes) -> None:
    """Drop a file from the file manager onto the page."""
    transfer = page.evaluate_handle(
        """([name, text]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([text], name, {type: "text/csv"}));
          return transfer;
        }""",
        [name, content.decode()],
    )
    page.locator("label.drop").dispatch_event("drop", {"dataTransfer": transfer})
    expect(page.get_by_role("heading", name=name)).to_be_visible()


def watch_training(page: Page) -> set[str]:
    """Wait for the end of the training, and return what the learning curve said meanwhile."""
    curve, ready = page.locator(".plot"), page.get_by_role("heading", name="Your model is ready")
    said = set()

    def look() -> bool:
        if curve.count():
            said.add(curve.first.get_attribute("aria-label") or "")
        return bool(ready.is_visible())

    eventually(look, "the training did not end", timeout_s=TRAINING_MS / 1000, every_s=0.1)
    return said


def check_nothing_leaked(tab: Tab, service: LiveService, secrets: list[str]) -> None:
    assert tab.foreign_hosts() == set()
    assert [line for line in tab.complaints if not EXPECTED_COMPLAINT.search(line)] == []
    for secret in secrets:
        assert [address for address in tab.requested if secret in address] == []
        assert secret not in service.output()


# -- a first start, and a shop


def shown_ids(page: Page) -> list[str]:
    """Return the item ids of the list: below the title, or instead of it."""
    items = [
        item.locator("p.muted").first.inner_text() or item.locator(".name").inner_text()
        for item in page.locator("ol.items > li").all()
    ]
    return [text.split(" · ")[0] for text in items]


@pytest.mark.timeout(900)
def test_first_start_shows_recommendations_of_the_sample(live: LiveService, browser: Browser) -> None:
    link = eventually(lambda: re.search(r"the link works once\): (\S+)", live.output()), "no link was printed")[1]
    with opened(browser, link, viewport=DESKTOP) as tab:
        page = tab.page
        # The training of the sample may have ended before the page was opened.
        page.wait_for_selector("ol.items, progress")
        if page.locator("progress").count():
            assert accessibility_findings(page) == []
            said = watch_training(page)
            assert any("Epoch 1" in text for text in said), "the curve did not move"
            save_screenshot(page, "outcome", height=658)
            page.get_by_role("button", name="Try recommendations").click()

        expect(page.locator("ol.items > li")).to_have_count(10)
        assert page.get_by_label("User id").input_value() == "17850"
        assert "Based on the user's history" in page.inner_text("main")
        expect(page.locator("ol.items > li").first).to_contain_text(re.compile("[A-Z]{4,}"))  # a title of the sample
        expect(page.locator("ol.items > li").first).to_contain_text("Because of")
        save_screenshot(page, "try")
        page.set_viewport_size(PHONE)
        page.emulate_media(color_scheme="dark")
        check_page(page)
        save_screenshot(page, "phone")

        assert "sign-in" not in page.url
        key = page.evaluate("sessionStorage.getItem('recsys.key')")
        assert live.items(key, "17850") == shown_ids(page)
        check_nothing_leaked(tab, live, [])
    with opened(browser, link) as used:
        expect(used.page.get_by_role("alert")).to_contain_text("The sign-in link was used")


@pytest.mark.timeout(900)
def test_shop_goes_from_a_file_to_a_rotated_key(live: LiveService, browser: Browser) -> None:
    with opened(browser, f"{live.base_url}/", viewport=DESKTOP) as tab:
        page = tab.page
        assert page.url == f"{live.base_url}/console"
        page.get_by_role("button", name="Choose a file").click()
        drop_file(page, "orders.csv", shop_export())
        page.get_by_role("button", name="Train on this file").click()
        watch_training(page)
        page.get_by_text("Show as a table").click()
        expect(page.get_by_role("region", name="Learning curve").get_by_role("row")).not_to_have_count(1)
        assert accessibility_findings(page) == []
        mapping = page.get_by_role("region", name="Columns")
        expect(mapping.get_by_role("row", name="Lineitem sku Item")).to_be_visible()
        expect(mapping.get_by_role("row", name="Email User")).to_be_visible()

        first_key = page.locator("code.key").inner_text()
        assert accessibility_findings(page) == []
        page.get_by_role("button", name="I have stored it").click()
        page.get_by_role("button", name="Try recommendations").click()
        expect(page.locator("ol.items > li")).not_to_have_count(0)
        assert page.get_by_label("User id").input_value() == "u0@shop.example"
        shown = [name.inner_text() for name in page.locator(".name").all()]
        assert shown == live.items(first_key, "u0@shop.example")

        second_version(page)
        roll_back(page, live, first_key)
        second_key = rotate(page)
        assert second_key != first_key
        assert live.client.get("/v1/key", headers={"X-API-Key": first_key}).status_code == 401
        assert live.models(second_key)["current_version"]
        sign_out(page)
        check_nothing_leaked(tab, live, [first_key, second_key])


def second_version(page: Page) -> None:
    open_page(page, "Data")
    page.get_by_role("button", name="Train on another file").click()
    drop_file(page, "more.csv", shop_export(seed=1))
    page.get_by_role("button", name="Train on this file").click()
    watch_training(page)


def roll_back(page: Page, service: LiveService, key: str) -> None:
    """Make the older of two versions current."""
    newest, oldest = (each["version"] for each in service.models(key)["models"])
    assert service.models(key)["current_version"] == newest
    open_page(page, "Versions")
    entries = page.locator("ul.versions > li")
    expect(entries).to_have_count(2)
    save_screenshot(page, "versions", height=450)
    entries.nth(1).get_by_role("button", name="Make current").click()
    dialog = page.get_by_role("dialog")
    assert accessibility_findings(page) == []
    dialog.get_by_role("button", name="Make current").click()
    expect(entries.nth(1).get_by_text("Current", exact=True)).to_be_visible()
    assert service.models(key)["current_version"] == oldest


def rotate(page: Page) -> str:
    open_page(page, "Keys")
    page.get_by_label("The previous key ends").select_option("at once")
    page.get_by_role("button", name="Rotate the key").click()
    key = page.locator("code.key").inner_text()
    page.reload()
    # The tab goes on with the new key, which is not shown again.
    expect(page.get_by_role("heading", name="API key")).to_be_visible()
    assert page.locator("code.key").count() == 0
    return key


def sign_out(page: Page) -> None:
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    assert page.evaluate("sessionStorage.length") == 0
    page.reload()
    expect(page.get_by_label("API key")).to_have_value("")


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


def check_page(page: Page) -> None:
    assert accessibility_findings(page) == []
    width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width[0] <= width[1]


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


def test_held_version_is_compared_and_published(small: tuple[Service, str], browser: Browser) -> None:
    service, base_url = small
    accepted = {"job_id": "job", "key_id": "key", "api_key": None}
    held = {
        "job_id": "job",
        "key_id": "key",
        "status": "held",
        "model_version": "job.1",
        "purpose": "train",
        "progress": None,
        "report": None,
        "metrics": None,
        "problem": None,
        "queue_position": None,
        "held_reasons": [{"code": "fewer-interactions", "text": "The file has 90% fewer interactions."}],
        "comparison": {"current": {"interactions": 1000}, "new": {"interactions": 100}},
    }
    with opened(browser, "about:blank") as tab:
        page = tab.page
        answering(page, base_url, {
            "GET /openapi.json": {"paths": {}},
            "POST /v1/train?": accepted,
            "GET /v1/jobs/job": held,
            "POST /v1/models/job.1/activate": {"key_id": "key", "current_version": "job.1"},
        })  # fmt: skip
        page.goto(f"{base_url}/console")
        sign_in(page, service.published_key(version_name="held"))
        open_page(page, "Data")
        drop_file(page, "bad.csv", b"user_id,item_id\nu1,A\n")
        page.get_by_role("button", name="Train on this file").click()

        expect(page.get_by_role("heading", name="The new version is held")).to_be_visible()
        expect(page.get_by_text("90% fewer interactions")).to_be_visible()
        expect(page.get_by_role("row", name="interactions 1,000 100")).to_be_visible()
        assert accessibility_findings(page) == []
        page.get_by_role("button", name="Publish anyway").click()
        expect(page.get_by_role("heading", name="Your model is ready")).to_be_visible()


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
