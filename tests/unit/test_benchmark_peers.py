"""The peers of the benchmarks, compared with dense computations of their papers' formulas, and their helpers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from recsys_train.data.interactions import Interactions
from tests.benchmarks import peers
from tests.benchmarks.generated_data import N_CLUSTERS, NO_TASTES, GeneratedSet, generate_pairs
from tests.benchmarks.measured import seconds_by_phase
from tests.benchmarks.peers import Ease, EaseRecent, GfCf, climb
from tests.benchmarks.protocol import without_newcomers
from tests.benchmarks.tables import Table

ALL_USERS = np.arange(6)


@pytest.fixture
def train() -> Interactions:
    """Return interactions of 6 users with 5 items in random order."""
    generator = np.random.default_rng(0)
    purchased = generator.random((6, 5)) < 0.5
    purchased[np.arange(6), np.arange(6) % 5] = True
    users, items = generator.permutation(np.argwhere(purchased)).astype(np.int32).T
    return Interactions([f"u{user}" for user in range(6)], [f"i{item}" for item in range(5)], users, items)


def dense(train: Interactions) -> Any:
    matrix = np.zeros((train.n_users, train.n_items))
    matrix[train.users, train.items] = 1.0
    return matrix


def test_each_column_of_ease_is_the_ridge_regression_on_the_other_items(train: Interactions) -> None:
    x, ridge = dense(train), 2.0
    weights = np.zeros((5, 5))
    for item in range(5):
        others = [other for other in range(5) if other != item]
        rest = x[:, others]
        weights[others, item] = np.linalg.solve(rest.T @ rest + ridge * np.eye(4), rest.T @ x[:, item])
    assert_allclose(Ease(train).fit({"ridge": ridge}, 0).scores(ALL_USERS), x @ weights, atol=1e-5)


def test_ease_in_single_precision_is_ease(train: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    double = Ease(train).fit({"ridge": 2.0}, 0).scores(ALL_USERS)
    monkeypatch.setattr(peers, "MAX_DOUBLE_ITEMS", 0)
    assert_allclose(Ease(train).fit({"ridge": 2.0}, 0).scores(ALL_USERS), double, atol=1e-5)


def test_recent_ease_without_decay_is_ease(train: Interactions) -> None:
    plain = Ease(train).fit({"ridge": 2.0}, 0).scores(ALL_USERS)
    assert_allclose(EaseRecent(train).fit({"ridge": 2.0, "decay": 0.0}, 0).scores(ALL_USERS), plain, atol=1e-6)


def test_the_weight_of_an_item_decreases_from_one_with_its_distance_from_the_end(train: Interactions) -> None:
    histories = EaseRecent(train).histories(ALL_USERS, 1.0).toarray()
    items = train.items[train.users == 3]
    assert_allclose(histories[3, items[::-1]], 1 / np.arange(1, len(items) + 1))


def test_gf_cf_is_the_item_graph_plus_the_ideal_low_pass_filter(train: Interactions) -> None:
    x = dense(train)
    item_root = np.sqrt(x.sum(axis=0))
    normalised = x / np.sqrt(x.sum(axis=1))[:, None] / item_root
    leading = np.linalg.svd(normalised)[2][:2]
    low_pass = (x / item_root) @ leading.T @ leading * item_root
    scores = GfCf(train).fit({"rank": 2, "strength": 0.3}, 0).scores(ALL_USERS)
    assert_allclose(scores, x @ normalised.T @ normalised + 0.3 * low_pass, atol=1e-5)


def test_the_grid_search_stops_when_no_single_change_helps() -> None:
    tried = []

    def value(settings: dict[str, Any]) -> float:
        tried.append(tuple(settings.values()))
        return -float((settings["a"] - settings["b"]) ** 2 + 2 * (settings["b"] - 4) ** 2)

    assert climb({"a": (1, 2, 3, 4), "b": (1, 2, 3, 4)}, value) == {"a": 4, "b": 4}
    assert len(tried) == len(set(tried))


def test_an_empty_grid_has_no_settings() -> None:
    assert climb({}, lambda settings: math.nan) == {}


def test_removing_newcomers_keeps_the_interactions_of_the_others(train: Interactions) -> None:
    others, newcomers = without_newcomers(train, 0.5, np.random.default_rng(0))
    assert (others.n_users, others.n_items, len(newcomers)) == (3, 5, 3)
    kept = [
        (train.user_ids[user], int(item))
        for user, item in zip(train.users, train.items, strict=True)
        if user not in newcomers
    ]
    assert [(others.user_ids[user], int(item)) for user, item in zip(others.users, others.items, strict=True)] == kept


def test_a_phase_lasts_until_the_next_report() -> None:
    marks = [("starting", 0.0), ("fitting", 1.0), ("fitting", 3.0), ("evaluating", 4.0)]
    assert seconds_by_phase(marks, 6.0) == {"starting": 1.0, "fitting": 3.0, "evaluating": 2.0}


def test_the_generated_set_has_distinct_pairs_a_long_tail_and_is_reproducible() -> None:
    generated = GeneratedSet(20_000, 1_000, 20 * N_CLUSTERS)
    codes = generate_pairs(generated, np.random.default_rng(0))
    assert len(np.unique(codes)) == len(codes) == 20_000
    users_per_item = np.sort(np.bincount(codes % (20 * N_CLUSTERS), minlength=20 * N_CLUSTERS))[::-1]
    assert users_per_item[:100].sum() > 0.3 * len(codes)
    assert np.array_equal(codes, generate_pairs(generated, np.random.default_rng(0)))


def test_every_user_of_an_even_generated_set_has_the_same_number_of_pairs() -> None:
    generated = GeneratedSet(300, n_users=100, n_items=20, tastes=NO_TASTES, is_even=True)
    codes = generate_pairs(generated, np.random.default_rng(0))
    assert len(np.unique(codes)) == 300
    assert np.array_equal(np.bincount(codes // 20), np.full(100, 3))


def test_a_table_is_aligned_and_shows_missing_values_as_a_dash() -> None:
    table = Table("Title", {"": "", "NDCG@20": ".2f", "pairs": ",d"}, [["ours", 0.125, 1234], ["a peer", None, 7]])
    assert table.text().splitlines() == [
        "Title",
        "        NDCG@20  pairs",
        "ours       0.12  1,234",
        "a peer        –      7",
    ]


@pytest.mark.slow
def test_sasrec_learns_which_item_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.benchmarks import sasrec  # noqa: PLC0415  # the other tests run without TensorFlow

    monkeypatch.setattr(sasrec, "N_NEGATIVES", 256)
    monkeypatch.setattr(sasrec, "LEARNING_RATE", 0.003)
    first, position = np.divmod(np.arange(128 * 6), 6)
    items = (first + position) % 20
    names = [str(index) for index in range(128)]
    sequences = Interactions(names, names[:20], first.astype(np.int32), items.astype(np.int32))
    scores = sasrec.SasRec(sequences).fit({"dropout": 0.2, "epochs": 20}, 0).scores(np.arange(20))
    assert np.array_equal(scores.argmax(axis=1), (np.arange(20) + 6) % 20)
