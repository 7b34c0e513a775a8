"""The cost table of the documentation is the one that `make costs` prints."""

from __future__ import annotations

import pytest

from deployment import costs
from tests.infra.stack import ROOT, names, read_sam


def test_the_documented_table_is_the_printed_one() -> None:
    page = (ROOT / "docs" / "operations" / "costs.md").read_text("utf-8")
    assert "\n".join(costs.table()) in page


def test_a_training_costs_its_memory_and_its_time() -> None:
    functions = names()["functions"]
    compute = costs.training(functions, 100)[0]
    # 8 GB for 100 s at the list price of a GB-second, 3.5 GB of storage beyond the free 512 MB, and one request.
    assert compute.dollars == pytest.approx(100 * (8 * 0.0000166667 + 3.5 * 0.0000000309) + 0.0000002)


def test_the_number_of_alarms_is_that_of_the_template() -> None:
    assert len(read_sam().of_type("AWS::CloudWatch::Alarm")) == costs.ALARMS
