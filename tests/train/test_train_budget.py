"""The time budget of fitting: the setting, or less if the worker is terminated earlier."""

from __future__ import annotations

import math
from typing import Any

import pytest

from recsys.errors import InvalidData
from recsys_train import build
from tests.markers import TENSORFLOW
from tests.train.backend import Backend

pytestmark = list(TENSORFLOW)


@pytest.mark.parametrize(("time_left_s", "budget_s"), [(math.inf, 600.0), (900.0, 600.0), (600.0, 400.0), (90.0, 60.0)])
def test_fitting_takes_at_most_two_thirds_of_the_time_left(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, time_left_s: float, budget_s: float
) -> None:
    budgets = []

    def fit(*_: Any, budget_s: float, **__: Any) -> None:
        budgets.append(budget_s)
        raise InvalidData("This test needs no model.")

    monkeypatch.setattr(build, "fit", fit)
    worker = backend.worker(time_left_s=lambda: time_left_s)
    backend.finish(backend.upload("job1", backend.add_key().key_id), worker)
    assert budgets == [pytest.approx(budget_s)]
