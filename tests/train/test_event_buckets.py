"""Only events of the service's own bucket start a training job."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.markers import TENSORFLOW

pytestmark = list(TENSORFLOW)

EVENT = json.loads((Path(__file__).parents[1] / "fixtures/events/s3_object_created.json").read_text())
BUCKET = EVENT["Records"][0]["s3"]["bucket"]["name"]


@pytest.fixture
def handler(monkeypatch: pytest.MonkeyPatch) -> Any:
    for name, value in {"RECSYS_BUCKET": BUCKET, "RECSYS_TABLE": "table", "AWS_DEFAULT_REGION": "eu-central-1"}.items():
        monkeypatch.setenv(name, value)
    return importlib.import_module("recsys_train.handler")


def test_event_of_the_own_bucket_names_its_object(handler: Any) -> None:
    assert [created.name for created in handler.object_events(EVENT, BUCKET)] == ["inbox/spring orders + more.csv"]


def test_event_of_another_bucket_is_ignored(handler: Any) -> None:
    assert handler.object_events(EVENT, f"{BUCKET}-2") == []
