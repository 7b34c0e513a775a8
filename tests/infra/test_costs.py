"""Cost estimates of infra/deployment/costs.py, and the documented table."""

from __future__ import annotations

import pytest

from deployment import costs
from tests.infra.stack import ROOT, names, read_sam


def test_documented_table_equals_the_output_of_make_costs() -> None:
    page = (ROOT / "docs" / "operations" / "costs.md").read_text("utf-8")
    assert "\n".join(costs.table()) in page


def test_training_cost_is_memory_times_duration() -> None:
    functions = names()["functions"]
    compute = costs.training(functions, 100)[0]
    # 8 GB for 100 s at the list price of a GB-second, plus 3.5 GB of storage beyond the free 512 MB, plus one request.
    assert compute.dollars == pytest.approx(100 * (8 * 0.0000166667 + 3.5 * 0.0000000309) + 0.0000002)


def test_number_of_alarms_matches_the_template() -> None:
    assert len(read_sam().of_type("AWS::CloudWatch::Alarm")) == costs.ALARMS
