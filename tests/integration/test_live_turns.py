"""A flood of anonymous trainings on a running service, and a tenant who arrives after it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.live_service import LiveService, orders, running_service

pytestmark = pytest.mark.slow

N_FLOOD = 10


def test_known_key_is_not_delayed_by_a_flood_and_everyone_sees_a_position(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        key = service.trained(orders(seed=1))["api_key"]
        flood = [service.train(orders(seed=10 + number), wait_s=0).json() for number in range(N_FLOOD)]

        trained = service.train(orders(seed=2), key=key)

        assert trained.status_code == 201, trained.text
        jobs = [_job(service, accepted) for accepted in flood]
        assert sum(job["status"] == "succeeded" for job in jobs) <= 3
        positions = [job["queue_position"] for job in jobs if job["status"] == "queued"]
        assert sorted(position for position in positions if position) == list(range(1, len(positions) + 1))
        assert all(job["estimated_wait_s"] is not None for job in jobs if job["status"] == "queued")


def _job(service: LiveService, accepted: dict[str, str]) -> dict[str, object]:
    response = service.client.get(accepted["location"], headers={"X-API-Key": accepted["api_key"]})
    body: dict[str, object] = response.json()
    return body
