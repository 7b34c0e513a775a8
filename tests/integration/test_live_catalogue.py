"""The item catalogue on a running service: sent beside a training, updated, and used within seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.live_service import LiveService, eventually, orders, running_service

pytestmark = pytest.mark.slow


def send(service: LiveService, key: str, items: list[dict[str, Any]], method: str = "PUT") -> Any:
    headers = {"X-API-Key": key, "Prefer": "wait=30"}
    response = service.client.request(method, "/v1/items", json=items, headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


def top(service: LiveService, key: str) -> dict[str, Any]:
    response = service.client.post(
        "/v1/recommendations", json={"user_id": "u0", "n": 1, "fields": ["title"]}, headers={"X-API-Key": key}
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()["items"][0]
    return found


def test_an_update_takes_effect_within_seconds_also_while_a_model_trains(tmp_path: Path) -> None:
    with running_service(tmp_path / "data", tmp_path / "log") as service:
        key = service.trained(orders(seed=1))["api_key"]
        send(service, key, [{"item_id": f"i{number}", "title": f"Item {number}"} for number in range(40)])
        best = eventually(lambda: top(service, key), "the catalogue is used", timeout_s=15)
        assert best["attributes"]["title"] == f"Item {best['item_id'].removeprefix('i')}"

        service.train(orders(400, 200, per_user=40, seed=2), wait_s=0)  # occupies the worker for some seconds
        started = time.monotonic()
        job = send(service, key, [{"item_id": best["item_id"], "available": False}], "PATCH")
        eventually(lambda: top(service, key)["item_id"] != best["item_id"], "it is unavailable", timeout_s=20)

        assert (job["purpose"], job["report"]["updated"], job["report"]["items"]) == ("catalogue", 1, 40)
        assert time.monotonic() - started < 20
