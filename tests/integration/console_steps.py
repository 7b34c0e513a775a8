"""Steps that several tests of the console take, and what they check after them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, expect

from tests.integration.browser import accessibility_findings
from tests.integration.live_service import eventually

PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1200, "height": 800}
TRAINING_MS = 300_000


def save_screenshot(page: Page, name: str, *, height: int | None = None) -> None:
    """Write the picture of the page that the documentation shows, if RECSYS_SCREENSHOTS names a folder."""
    folder = os.environ.get("RECSYS_SCREENSHOTS")
    if folder:
        area: Any = {"x": 0, "y": 0, **page_size(page, height)}
        page.screenshot(path=Path(folder) / f"{name}.png", clip=area, full_page=height is not None)


def page_size(page: Page, height: int | None) -> Any:
    viewport = page.viewport_size or DESKTOP
    return {"width": viewport["width"], "height": height or viewport["height"]}


def sign_in(page: Page, key: object) -> None:
    page.get_by_label("API key").fill(str(key))
    page.get_by_role("button", name="Sign in").click()


def open_page(page: Page, name: str) -> None:
    page.get_by_role("navigation", name="Pages").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", level=1, name=name)).to_be_focused()


def drop_file(page: Page, name: str, content: bytes, *, onto: str = "Drop a CSV or Parquet file here") -> None:
    """Drop a file from the file manager onto the page."""
    transfer = page.evaluate_handle(
        """([name, text]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([text], name, {type: "text/csv"}));
          return transfer;
        }""",
        [name, content.decode()],
    )
    page.locator("label.drop", has_text=onto).dispatch_event("drop", {"dataTransfer": transfer})


def watch_training(page: Page, *, until: str = "Your model is ready") -> set[str]:
    """Wait for the end of the training, and return what the learning curve said while it was running."""
    running, curve = page.locator("progress"), page.locator(".plot")
    ended, said = page.get_by_role("heading", name=until), set()

    def look() -> bool:
        label = curve.first.get_attribute("aria-label") if running.count() and curve.count() else None
        if label is not None and running.count():
            said.add(label)
        return bool(ended.is_visible())

    eventually(look, "the training did not end", timeout_s=TRAINING_MS / 1000, every_s=0.1)
    return said


def check_page(page: Page) -> None:
    """Check that the page is accessible and no wider than the screen."""
    assert accessibility_findings(page) == []
    width = page.evaluate("[document.documentElement.scrollWidth, document.documentElement.clientWidth]")
    assert width[0] <= width[1]
