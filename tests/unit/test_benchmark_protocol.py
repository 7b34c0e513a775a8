"""The metrics and splits of the benchmarks, with expected values computed by hand."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.benchmarks.protocol import (
    DataSet,
    Floats,
    Scores,
    add_scores,
    hold_out_share,
    leave_last_out,
    measure,
)
from tests.made_interactions import made_interactions

N_ITEMS = 25


def data_set(train: list[tuple[int, int]], test: list[tuple[int, int]], *, n_users: int) -> DataSet:
    users, items = np.array(test, dtype=np.int32).T
    return DataSet("generated", made_interactions(train, n_users=n_users, n_items=N_ITEMS), True, users, items)


def falling(*best: int) -> Floats:
    """Return one user's scores: these items first, in this order, then the others by index."""
    order = [*best, *(item for item in range(N_ITEMS) if item not in best)]
    values = np.empty(N_ITEMS, dtype=np.float32)
    values[order] = np.arange(N_ITEMS, 0, -1)
    return values


def scores_of(*rows: Floats) -> Scores:
    table = np.stack(rows)
    return lambda users: table[users]


def test_items_of_the_training_history_are_not_ranked() -> None:
    data = data_set([(0, 5), (0, 6)], [(0, 7)], n_users=1)
    quality = measure(scores_of(falling(5, 6, 8, 7)), data)  # without 5 and 6, item 7 has rank 2
    assert quality.recall_at_20 == 1.0
    assert quality.ndcg_at_20 == pytest.approx(1 / math.log2(3))


def test_ndcg_of_several_held_out_items_is_relative_to_the_ideal_order() -> None:
    data = data_set([(0, 0)], [(0, 3), (0, 24), (0, 4)], n_users=1)
    quality = measure(scores_of(falling(3, 9, 4)), data)  # ranks 1 and 3; 24 is last, below the cut-off
    assert quality.recall_at_20 == pytest.approx(2 / 3)
    ideal = 1 + 1 / math.log2(3) + 1 / math.log2(4)
    assert quality.ndcg_at_20 == pytest.approx((1 + 1 / math.log2(4)) / ideal)
    assert quality.hr_at_10 is None


def test_the_ideal_order_is_cut_off_at_20_as_well() -> None:
    data = data_set([(0, 24)], [(0, item) for item in range(22)], n_users=1)
    quality = measure(scores_of(falling()), data)
    assert quality.ndcg_at_20 == pytest.approx(1.0)
    assert quality.recall_at_20 == pytest.approx(20 / 22)


def test_metrics_are_means_over_users_with_a_held_out_item() -> None:
    data = data_set([(0, 0), (1, 0), (2, 0)], [(0, 1), (2, 24)], n_users=3)
    quality = measure(scores_of(falling(1), falling(), falling()), data)
    assert quality.recall_at_20 == 0.5


def test_coverage_is_the_share_of_items_in_the_top_20_of_any_user() -> None:
    data = data_set([(0, 0), (1, 24)], [(0, 1), (1, 1)], n_users=2)
    quality = measure(scores_of(falling(), falling()), data)  # items 1 … 20, and 0 … 19
    assert quality.coverage == pytest.approx(21 / 25)


def test_a_tie_with_a_negative_counts_against_the_model() -> None:
    data = data_set([(0, 0)], [(0, 1)], n_users=1)
    quality = measure(lambda users: np.zeros((len(users), N_ITEMS), dtype=np.float32), data)
    assert quality.hr_at_10 == 0.0


def test_negatives_are_items_that_the_user_never_interacted_with() -> None:
    data = data_set([(0, item) for item in range(16)], [(0, 20)], n_users=1)
    quality = measure(
        scores_of(falling(*range(16), 24, 20)), data
    )  # negatives: 16 … 24 without 20; one ranks before it
    assert quality.hr_at_10 == 1.0
    assert quality.ndcg_at_10 == pytest.approx(1 / math.log2(3))


def test_a_score_that_is_not_a_number_ranks_last() -> None:
    data = data_set([(0, 0)], [(0, 1)], n_users=1)
    values = falling(1)
    values[1] = np.nan
    quality = measure(scores_of(values), data)
    assert (quality.recall_at_20, quality.hr_at_10) == (0.0, 0.0)


def test_the_validation_part_is_split_from_the_training_part() -> None:
    data = data_set([(0, 3), (0, 1), (1, 2), (0, 4)], [(0, 5)], n_users=2)
    validation = data.validation()
    assert list(zip(validation.test_users, validation.test_items, strict=True)) == [(0, 4)]
    assert validation.train.items.tolist() == [3, 1, 2]


def test_a_share_of_each_users_items_is_held_out_but_never_a_single_item() -> None:
    pairs = [(0, item) for item in range(20)] + [(1, 0), (1, 1)] + [(2, 7)]
    rest, held_out = hold_out_share(made_interactions(pairs, n_users=3, n_items=N_ITEMS), 0.1, np.random.default_rng(0))
    assert np.bincount(held_out.users, minlength=3).tolist() == [2, 1, 0]
    both = sorted(zip([*rest.users, *held_out.users], [*rest.items, *held_out.items], strict=True))
    assert both == sorted(pairs)


def test_the_held_out_share_is_random() -> None:
    pairs = [(user, item) for item in range(10) for user in range(200)]
    _, held_out = hold_out_share(made_interactions(pairs, n_users=200, n_items=N_ITEMS), 0.1, np.random.default_rng(0))
    assert_allclose(np.bincount(held_out.items, minlength=10), 20, atol=15)


def test_scores_of_a_pair_are_summed_and_follow_its_split(tmp_path: Path) -> None:
    path = tmp_path / "scored.csv"
    path.write_text(
        "user_id,item_id,interaction_score,timestamp\na,x,2,1\na,x,0.5,2\na,y,4,3\na,z,0,4\nb,y,,5\nb,x,-1,6\nb,x,3,7\n"
    )
    train = leave_last_out("scored", path).train
    scored = add_scores(train, path)
    assert [scored.item_ids[item] for item in scored.items] == ["x", "y"]
    assert scored.scores.tolist() == [2.5, 1.0]
    assert scored[np.array([1])].scores.tolist() == [1.0]
