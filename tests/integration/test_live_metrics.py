"""Metrics, logs and the audit log of a running service, over real sockets."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
import pytest

from tests.integration.live_service import LiveService, eventually, orders, running_service, with_key

pytestmark = pytest.mark.slow


def metrics(service: LiveService) -> dict[str, float]:
    response = service.client.get("/metrics")
    assert response.status_code == 200, response.text
    lines = [line.rpartition(" ") for line in response.text.splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


def test_a_training_and_its_recommendations_show_in_metrics_logs_and_audit_log(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log", "--log-json") as service:
        trained = service.trained(orders())
        key = trained["api_key"]
        assert service.train(b"user_id,item_id\nu1,i1\n", key=key).status_code == 422
        trace = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}
        for _ in range(3):
            service.client.get("/v1/popular", headers={**with_key(key), **trace})

        ended = "recsys_jobs_succeeded_total", "recsys_jobs_failed_total", "recsys_job_duration_seconds_count"
        eventually(
            lambda: [metrics(service)[name] for name in ended] == [1, 1, 2], "the jobs are not counted", every_s=0.5
        )
        found = metrics(service)
        assert found['recsys_latency_seconds_count{method="GET",route="/v1/popular",status="2xx"}'] == 3
        assert found['recsys_latency_seconds_count{method="POST",route="/v1/train",status="4xx"}'] == 1
        assert (found["recsys_model_loaded_total"], found["recsys_response_cache_hit_total"]) == (1, 2)
        assert (found["recsys_queue_length"], found["recsys_server_error_total"]) == (0, 0)
        assert 0 <= found['recsys_worker_silent_seconds{worker="1"}'] < 30
        assert 0 < found["recsys_model_age_seconds"] < 120
        assert found["recsys_connections"] >= 1
        assert found["process_resident_memory_bytes"] > 20e6
        if shutil.which("promtool"):
            text = service.client.get("/metrics").content
            subprocess.run(["promtool", "check", "metrics"], input=text, check=True, timeout=30)

        events = service.client.get("/v1/audit", headers=with_key(key)).json()["events"]
        assert [event["event"] for event in events] == ["job.failed", "version.published", "key.created"]
        assert events[1]["detail"] == {"version": trained["model_version"], "job_id": trained["job_id"]}

        popular = [json.loads(line) for line in service.output().splitlines() if '"route":"/v1/popular"' in line]
        assert [line["trace_id"] for line in popular] == ["0af7651916cd43dd8448eb211c80319c"] * 3


def test_metrics_are_hidden_from_proxies_and_can_move_to_a_port_of_their_own(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        for headers in ({"X-Forwarded-For": "203.0.113.9"}, {"X-Forwarded-For": "127.0.0.1"}, {"Host": "recsys.test"}):
            assert service.client.get("/metrics", headers=headers).status_code == 404
        assert service.client.get("/metrics").status_code == 200
        service.end()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running_service(tmp_path / "data", tmp_path / "log", "--metrics-port", str(port)) as service:
        assert service.client.get("/metrics").status_code == 404
        text = httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
        assert "recsys_queue_length 0.0" in text
        assert service.end() == 0
