"""What validation selects a closed-form model by."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest

from recsys_train.data.interactions import Interactions
from recsys_train.fitting import selection
from recsys_train.fitting.closed_form import log_popularity
from recsys_train.fitting.evaluation import mean_ndcg_at_20, ndcg_at_20
from recsys_train.fitting.recipe import Hyperparameters, Recipe
from recsys_train.fitting.selection import MIN_GAIN, climb, select_hyperparameters
from recsys_train.fitting.split import folds_for_selection, split_interactions
from recsys_train.model import autoencoder
from tests.made_interactions import made_interactions


def shop(n_users: int, n_each: int, n_items: int, *, clusters: int) -> Interactions:
    """Users draw items of one cluster by Zipf's law; with one cluster there is nothing but popularity."""
    generator = np.random.default_rng(1)
    weights = 1 / np.arange(1, n_items + 1)
    pairs = []
    for user in range(n_users):
        items = np.arange(user % clusters, n_items, clusters)
        share = weights[items] / weights[items].sum()
        pairs += [(user, int(item)) for item in generator.choice(items, n_each, replace=False, p=share)]
    return made_interactions(
        [pairs[row] for row in generator.permutation(len(pairs))], n_users=n_users, n_items=n_items
    )


def select(data: Interactions, recipe: Recipe, *, has_times: bool = False, budget_s: float = 600.0) -> Hyperparameters:
    split = split_interactions(data, has_times=has_times, seed=0)
    folds = folds_for_selection(split, has_times=has_times, seed=0)
    deadline = time.monotonic() + budget_s
    return select_hyperparameters(folds, recipe, has_times=has_times, seed=0, deadline=deadline)


def test_data_without_structure_is_ranked_by_popularity() -> None:
    selected = select(shop(600, 4, 120, clusters=1), Recipe())
    assert selected.popularity >= 0.8


def test_structure_keeps_popularity_small() -> None:
    selected = select(shop(600, 6, 120, clusters=6), Recipe())
    assert selected.popularity < 1.0


def test_a_search_ends_at_its_deadline_with_its_defaults() -> None:
    recipe = Recipe()
    selected = select(shop(100, 4, 40, clusters=4), recipe, budget_s=-1.0)
    assert selected.linear == recipe.search_space.start


def test_without_times_nothing_is_forgotten() -> None:
    assert select(shop(100, 4, 40, clusters=4), Recipe()).decay == 0.0


def test_a_climb_ignores_gains_that_may_be_noise() -> None:
    grid = {"x": (0.0, 1.0, 2.0)}
    tiny = climb(grid, {"x": 0.0}, lambda at: 1 + 0.5 * MIN_GAIN * at["x"], deadline=float("inf"))
    clear = climb(grid, {"x": 0.0}, lambda at: 1 + 2 * MIN_GAIN * at["x"], deadline=float("inf"))
    assert (tiny["x"], clear["x"]) == (0.0, 2.0)


def test_large_data_starts_from_the_spectrum(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "MAX_EXACT_SIZE", 30)
    selected = select(shop(300, 6, 40, clusters=4), replace(Recipe(), gmf_dim=16))
    assert selected.linear is None
    assert selected.gmf_dim == 16


@pytest.mark.parametrize(("min_gain", "smoothing"), [(-1.0, 1.0), (1000.0, 0.0)])
def test_counts_are_smoothed_if_that_gains_enough(
    monkeypatch: pytest.MonkeyPatch, min_gain: float, smoothing: float
) -> None:
    monkeypatch.setattr(autoencoder, "MAX_EXACT_SIZE", 30)
    monkeypatch.setattr(selection, "MIN_SMOOTHING_GAIN", min_gain)
    assert select(shop(300, 6, 40, clusters=4), replace(Recipe(), gmf_dim=16)).smoothing == smoothing


@pytest.mark.parametrize(("min_gain", "dim"), [(0.0, 8), (1000.0, 4)])
def test_the_gmf_is_widened_if_that_gains_enough(monkeypatch: pytest.MonkeyPatch, min_gain: float, dim: int) -> None:
    monkeypatch.setattr(selection, "MIN_WIDE_GAIN", min_gain)
    # Twelve groups of items do not fit into four dimensions.
    assert select(shop(300, 5, 120, clusters=12), replace(Recipe(), gmf_dim=4)).gmf_dim == dim


def test_log_popularity_is_between_0_and_1() -> None:
    popularity = log_popularity(made_interactions([(0, 0), (1, 0), (2, 0), (0, 1)], n_users=3, n_items=3))
    assert popularity.tolist() == pytest.approx([1.0, np.log(2) / np.log(4), 0.0])


# -- NDCG of several held-out items


def test_equal_scores_rank_before_held_out_items() -> None:
    scores = np.zeros((2, 30), dtype=np.float32)
    scores[:, :5] = 1
    nothing = made_interactions([], n_users=2, n_items=30)
    for held_out_items in ([0], [0, 29]):  # the number of held-out items selects one of two ways to rank
        held_out = made_interactions([(0, item) for item in held_out_items], n_users=2, n_items=30)
        ideal = 1 if len(held_out_items) == 1 else 1 + 1 / np.log2(3)
        ndcg = ndcg_at_20(scores, nothing.to_matrix(), held_out.to_matrix())
        assert ndcg.tolist() == pytest.approx([1 / np.log2(6) / ideal, 0.0])  # rank 5 of five equal items, rank 30


def test_ndcg_of_two_held_out_items_is_theirs_over_the_ideal() -> None:
    scores = np.array([[9, 5, 4, 3, 2]], dtype=np.float32)
    seen = made_interactions([(0, 0)], n_users=1, n_items=5)
    held_out = made_interactions([(0, 1), (0, 3)], n_users=1, n_items=5)
    ndcg = ndcg_at_20(scores, seen.to_matrix(), held_out.to_matrix())
    assert ndcg.tolist() == pytest.approx([(1 + 1 / 2) / (1 + 1 / np.log2(3))])  # ranks 1 and 3
    assert mean_ndcg_at_20(lambda users: scores[users], seen, held_out) == pytest.approx(ndcg[0])


def test_what_is_not_a_number_ranks_last() -> None:
    scores = np.array([[np.nan, *range(30)]], dtype=np.float32)
    nothing = made_interactions([], n_users=1, n_items=31)
    held_out = made_interactions([(0, 0)], n_users=1, n_items=31)
    assert ndcg_at_20(scores, nothing.to_matrix(), held_out.to_matrix()).tolist() == [0.0]


def test_without_held_out_items_the_mean_is_0() -> None:
    nothing = made_interactions([], n_users=1, n_items=3)
    assert mean_ndcg_at_20(lambda users: np.zeros((len(users), 3), dtype=np.float32), nothing, nothing) == 0.0
