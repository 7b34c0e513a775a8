"""Ranking metrics, with expected values computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys_train.fitting.evaluation import Quality, Ranks, evaluate, lift_interval
from tests.made_interactions import made_interactions


def quality_of(
    values: list[list[float]],
    train: list[tuple[int, int]],
    held_out: list[tuple[int, int]],
    *,
    seed: int = 0,
) -> Quality:
    scores: Floats = np.array(values, dtype=np.float32)
    n_users, n_items = scores.shape
    return evaluate(
        lambda users: scores[users],
        made_interactions(train, n_users=n_users, n_items=n_items),
        made_interactions(held_out, n_users=n_users, n_items=n_items),
        seed=seed,
    ).quality()


def ndcg(rank: int) -> float:
    return 1 / math.log2(rank + 1)


@pytest.mark.parametrize(
    ("rank", "hr_at_10", "recall_at_20"),
    [(1, 1, 1), (2, 1, 1), (10, 1, 1), (11, 0, 1), (20, 0, 1), (21, 0, 0), (60, 0, 0)],
)
def test_metrics_follow_from_the_rank_of_the_held_out_item(rank: int, hr_at_10: float, recall_at_20: float) -> None:
    values = [float(-item) for item in range(60)]  # item k has rank k + 1
    quality = quality_of([values], [], [(0, rank - 1)])  # there are only 59 negatives
    assert quality.hr_at_10 == hr_at_10
    assert quality.recall_at_20 == recall_at_20
    assert quality.ndcg_at_10 == pytest.approx(ndcg(rank) if rank <= 10 else 0)
    assert quality.ndcg_at_20 == pytest.approx(ndcg(rank) if rank <= 20 else 0)


def test_items_of_the_users_history_do_not_compete() -> None:
    quality = quality_of([[9.0, 8.0, 7.0, 1.0, 0.0]], [(0, 0), (0, 1)], [(0, 3)])
    assert quality.ndcg_at_20 == pytest.approx(ndcg(2))


def test_items_of_other_users_compete() -> None:
    quality = quality_of([[9.0, 8.0, 1.0], [0.0, 0.0, 0.0]], [(0, 0), (1, 1)], [(0, 2)])
    assert quality.ndcg_at_20 == pytest.approx(ndcg(2))


def test_a_tie_counts_against_the_model() -> None:
    quality = quality_of([[1.0] * 5], [], [(0, 2)])
    assert quality.ndcg_at_20 == pytest.approx(ndcg(5))
    assert quality_of([[1.0] * 30], [], [(0, 2)]).recall_at_20 == 0


def test_metrics_are_means_over_users_with_a_held_out_item() -> None:
    quality = quality_of([[3.0, 2.0, 1.0]] * 4, [(3, 0)], [(0, 0), (1, 1), (2, 2)])
    assert quality.ndcg_at_20 == pytest.approx((ndcg(1) + ndcg(2) + ndcg(3)) / 3)


def test_the_held_out_item_competes_with_99_sampled_negatives() -> None:
    values = [[float(item) for item in range(2000)]] * 200
    quality = quality_of(values, [], [(user, 1989) for user in range(200)])  # 10 items of the catalogue are better
    # Hypergeometric: 99 of 1,999 items contain 0.495 of the 10 better ones on average; rank 1 has probability 0.60.
    assert quality.hr_at_10 == 1
    assert quality.ndcg_at_10 == pytest.approx(0.83, abs=0.05)
    assert quality.ndcg_at_20 == pytest.approx(ndcg(11))


def test_the_last_remaining_item_has_rank_one() -> None:
    quality = quality_of([[1.0, 2.0, 3.0]], [(0, 1), (0, 2)], [(0, 0)])
    assert quality == Quality(1.0, 1.0, 1.0, 1.0, 1 / 3)


def test_all_metrics_are_zero_if_nothing_is_held_out() -> None:
    assert quality_of([[1.0, 2.0]], [(0, 0)], []) == Quality(0.0, 0.0, 0.0, 0.0, 0.0)


def test_the_seed_determines_the_negatives() -> None:
    values = np.random.default_rng(0).normal(size=(50, 500)).tolist()
    held_out = [(user, user) for user in range(50)]
    assert quality_of(values, [], held_out) == quality_of(values, [], held_out)
    assert quality_of(values, [], held_out).hr_at_10 != quality_of(values, [], held_out, seed=1).hr_at_10


def test_each_user_is_scored_once() -> None:
    scored: list[int] = []

    def score(users: NDArray[np.integer]) -> Floats:
        scored.extend(users.tolist())
        return np.zeros((len(users), 5), dtype=np.float32)

    pairs = made_interactions([(user, 0) for user in range(300)], n_users=300, n_items=5)
    evaluate(score, made_interactions([], n_users=300, n_items=5), pairs, seed=0)
    assert scored == list(range(300))


@pytest.mark.parametrize("n_items", [5, 100, 101, 150, 400, 3000])
def test_negatives_are_distinct_and_not_in_the_users_history(n_items: int) -> None:
    # The history scores above the held-out item, the rest below, so that rank 1 means that no history item competes.
    values = [10.0, 10.0, 5.0] + [1.0] * (n_items - 3)
    quality = quality_of(
        [values] * 20, [(user, item) for user in range(20) for item in (0, 1)], [(user, 2) for user in range(20)]
    )
    assert (quality.hr_at_10, quality.ndcg_at_10, quality.ndcg_at_20) == (1.0, 1.0, 1.0)
    # If all the rest scores above the held-out item, its rank is the number of distinct competitors plus 1.
    values = [0.0, 0.0, 5.0] + [9.0] * (n_items - 3)
    quality = quality_of([values], [(0, 0), (0, 1)], [(0, 2)])
    assert quality.hr_at_10 == (1.0 if n_items - 3 < 10 else 0.0)
    assert quality.ndcg_at_10 == pytest.approx(ndcg(n_items - 2) if n_items - 3 < 10 else 0.0)


def test_metrics_are_rounded_to_six_decimals() -> None:
    assert Quality(1 / 3, 0.0, 1.0, 0.12345678, 0.25).to_json() == {
        "hr_at_10": 0.333333,
        "ndcg_at_10": 0.0,
        "recall_at_20": 1.0,
        "ndcg_at_20": 0.123457,
        "coverage_at_20": 0.25,
    }


def test_coverage_is_the_share_of_items_in_the_top_20_of_any_user() -> None:
    values = [[float(-item) for item in range(100)], [-float((item - 11) % 100) for item in range(100)]]
    quality = quality_of(values, [(0, 0)], [(0, 1), (1, 11)])
    # The top 20 of user 0 are items 1 to 20, those of user 1 items 11 to 30.
    assert quality.coverage_at_20 == 0.3


def ranks(*full: int) -> Ranks:
    return Ranks(np.array(full), np.array(full), np.zeros(1, dtype=np.int64))


def test_the_interval_contains_the_lift_and_narrows_with_more_users() -> None:
    few = lift_interval(ranks(*[1, 2, 3, 30] * 10), ranks(*[2, 30, 3, 1] * 10), seed=0)
    many = lift_interval(ranks(*[1, 2, 3, 30] * 1000), ranks(*[2, 30, 3, 1] * 1000), seed=0)
    assert few is not None
    assert many is not None
    lift = (1 + ndcg(2) + ndcg(3)) / (ndcg(2) + ndcg(3) + 1)
    assert few[0] < many[0] < lift < many[1] < few[1]


@pytest.mark.parametrize("baseline", [ranks(), ranks(30, 40)])
def test_there_is_no_interval_without_users_or_with_a_baseline_of_zero(baseline: Ranks) -> None:
    assert lift_interval(ranks(*[1] * len(baseline.full)), baseline, seed=0) is None
