"""How long a training may fit: the setting, and less where the worker is ended before."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from recsys.clock import utc_now
from recsys.errors import InvalidData
from recsys.objects.files import FileObjectStore
from recsys.registry.records import Job, KeyRecord
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from tests.markers import TENSORFLOW

pytestmark = list(TENSORFLOW)


@pytest.mark.parametrize(("time_left_s", "budget_s"), [(math.inf, 600.0), (900.0, 600.0), (600.0, 400.0), (90.0, 60.0)])
def test_fitting_leaves_a_third_of_the_time_for_what_comes_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, time_left_s: float, budget_s: float
) -> None:
    from recsys_train import build, job  # noqa: PLC0415

    budgets = []

    def fit(*_: Any, budget_s: float, **__: Any) -> None:
        budgets.append(budget_s)
        raise InvalidData("Seen enough.")

    monkeypatch.setattr(build, "fit", fit)
    store, registry, now = FileObjectStore(tmp_path), SqliteRegistry(tmp_path / "registry.sqlite3"), utc_now()
    registry.create_key(KeyRecord("key", now))
    registry.create_job(Job("job", "key", "uploads/job.csv", created_at=now, updated_at=now))
    store.create("uploads/job.csv", b"user_id,item_id\nu1,a\nu1,b\nu2,a\n")
    job.Trainer(store, registry, Settings(), owner="worker", time_left_s=lambda: time_left_s).run(
        "job", data_timestamp="1"
    )
    registry.close()
    assert budgets == [pytest.approx(budget_s)]
