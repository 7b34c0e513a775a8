"""What the serving benchmarks measure with, on data that can be followed by hand."""

from __future__ import annotations

import gzip
import importlib
import math
from pathlib import Path

import pytest

from tests.benchmarks.serving_sessions import newcomers_ndcg, overlap, split_newcomers
from tests.made_models import network_of, serving_model

# Whoever had i0 alone likes i2 most, then i1; popular are i0, i1, i2.
MODEL = serving_model(network_of([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), seen=[[0], [0, 1], [0, 1, 2]])


def test_a_session_of_a_user_s_items_is_that_user() -> None:
    assert overlap(MODEL) == 1.0


def test_a_newcomer_s_last_item_is_looked_for_in_both_lists(tmp_path: Path) -> None:
    path = tmp_path / "newcomers.csv"
    path.write_text("user_id,item_id,timestamp\nx,i2,2\nx,i0,1\ny,i1,1\n")
    ours, theirs, n_users = newcomers_ndcg(MODEL, path)
    assert (ours, n_users) == (1.0, 1)
    assert theirs == pytest.approx(1 / math.log2(3))


def test_every_tenth_user_is_a_newcomer(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv.gz"
    lines = [f"u{user % 20},i{user}" for user in range(60)]
    with gzip.open(source, "wt", encoding="utf-8") as stream:
        stream.write("user_id,item_id\n" + "\n".join(lines) + "\n")
    train, newcomers = (path.read_text().splitlines() for path in split_newcomers(source, tmp_path))
    assert train[0] == newcomers[0] == "user_id,item_id"
    assert {line.split(",")[0] for line in newcomers[1:]} == {"u0", "u10"}
    assert sorted(train[1:] + newcomers[1:]) == sorted(lines)


@pytest.mark.parametrize("name", ["curves", "exponents", "training", "serving", "serving_http", "serving_keepalive"])
def test_a_benchmark_starts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 0
