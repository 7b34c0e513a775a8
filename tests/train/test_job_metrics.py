"""Metrics of the function `train`: the outcome of a job, and, if detailed metrics are on, its duration."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from recsys.clock import Timestamp, after
from recsys.objects.created import ObjectCreated
from recsys.registry.records import Job, JobState
from tests.markers import TENSORFLOW
from tests.unit.lambda_events import imported, unconfigured_logging

pytestmark = list(TENSORFLOW)

NOW = Timestamp("2026-03-01T12:00:00.000000Z")


@dataclass
class Recorded:
    """Stands in for `LambdaTelemetry`."""

    counted: list[str] = field(default_factory=list)
    details: list[tuple[str, float]] = field(default_factory=list)

    def count(self, name: str) -> None:
        self.counted.append(name)

    def record_detail(self, name: str, value: float) -> None:
        self.details.append((name, value))


@pytest.mark.parametrize(
    ("started_at", "details"), [(after(NOW, -12.5), [("JobDuration", 12.5)]), (None, [])], ids=["started", "never"]
)
def test_outcome_and_duration_are_recorded(
    monkeypatch: pytest.MonkeyPatch, started_at: Timestamp | None, details: list[Any]
) -> None:
    job = Job("job1", "key1", "uploads/job1.csv", NOW, NOW, state=JobState.SUCCEEDED, started_at=started_at)
    with unconfigured_logging():
        handler = imported("recsys_train.handler", monkeypatch)
        recorded = Recorded()
        monkeypatch.setattr(handler, "telemetry", recorded)
        monkeypatch.setattr(handler, "process", lambda _event, _trainer: job)
        handler._train(ObjectCreated("uploads/job1.csv", "v", data_timestamp="1"), cast("Any", None))
    assert (recorded.counted, recorded.details) == (["JobsSucceeded"], details)
