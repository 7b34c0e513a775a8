"""The console in real Chromium with the real service: a first start, and a shop from its first file to signing out."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.integration.browser import Tab, accessibility_findings, chromium, opened
from tests.integration.console_steps import (
    DESKTOP,
    PHONE,
    check_page,
    drop_file,
    open_page,
    save_screenshot,
    watch_training,
)
from tests.integration.live_service import LiveService, eventually, running_service
from tests.integration.sample_part import SamplePart, email_of

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser"), pytest.mark.timeout(600)]

# Chromium prints every response with an error status; a page that asks for a model that does not exist gets a 409.
EXPECTED_COMPLAINT = re.compile(r"status of (401|409|410)")
INCOMPLETE_ROWS = 900
"""Rows of the bad file: the beginning of the export, with a tenth of its customers."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def part() -> SamplePart:
    """The shop's data. Its epochs take seconds, because the progress of a training is written once per second."""
    return SamplePart.read(n_customers=800, n_items=500)


@pytest.fixture(scope="module")
def live(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    """The local service as `make run` starts it, with a part of the sample. It is not started without Chromium."""
    folder = tmp_path_factory.mktemp("live")
    command = SamplePart.read(n_customers=300, n_items=300).command(folder / "sample")
    with running_service(folder / "data", folder / "log", "--sample", command=command) as service:
        yield service


def check_nothing_leaked(tab: Tab, service: LiveService, secrets: list[str]) -> None:
    assert tab.foreign_hosts() == set()
    assert [line for line in tab.complaints if not EXPECTED_COMPLAINT.search(line)] == []
    for secret in secrets:
        assert [address for address in tab.requested if secret in address] == []
        assert secret not in service.output()


def shown_ids(page: Page) -> list[str]:
    """Return the item ids of the list: below the title, or instead of it."""
    items = [
        item.locator("p.muted").first.inner_text() or item.locator(".name").inner_text()
        for item in page.locator("ol.items > li").all()
    ]
    return [text.split(" · ")[0] for text in items]


def test_first_start_shows_recommendations_of_the_sample(live: LiveService, browser: Browser) -> None:
    link = eventually(lambda: re.search(r"the link works once\): (\S+)", live.output()), "no link was printed")[1]
    with opened(browser, link, viewport=DESKTOP) as tab:
        page = tab.page
        # The training of the sample may have ended before the page was opened.
        page.wait_for_selector("ol.items, progress")
        if page.locator("progress").count():
            assert accessibility_findings(page) == []
            watch_training(page)
            page.get_by_role("button", name="Try recommendations").click()

        expect(page.locator("ol.items > li")).to_have_count(10)
        assert page.get_by_label("User id").input_value() == "17850"
        assert "Based on the user's history" in page.inner_text("main")
        expect(page.locator("ol.items > li").first).to_contain_text(re.compile("[A-Z]{4,}"))  # a title of the sample
        expect(page.locator("ol.items > li").first).to_contain_text("Because of")
        save_screenshot(page, "console-try")
        page.set_viewport_size(PHONE)
        page.emulate_media(color_scheme="dark")
        check_page(page)
        save_screenshot(page, "console-phone")

        assert "sign-in" not in page.url
        key = page.evaluate("sessionStorage.getItem('recsys.key')")
        assert live.items(key, "17850") == shown_ids(page)
        check_nothing_leaked(tab, live, [])
    with opened(browser, link) as used:
        expect(used.page.get_by_role("alert")).to_contain_text("The sign-in link was used")


def test_shop_goes_from_a_file_to_signing_out(live: LiveService, browser: Browser, part: SamplePart) -> None:
    with opened(browser, f"{live.base_url}/", viewport=DESKTOP) as tab:
        page = tab.page
        assert page.url == f"{live.base_url}/console"
        page.get_by_role("button", name="Choose a file").click()
        first_key = train_on_export(page, part)
        send_catalogue(page, part)
        try_recommendations(page, live, first_key, part)
        hold_and_publish(page, live, first_key, part)
        roll_back(page, live, first_key)
        second_key = rotate(page)
        assert second_key != first_key
        assert live.client.get("/v1/key", headers={"X-API-Key": first_key}).status_code == 401
        assert live.models(second_key)["current_version"]
        sign_out(page)
        check_nothing_leaked(tab, live, [first_key, second_key])


def train_on_export(page: Page, part: SamplePart) -> str:
    """Drop the export, see the mapping before the training, train, see the outcome, and return the new key."""
    drop_file(page, "orders.csv", part.shop_export())
    expect(page.get_by_role("heading", name="orders.csv")).to_be_visible()
    mapping = page.get_by_role("region", name="Columns")
    expect(mapping.get_by_role("row", name="Lineitem sku Item")).to_be_visible()
    expect(mapping.get_by_role("row", name="Email User")).to_be_visible()
    assert accessibility_findings(page) == []

    page.get_by_role("button", name="Train on this file").click()
    said = watch_training(page)
    assert any(re.search(r"Epoch \d", text) for text in said), f"the curve did not move: {said}"
    curve = page.get_by_role("region", name="Learning curve").first
    curve.get_by_text("Show as a table").click()
    expect(curve.get_by_role("row")).not_to_have_count(1)
    for title in ("Quality by length of the history", "Quality by popularity of the item"):
        expect(page.get_by_role("heading", name=title)).to_be_visible()
    assert accessibility_findings(page) == []
    key = page.locator("code.key").inner_text()
    page.get_by_role("button", name="I have stored it").click()
    save_screenshot(page, "console-outcome", height=1100)
    return key


def send_catalogue(page: Page, part: SamplePart) -> None:
    """Send a file of items that cannot be used, then the catalogue."""
    onto = "Drop a catalogue here"
    drop_file(page, "bad.csv", b"title,price\nTea,4\n", onto=onto)
    expect(page.get_by_role("alert")).to_contain_text("item_id")
    drop_file(page, "items.csv", part.catalogue(), onto=onto)
    card = page.get_by_role("region", name="Item catalogue")
    expect(card.get_by_text(f"{len(part.titles)} items added")).to_be_visible(timeout=30_000)
    expect(card.get_by_text("with the columns title")).to_be_visible()
    assert accessibility_findings(page) == []


def try_recommendations(page: Page, service: LiveService, key: str, part: SamplePart) -> None:
    """Read recommendations with titles and reasons."""
    user = email_of(part.rows[0][0])
    eventually(lambda: service.recommend(key, user, fields=["title"]).status_code == 200, "there is no catalogue yet")
    page.get_by_role("button", name="Try recommendations").click()
    expect(page.locator("ol.items > li")).to_have_count(10)
    assert page.get_by_label("User id").input_value() == user
    shown = shown_ids(page)
    assert shown == service.items(key, user)
    expect(page.locator("ol.items > li").first).to_contain_text(part.titles[shown[0]])
    reasons = page.locator("ol.items > li").first.get_by_text("Because of").inner_text()
    assert any(title in reasons for title in part.titles.values())


def hold_and_publish(page: Page, service: LiveService, key: str, part: SamplePart) -> None:
    """Train on an incomplete export, whose version is held, compare it, and publish it anyway."""
    first = service.models(key)["current_version"]
    open_page(page, "Data")
    page.get_by_role("button", name="Train on another file").click()
    drop_file(page, "incomplete.csv", part.shop_export(INCOMPLETE_ROWS))
    page.get_by_role("button", name="Train on this file").click()
    watch_training(page, until="The new version is held")
    expect(page.get_by_text(re.compile(r"The file has [\d,]+ of the [\d,]+ users"))).to_be_visible()
    expect(page.get_by_role("region", name="Comparison with the current version").get_by_role("row")).not_to_have_count(
        1
    )
    assert accessibility_findings(page) == []
    save_screenshot(page, "console-held")
    assert service.models(key)["current_version"] == first

    page.get_by_role("button", name="Publish anyway").click()
    expect(page.get_by_role("heading", name="Your model is ready")).to_be_visible()
    assert service.models(key)["current_version"] != first


def roll_back(page: Page, service: LiveService, key: str) -> None:
    """Look at both versions in detail, and make the older one current."""
    newest, oldest = (each["version"] for each in service.models(key)["models"])
    assert service.models(key)["current_version"] == newest
    open_page(page, "Versions")
    entries = page.locator("ul.versions > li")
    expect(entries).to_have_count(2)
    save_screenshot(page, "console-versions", height=450)
    entries.nth(1).get_by_text("Quality in detail").click()
    expect(entries.nth(1).locator(".plot canvas")).not_to_have_count(0)
    assert accessibility_findings(page) == []
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
