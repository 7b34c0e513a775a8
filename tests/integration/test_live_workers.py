"""Several training workers on one machine: they train different keys at once, and a killed one costs nothing."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.integration.live_service import LiveService, eventually, orders, running_service

pytestmark = [pytest.mark.slow]

CSV = orders(n_users=150, n_items=100)
"""Takes a second or two, so that both trainings are seen while they run."""


def test_two_keys_are_trained_at_once_and_a_killed_worker_costs_nothing(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log", "--workers", "2") as service:
        heartbeats = [service.data_dir / ".scratch" / f"worker-{number}" / "heartbeat" for number in (1, 2)]
        eventually(lambda: all(path.exists() for path in heartbeats), "the workers did not start", timeout_s=120)
        assert [worker.nice() for worker in workers_of(service)] == [min(19, service.server.nice() + 10)] * 2
        assert [worker.environ()["OPENBLAS_NUM_THREADS"] for worker in workers_of(service)] == ["1"] * 2
        submitted = [service.train(CSV, wait_s=0).json() for _ in range(2)]
        eventually(lambda: states(service, submitted) == ["running"] * 2, "the jobs do not run at once", every_s=0.01)
        killed, survivor = workers_of(service)
        killed.kill()
        jobs = [service.finished_job(body["api_key"], body["job_id"]) for body in submitted]
        assert [job["status"] for job in jobs] == ["succeeded"] * 2
        for body, job in zip(submitted, jobs, strict=True):
            assert service.stored_versions(body["key_id"]) == [job["model_version"]]
            assert service.items(body["api_key"], "u0")
        assert survivor.is_running()
        assert len(workers_of(service)) == 2
        metrics = service.client.get("/metrics").text
        assert all(f'recsys_worker_silent_seconds{{worker="{number}"}}' in metrics for number in (1, 2))
        assert service.end(signal.SIGTERM) in (0, 130)
    output = (tmp_path / "log").read_text()
    assert "of 2 ended with status -9. Starting it again." in output
    assert "Traceback" not in output


def workers_of(service: LiveService) -> list[psutil.Process]:
    return [process for process in service.processes() if process.pid != service.process.pid]


def states(service: LiveService, submitted: list[dict[str, Any]]) -> list[str]:
    return [service.job(body["api_key"], body["job_id"])["status"] for body in submitted]
