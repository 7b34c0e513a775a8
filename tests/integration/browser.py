"""Debian's Chromium, driven by Playwright, and a web server for the pages of another origin."""

from __future__ import annotations

import gzip
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

_EXECUTABLES = ("chromium", "chromium-headless-shell")
_AXE = Path(__file__).with_name("axe") / "axe.min.js.gz"
_OPTIONS = [
    # No name is resolved, so nothing but this machine's addresses can be reached.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    "--disable-background-networking",
]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium without a window; skips the test where it is not installed."""
    executable = next(filter(None, map(shutil.which, _EXECUTABLES)), None)
    if executable is None:
        pytest.skip("Chromium is not installed: apt-get install chromium-headless-shell")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=_OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Tab:
    """A page, and what it did: the addresses it requested, and its errors and violations of its own policy."""

    page: Page
    requested: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def foreign_hosts(self) -> set[str]:
        """Return the hosts other than the loopback interface that the page requested."""
        hosts = {urlsplit(address).hostname for address in self.requested}
        return {host for host in hosts if host not in (None, "127.0.0.1")}


@contextmanager
def opened(browser: Browser, address: str, **options: Any) -> Iterator[Tab]:
    """Open a page in a profile of its own."""
    context = browser.new_context(**options)
    try:
        tab = Tab(context.new_page())
        tab.page.on("request", lambda request: tab.requested.append(request.url))
        tab.page.on("pageerror", lambda error: tab.complaints.append(str(error)))
        tab.page.on("console", lambda line: tab.complaints.append(line.text) if line.type == "error" else None)
        tab.page.goto(address)
        yield tab
    finally:
        context.close()


@contextmanager
def served_page(html: bytes | bytearray) -> Iterator[str]:
    """Serve one page on a free port, and yield its origin. A bytearray can be filled once the origin is known."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(html)))
            self.end_headers()
            self.wfile.write(bytes(html))

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def accessibility_findings(page: Page) -> list[str]:
    """Return the serious and critical findings of axe on the page as it is shown now."""
    page.evaluate(gzip.decompress(_AXE.read_bytes()).decode())
    findings = page.evaluate(
        "async () => (await axe.run()).violations.map(({impact, id, nodes}) => ({impact, id, html: nodes[0].html}))"
    )
    return [f"{each['id']}: {each['html']}" for each in findings if each["impact"] in ("serious", "critical")]
