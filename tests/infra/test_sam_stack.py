"""The stack of `make local-aws` with Docker: `sam local start-api` serves HTTP, and the functions run in containers.

`make test-docker` runs these tests.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect

from local_aws.__main__ import LocalStack, running_with_docker
from local_aws.processes import free_port
from tests.infra.stack_flows import EXPECTED, invalid_drop, send_items, statuses
from tests.infra.train_container import docker
from tests.integration.browser import chromium, opened
from tests.integration.console_steps import DESKTOP, check_page, drop_file, open_page, watch_training
from verify_aws.flows import Bucket, Service, drop_and_claim, orders_csv, presigned_upload, upload_and_recommend

CONTAINER_START_MS = 60_000
"""The first request to a function may start a container."""
pytestmark = [pytest.mark.docker, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sam-stack")


@pytest.fixture(scope="module")
def stack(docker_address: str, sam: Path, folder: Path) -> Iterator[LocalStack]:
    with running_with_docker(folder, port=free_port(), emulator_port=free_port(), endpoint_url=None) as running:
        yield running
    ids = re.findall("SAM_CONTAINER_ID: (\\w+)", "".join(log.read_text() for log in folder.glob("start-*.log")))
    assert ids
    running_ids = docker("ps", "--no-trunc", "--quiet").split()
    assert set(ids) & set(running_ids) == set()


def test_console_trains_on_a_file_and_shows_recommendations(stack: LocalStack) -> None:
    with chromium() as browser, opened(browser, f"{stack.url}/", viewport=DESKTOP) as tab:
        page = tab.page
        page.set_default_timeout(CONTAINER_START_MS)
        page.get_by_role("button", name="Choose a file").click()
        drop_file(page, "orders.csv", orders_csv())
        page.get_by_role("button", name="Train on this file").click()
        watch_training(page)
        check_page(page)
        page.get_by_role("button", name="I have stored it").click()
        page.get_by_role("button", name="Try recommendations").click()
        expect(page.locator("ol.items > li")).to_have_count(10, timeout=CONTAINER_START_MS)
        expect(page.get_by_text("Based on the user's history.")).to_be_visible()
        open_page(page, "Versions")
        page.get_by_text("Quality in detail").first.click()
        expect(page.locator(".plot canvas").first).to_be_visible(timeout=CONTAINER_START_MS)
        open_page(page, "Keys")
        expect(page.get_by_role("heading", level=2, name="Usage")).to_be_visible()
        assert (tab.foreign_hosts(), tab.complaints) == (set(), [])


def test_drops_and_uploads_are_trained_on_and_every_request_has_the_status_of_aws(stack: LocalStack) -> None:
    service, bucket = Service(stack.url), Bucket(stack.emulator.client("s3"), stack.bucket)
    shop = upload_and_recommend(service)
    send_items(service, shop)
    presigned_upload(service)
    drop_and_claim(service, bucket)
    invalid_drop(bucket)
    bucket.drop("inbox/table.csv", orders_csv())
    token = bucket.receipt("receipts/table.json")["claim_token"]
    assert statuses(service, shop, token) == EXPECTED
