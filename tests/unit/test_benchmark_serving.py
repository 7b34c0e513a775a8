"""The serving benchmarks: their metrics on data with known results, and each part on tiny models."""

from __future__ import annotations

import gzip
import importlib
import math
from pathlib import Path

import numpy as np
import pytest

from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel, recommend
from tests.benchmarks import serving, serving_http, serving_top
from tests.benchmarks.serving_models import resized
from tests.benchmarks.serving_sessions import newcomers_ndcg, overlap, split_newcomers
from tests.benchmarks.serving_stage import random_model
from tests.made_models import network_of, serving_model

# With the history i0, the model ranks i2 above i1. By popularity the order is i0, i1, i2.
MODEL = serving_model(network_of([[0.0, 1.0, 2.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), seen=[[0], [0, 1], [0, 1, 2]])


def test_session_with_a_user_s_history_overlaps_completely() -> None:
    assert overlap(MODEL) == 1.0


def test_the_last_item_of_a_new_user_is_searched_in_both_lists(tmp_path: Path) -> None:
    path = tmp_path / "newcomers.csv"
    path.write_text("user_id,item_id,timestamp\nx,i2,2\nx,i0,1\ny,i1,1\n")
    session, baseline, n_users = newcomers_ndcg(MODEL, path)
    assert (session, n_users) == (1.0, 1)
    assert baseline == pytest.approx(1 / math.log2(3))


def test_every_tenth_user_is_held_out(tmp_path: Path) -> None:
    source = tmp_path / "orders.csv.gz"
    lines = [f"u{user % 20},i{user}" for user in range(60)]
    with gzip.open(source, "wt", encoding="utf-8") as stream:
        stream.write("user_id,item_id\n" + "\n".join(lines) + "\n")
    train, newcomers = (path.read_text().splitlines() for path in split_newcomers(source, tmp_path))
    assert train[0] == newcomers[0] == "user_id,item_id"
    assert {line.split(",")[0] for line in newcomers[1:]} == {"u0", "u10"}
    assert sorted(train[1:] + newcomers[1:]) == sorted(lines)


TINY = random_model(Dims(n_users=40, n_items=60, gmf_dim=8, mlp_dim=4, hidden_dims=(8, 4)), n_seen=5)


@pytest.fixture
def tiny_models(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replace trained models by a tiny one, and large sizes by small ones."""
    for module in (serving, serving_http):
        monkeypatch.setattr(module, "trained", lambda _name, *_args, **_kwargs: (TINY, Path("no-folder")))
    monkeypatch.setattr(serving, "SMALL_ITEMS", 80)
    monkeypatch.setattr(serving, "GOWALLA_SIZE", (100, 50))
    monkeypatch.setattr(serving, "LARGE_ITEMS", 200)
    monkeypatch.setattr(serving, "SIZES", (30, 100))
    monkeypatch.setattr(serving_http, "WARM_ITEMS", 80)
    monkeypatch.setattr(serving_http, "CACHE_ITEMS", (80,))


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ("all-users", "50 of 50 users compared got equal lists with equal scores."),
        ("top", "ours / NumPy"),
        ("filters", "filter leaves 10%"),
        ("sizes", "pruned / brute force"),
        ("equality", "Lists equal to sorting every exact logit"),
        ("loading", "200 items and 200 users, loaded by a fresh process"),
    ],
)
def test_every_part_of_the_serving_benchmark_runs_except_keras(
    part: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["serving", "--parts", part, "--users", "6", "--large-users", "2"])
    serving.main()
    assert expected in capsys.readouterr().out


def test_every_list_of_the_equality_part_is_equal() -> None:
    assert serving._count_equal(TINY, range(6)) == (30, 30)


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_models")
@pytest.mark.parametrize(("part", "expected"), [("warm", "20 requests per handler"), ("cache", "computed / cached")])
def test_parts_of_the_http_benchmark_run(
    part: str, expected: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["serving_http", "--parts", part, "--requests", "20"])
    serving_http.main()
    assert expected in capsys.readouterr().out


def test_plain_numpy_finds_the_items_of_the_exact_search() -> None:
    search_plain, search_exact = serving_top.plain_numpy(TINY), serving_top.exact_search(TINY)
    for row in range(10):
        (plain_items, plain_scores), (items, scores) = search_plain(row), search_exact(row)
        assert plain_items.tolist() == items.tolist()
        np.testing.assert_allclose(plain_scores, scores, rtol=1e-4)


@pytest.mark.parametrize("n_items", [20, 60, 90])
def test_a_resized_model_keeps_the_first_items_and_recommends(n_items: int) -> None:
    model = resized(TINY, n_items, 25)
    n_kept = min(n_items, 60)
    assert (len(model.items), len(model.users)) == (n_items, 25)
    assert np.array_equal(model.network.item_gmf[:n_kept], TINY.network.item_gmf[:n_kept])
    assert model.seen(0).tolist() == [item for item in TINY.seen(0).tolist() if item < n_items]
    assert_recommends(model)


def assert_recommends(model: ServingModel) -> None:
    assert len(recommend(model, model.users[0], n=3).items) == 3


@pytest.mark.parametrize("name", ["curves", "training", "serving", "serving_http", "serving_keepalive"])
def test_help_of_a_benchmark_imports_it_and_declares_valid_arguments(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--help` measures nothing. Training parts, Keras, cold starts, load and sessions need minutes or emulators."""
    benchmark = importlib.import_module(f"tests.benchmarks.{name}")
    monkeypatch.setattr("sys.argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        benchmark.main()
    assert ended.value.code == 0
