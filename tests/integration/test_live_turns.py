"""Floods of anonymous requests on a running service, and a tenant who arrives after them."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest

from recsys.settings import Settings
from tests.integration.live_service import LiveService, orders, running_service
from tests.unit.http_fakes import assert_problem

pytestmark = pytest.mark.slow

N_FLOOD = 100
N_ANONYMOUS = N_FLOOD + 2  # with the tenant's first training and the large file
SIX_LINES = b"user_id,item_id\nu1,A\nu1,B\nu2,B\nu2,C\nu3,A\nu3,C\n"
N_UPLOADS = 200
WITHIN_S = 15


def _at_one_time(service: LiveService, accepted: list[dict[str, str]]) -> list[dict[str, object]]:
    """Return the jobs, read twice with the same states, so that no training ended in between."""
    earlier: list[tuple[object, object]] = []
    while True:
        jobs = [_job(service, answer) for answer in accepted]
        states = [(job["status"], job.get("queue_position")) for job in jobs]
        if states == earlier:
            return jobs
        earlier = states


def test_known_key_is_not_delayed_by_a_flood_and_everyone_sees_a_position(tmp_path: Path) -> None:
    limit = {"RECSYS_ANONYMOUS_TRAININGS_PER_HOUR": str(N_ANONYMOUS)}
    with running_service(tmp_path / "data", tmp_path / "log", environment=limit) as service:
        key = service.trained(SIX_LINES)["api_key"]
        alone_s = _seconds_to_train(service, key)
        flood = [service.train(orders(seed=10 + number), wait_s=0).json() for number in range(N_FLOOD)]
        large = service.train(orders(n_users=2000, n_items=200, per_user=50), wait_s=0).json()

        # It waits for at most one other training. On a machine that is busy otherwise, both take longer.
        assert _seconds_to_train(service, key) < max(WITHIN_S, 4 * alone_s)
        jobs = _at_one_time(service, [*flood, large])
        assert sum(job["status"] == "succeeded" for job in jobs) <= N_FLOOD / 2
        positions = [job["queue_position"] for job in jobs if job["status"] == "queued"]
        assert sorted(position for position in positions if position) == list(range(1, len(positions) + 1))
        assert all(job["estimated_wait_s"] is not None for job in jobs if job["status"] == "queued")
        _assert_refused([service.train(SIX_LINES, wait_s=0) for _ in range(10)], N_ANONYMOUS)


def test_flood_of_anonymous_upload_forms_ends_at_the_limit(tmp_path: Path) -> None:
    quota = Settings().anonymous_trainings_per_hour
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        responses = [service.client.post("/v1/uploads") for _ in range(N_UPLOADS)]
        accepted = sum(response.status_code == 201 for response in responses)
        assert quota <= accepted <= quota + 2  # one unit returns per minute
        _assert_refused(responses[accepted:], quota)
        key = responses[0].json()["api_key"]
        assert service.client.post("/v1/uploads", headers={"X-API-Key": key}).status_code == 201


def _seconds_to_train(service: LiveService, key: str) -> float:
    sent = time.monotonic()
    response = service.train(SIX_LINES, key=key)
    assert response.status_code == 201, response.text
    return time.monotonic() - sent


def _assert_refused(responses: list[httpx.Response], quota: int) -> None:
    """Check that the requests were refused, except for those that returned units permit."""
    refused = [response for response in responses if response.status_code == 429]
    assert len(responses) - len(refused) <= 2
    for response in refused:
        assert_problem(response, 429, "rate-limited")
        assert 1 <= int(response.headers["retry-after"]) <= 3600 / quota + 1


def _job(service: LiveService, accepted: dict[str, str]) -> dict[str, object]:
    response = service.client.get(accepted["location"], headers={"X-API-Key": accepted["api_key"]})
    body: dict[str, object] = response.json()
    return body
