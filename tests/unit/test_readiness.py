"""When the local service is not ready, and when it rejects uploads because the disk is almost full."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI

from recsys.errors import NotReady
from recsys.objects.files import FileObjectStore
from recsys.settings import Settings
from recsys_local.adapters import open_registry
from recsys_local.app import create_app
from recsys_local.readiness import WORKER_SILENT_AFTER_S, DataDirCheck, FreeSpaceCheck, WorkerCheck


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    data_dir = tmp_path / "data"
    open_registry(data_dir).close()
    return data_dir


def test_data_directory_in_use_passes(data_dir: Path) -> None:
    DataDirCheck.of(data_dir)()


def test_deleted_data_directory_is_reported(data_dir: Path) -> None:
    check = DataDirCheck.of(data_dir)
    shutil.rmtree(data_dir)
    with pytest.raises(NotReady, match="cannot be found"):
        check()


def test_replaced_registry_is_reported(data_dir: Path) -> None:
    check = DataDirCheck.of(data_dir)
    data_dir.rename(data_dir.with_name("old"))
    open_registry(data_dir).close()
    with pytest.raises(NotReady, match="was replaced"):
        check()


def test_low_disk_space_is_reported(data_dir: Path) -> None:
    FreeSpaceCheck(data_dir, min_free_bytes=1)()
    with pytest.raises(NotReady, match="almost full"):
        FreeSpaceCheck(data_dir, min_free_bytes=1 << 60)()


def test_silent_worker_is_reported() -> None:
    WorkerCheck(lambda: [WORKER_SILENT_AFTER_S - 1])()
    with pytest.raises(NotReady, match="The training worker has not reported for 31 seconds"):
        WorkerCheck(lambda: [WORKER_SILENT_AFTER_S + 1])()


def test_silent_worker_of_several_is_named() -> None:
    with pytest.raises(NotReady, match="Training worker 2 of 3 has not reported"):
        WorkerCheck(lambda: [0.0, WORKER_SILENT_AFTER_S + 1, 0.0])()


@pytest.fixture
def full_service(data_dir: Path) -> Iterator[FastAPI]:
    """Return the app of a service whose disk is full."""
    registry, store, settings = open_registry(data_dir), FileObjectStore(data_dir), Settings(data_dir=data_dir)
    check = FreeSpaceCheck(data_dir, min_free_bytes=1 << 60)
    yield create_app(registry, store, settings, readiness_checks=[check], check_space=check)
    registry.close()


def request(app: FastAPI, method: str, path: str, **options: Any) -> httpx.Response:
    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as client:
            return await client.request(method, path, **options)

    return anyio.run(send)


def test_failed_check_makes_the_service_unready_with_the_reason(full_service: FastAPI) -> None:
    response = request(full_service, "GET", "/health/ready")
    assert response.status_code == 503
    assert "almost full" in response.json()["detail"]
    assert request(full_service, "GET", "/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/v1/train", "/v1/validate", "/v1/uploads", "/local/uploads"])
def test_uploads_are_rejected_before_anything_is_written(full_service: FastAPI, data_dir: Path, path: str) -> None:
    response = request(full_service, "POST", path, files={"file": ("orders.csv", b"user_id,item_id\n")})
    assert response.status_code == 503
    assert response.headers["content-type"] == "application/problem+json"
    assert not list((data_dir / "uploads").glob("*"))


def test_other_requests_are_answered_on_a_full_disk(full_service: FastAPI) -> None:
    assert request(full_service, "POST", "/v1/recommendations", json={"user_id": "u1"}).status_code == 401
