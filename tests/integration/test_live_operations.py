"""What an operator does with `recsys serve`, and what can go wrong with its worker and its disk."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from recsys_local.adapters import open_registry
from recsys_local.backup import create_backup, restore_backup
from tests.integration.live_service import RECSYS, LiveService, clean_environment, eventually, orders, running_service

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("live-operations")]

CSV = orders()
N_BACKUPS = 20
SETTLE_S = 5.0
"""A few more looks, after which the worker knows that nothing is new."""
N_RESTARTS = 6
"""One more than the number of attempts that a job has."""


def submit(service: LiveService) -> dict[str, Any]:
    response = service.train(CSV, wait_s=0)
    assert response.status_code == 202, response.text
    body: dict[str, Any] = response.json()
    return body


def stop_while_running(service: LiveService, key: str, job_id: str) -> None:
    eventually(lambda: service.job(key, job_id)["progress"] is not None, "it did not start", timeout_s=120)
    assert service.job(key, job_id)["status"] == "running"
    assert service.end() in (0, 130)


def test_orderly_restarts_during_a_training_do_not_fail_the_job(tmp_path: Path) -> None:
    data_dir, log = tmp_path / "data", tmp_path / "log"
    with running_service(data_dir, log) as service:
        submitted = submit(service)
        key, job_id = submitted["api_key"], submitted["job_id"]
        stop_while_running(service, key, job_id)
    for _ in range(N_RESTARTS - 1):
        with running_service(data_dir, log) as service:
            stop_while_running(service, key, job_id)
    with running_service(data_dir, log) as service:
        job = service.finished_job(key, job_id)
    assert job["status"] == "succeeded"
    assert job["model_version"] == f"{job_id}.{N_RESTARTS + 1}"


def test_outcome_of_a_job_is_logged_once_over_all_starts(tmp_path: Path) -> None:
    data_dir, log = tmp_path / "data", tmp_path / "log"
    with running_service(data_dir, log) as service:
        first = service.trained(CSV)
        eventually(lambda: "is live" in service.output(), "the outcome was not logged")
        service.end()
    with running_service(data_dir, log) as service:
        second = service.trained(CSV)
        eventually(lambda: service.output().count("is live") == 2, "the outcome was not logged")
    versions = re.findall(r"version (\S+) is live", log.read_text())
    assert versions == [first["model_version"], second["model_version"]]


def test_deleted_data_directory_makes_the_service_unready(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        shutil.rmtree(service.data_dir, ignore_errors=True)
        response = service.client.get("/health/ready")
        assert response.status_code == 503
        assert "registry" in response.json()["detail"]


def test_hung_worker_makes_the_service_unready_and_is_replaced(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        heartbeat = service.data_dir / ".scratch" / "worker-1" / "heartbeat"
        eventually(heartbeat.exists, "the worker did not start", timeout_s=120)
        hung = service.worker()
        hung.suspend()
        eventually(lambda: service.client.get("/health/ready").status_code == 503, "it is still ready", timeout_s=60)
        assert "training worker" in service.client.get("/health/ready").json()["detail"]
        eventually(lambda: service.worker().pid != hung.pid, "it was not replaced", timeout_s=90)
        eventually(lambda: service.client.get("/health/ready").status_code == 200, "it is not ready", timeout_s=120)


def test_almost_full_disk_rejects_uploads_and_nothing_else(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        key = service.trained(CSV)["api_key"]
        service.end()
    environment = {"RECSYS_MIN_FREE_BYTES": str(1 << 60)}
    with running_service(tmp_path / "data", tmp_path / "log", environment=environment, until="live") as service:
        assert service.client.get("/health/ready").status_code == 503
        response = service.train(CSV, wait_s=0)
        assert (response.status_code, response.json()["type"]) == (503, "urn:recsys:problem:not-ready")
        assert "almost full" in response.json()["detail"]
        assert service.items(key, "u0")


def test_backups_while_serving_and_training_contain_everything_acknowledged(tmp_path: Path) -> None:
    acknowledged: list[dict[str, Any]] = []
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        trained = service.trained(CSV)
        for number in range(N_BACKUPS):
            if number % 4 == 0:
                acknowledged.append(submit(service))
            create_backup(service.data_dir, tmp_path / f"backup-{number}")
            restored = tmp_path / f"restored-{number}"
            restore_backup(tmp_path / f"backup-{number}", restored)
            registry = open_registry(restored)
            assert {job["job_id"] for job in acknowledged} <= {job.job_id for job in registry.list_jobs()}
            assert {job["key_id"] for job in acknowledged} <= {key.key_id for key in registry.list_keys()}
            registry.close()
        expected = service.items(trained["api_key"], "u0")
    with running_service(restored, tmp_path / "log") as service:
        assert service.items(trained["api_key"], "u0") == expected
        for job in acknowledged:
            assert service.finished_job(job["api_key"], job["job_id"])["status"] == "succeeded"


def test_after_an_orderly_stop_the_registry_file_alone_is_complete(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        trained = service.trained(CSV)
        assert service.end() in (0, 130)
    for rest in (tmp_path / "data").glob("registry.sqlite3-*"):
        rest.unlink()
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        assert service.items(trained["api_key"], "u0")


def test_start_beside_models_without_a_registry_is_rejected(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        service.trained(CSV)
        service.end()
    for file in (tmp_path / "data").glob("registry.sqlite3*"):
        file.unlink()
    ended = subprocess.run(
        [RECSYS, "serve", "--port", "0", "--data-dir", tmp_path / "data"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 1
    assert "recsys restore" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_idle_worker_with_ten_thousand_old_uploads_uses_little_cpu(tmp_path: Path) -> None:
    uploads = tmp_path / "data" / "uploads"
    uploads.mkdir(parents=True)
    for number in range(10_000):
        (uploads / f"old{number}.csv").write_bytes(b"")
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        worker = service.worker()
        eventually(lambda: service.output().count("Object ignored") == 10_000, "not every file was read", timeout_s=200)
        time.sleep(SETTLE_S)
        used_s = sum(worker.cpu_times()[:2])
        time.sleep(10)
        assert sum(worker.cpu_times()[:2]) - used_s < 10 * 0.05
        assert service.trained(CSV)["status"] == "succeeded"
