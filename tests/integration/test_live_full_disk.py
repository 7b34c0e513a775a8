"""`recsys serve` on a disk that becomes full: at each write of an upload and of a training, and for a while.

The data directory is on a small file system in memory, so that these tests need permission to mount one.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from recsys.settings import MIB
from recsys_local.adapters import open_registry
from tests.integration.live_service import LiveService, eventually, orders, running_service
from tests.integration.test_live_crash import assert_no_partial_files

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("live-full-disk")]

DISK_BYTES = 64 * MIB
MIN_FREE_BYTES = 16 * MIB
KIB = 1024
CSV = orders(n_users=300, n_items=200)
"""66 KB. Its training writes 1.6 MB."""

UPLOAD_LEVELS_KIB = (0, 4, 16, 32, 64, 96, 128, 256)


@dataclass
class Disk:
    """A small file system, and the file that fills it."""

    folder: Path

    @property
    def free_bytes(self) -> int:
        """Free space in bytes."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    @contextlib.contextmanager
    def filled(self, *, leaving_bytes: int) -> Iterator[None]:
        """Fill the disk up to `leaving_bytes` within the context."""
        filler = self.folder / "filler"
        try:
            with filler.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, self.free_bytes - leaving_bytes)
            yield
        finally:
            filler.unlink()


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    folder = tmp_path_factory.mktemp("full-disk")
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no command `mount`")
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield Disk(folder)
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.fixture(scope="module")
def service(disk: Disk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveService]:
    log = tmp_path_factory.mktemp("full-disk-log") / "log"
    environment = {"RECSYS_MIN_FREE_BYTES": str(MIN_FREE_BYTES)}
    with running_service(disk.folder / "data", log, environment=environment) as running:
        yield running


@pytest.fixture(scope="module")
def shop(service: LiveService) -> dict[str, Any]:
    """Return the response to the training of a key with one version."""
    return service.trained(CSV)


def assert_is_unready(service: LiveService) -> None:
    response = service.client.get("/health/ready")
    assert (response.status_code, response.json()["type"]) == (503, "urn:recsys:problem:not-ready"), response.text
    assert "almost full" in response.json()["detail"]


def is_ready(service: LiveService) -> bool:
    return service.client.get("/health/ready").status_code == 200


def submitted(service: LiveService, key: str) -> dict[str, Any]:
    response = service.train(CSV, key=key, wait_s=0)
    assert response.status_code == 202, response.text
    body: dict[str, Any] = response.json()
    return body


def is_waiting(service: LiveService) -> bool:
    output = service.output()
    return output.count("Trainings wait.") > output.count("Trainings continue:")


def outcome_of(job: dict[str, Any], service: LiveService) -> str | None:
    """Return the line in which the worker logged the end of the job's first attempt."""
    lines = (line for line in service.output().splitlines() if line.startswith(f"uploads/{job['job_id']}"))
    return next(lines, None)


def test_full_disk_is_reported_and_uploads_are_rejected_until_it_has_space(
    service: LiveService, shop: dict[str, Any], disk: Disk
) -> None:
    before = service.recommend(shop["api_key"], "u0").json()
    with disk.filled(leaving_bytes=0):
        assert_is_unready(service)
        for path in ("/v1/train", "/v1/uploads"):
            response = service.client.post(path, files={"file": CSV}, headers={"X-API-Key": shop["api_key"]})
            assert (response.status_code, response.json()["type"]) == (503, "urn:recsys:problem:not-ready")
            assert "Free some disk space" in response.json()["hint"]
        assert service.recommend(shop["api_key"], "u0").json() == before
        assert service.models(shop["api_key"])["current_version"] == shop["model_version"]
    assert is_ready(service)


def test_training_waits_until_the_disk_has_space(service: LiveService, shop: dict[str, Any], disk: Disk) -> None:
    eventually(lambda: not is_waiting(service), "the worker still waits")
    worker = service.worker()
    worker.suspend()
    job = submitted(service, shop["api_key"])
    with disk.filled(leaving_bytes=MIN_FREE_BYTES // 2):
        worker.resume()
        eventually(lambda: is_waiting(service), "the worker did not report it")
        assert service.job(shop["api_key"], job["job_id"])["status"] == "queued"
    ended = service.finished_job(shop["api_key"], job["job_id"])
    assert ended["model_version"] == f"{job['job_id']}.1", "it needed only one attempt"


@pytest.mark.parametrize("free_kib", [0, 512, 1024, 1280, 1536, 1792])
def test_disk_that_becomes_full_during_a_training_does_not_fail_the_job(
    service: LiveService, shop: dict[str, Any], disk: Disk, free_kib: int
) -> None:
    """The worker is suspended during the training, while the disk is filled up to `free_kib`."""
    key = shop["api_key"]
    before = service.recommend(key, "u0").json()
    worker = service.worker()
    job = submitted(service, key)
    eventually(lambda: service.job(key, job["job_id"])["progress"] is not None, "it did not start", every_s=0.01)
    worker.suspend()
    assert service.job(key, job["job_id"])["status"] == "running"
    with disk.filled(leaving_bytes=free_kib * KIB):
        worker.resume()
        outcome = eventually(lambda: outcome_of(job, service), "the attempt did not end")
        assert_is_unready(service)
        answered = service.recommend(key, "u0").json()
    ended = service.finished_job(key, job["job_id"])
    print(f"{free_kib} KiB: {outcome} -> {ended['model_version']}")
    assert ended["status"] == "succeeded", ended
    with contextlib.closing(open_registry(service.data_dir)) as registry:
        # Without any space, the registry cannot be written either, so that the attempt counts as killed.
        assert registry.get_job(job["job_id"]).counted_attempts <= (1 if free_kib else 2)
    assert answered["items"] == before["items"], "every version is trained on the same file"
    eventually(
        lambda: service.recommend(key, "u0").json()["model_version"] == ended["model_version"], "it is not served"
    )
    assert is_ready(service)
    assert_no_partial_files(service)


def test_upload_on_a_disk_that_becomes_full_is_accepted_or_gets_a_problem(
    disk: Disk, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without the early check, the disk becomes full at each write: of the key, of the job, and of the file."""
    log = tmp_path_factory.mktemp("full-disk-uploads") / "log"
    data_dir = disk.folder / "uploads-data"
    accepted: list[dict[str, Any]] = []
    with running_service(data_dir, log, environment={"RECSYS_MIN_FREE_BYTES": "0"}) as service:
        shop = service.trained(CSV)
        before = service.recommend(shop["api_key"], "u0").json()
        for free_kib in UPLOAD_LEVELS_KIB:
            worker = service.worker()
            worker.suspend()
            with disk.filled(leaving_bytes=free_kib * KIB):
                response = service.train(CSV, wait_s=0)
                assert service.recommend(shop["api_key"], "u0").json() == before
            worker.resume()
            print(f"{free_kib} KiB: {response.status_code} {response.json().get('detail', '')}")
            if response.status_code == 202:
                accepted.append(response.json())
            else:
                assert (response.status_code, response.json()["type"]) == (503, "urn:recsys:problem:unavailable")
        assert 0 < len(accepted) < len(UPLOAD_LEVELS_KIB)
        for job in accepted:
            assert service.finished_job(job["api_key"], job["job_id"])["status"] == "succeeded"
        assert is_ready(service)
        assert_no_partial_files(service)
