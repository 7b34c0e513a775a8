"""Training, validation and test parts."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_train.data.interactions import Interactions
from recsys_train.fitting.split import MAX_FOLDS, MAX_HELD_OUT_SHARE, folds_for_selection, split_interactions


def made(n_users: int, n_each: int, n_items: int = 50) -> Interactions:
    """Every user has `n_each` distinct items."""
    generator = np.random.default_rng(0)
    items = np.concatenate([generator.choice(n_items, n_each, replace=False) for _ in range(n_users)])
    ids = [f"u{user}" for user in range(n_users)], [f"i{item}" for item in range(n_items)]
    users = np.repeat(np.arange(n_users), n_each).astype(np.int32)
    return Interactions(*ids, users, items.astype(np.int32))


def pairs(interactions: Interactions) -> set[tuple[int, int]]:
    return set(zip(interactions.users.tolist(), interactions.items.tolist(), strict=True))


@pytest.mark.parametrize("has_times", [True, False])
@pytest.mark.parametrize("n_each", [2, 10])
def test_the_parts_are_all_the_interactions_and_share_none(has_times: bool, n_each: int) -> None:
    data = made(200, n_each)
    split = split_interactions(data, has_times=has_times, seed=0)
    parts = [pairs(part) for part in (split.train, split.validation, split.test)]
    assert set.union(*parts) == pairs(data)
    assert sum(len(part) for part in parts) == len(data)
    assert len(np.unique(split.test.users)) == len(split.test) > 0


def test_with_times_each_users_last_item_is_held_out_once() -> None:
    data = made(200, 10)
    _, last = data.split_last()
    split = split_interactions(data, has_times=True, seed=0)
    assert pairs(split.validation) | pairs(split.test) == pairs(last)
    assert len(split.validation) == len(split.test) == 100


def test_without_times_a_fifth_of_the_items_selects_the_closed_form_model() -> None:
    folds = folds_for_selection(split_interactions(made(200, 11), has_times=False, seed=0), has_times=False, seed=0)
    counts = np.bincount(folds[0].held_out.users, minlength=200)
    assert set(counts.tolist()) == {2}


@pytest.mark.parametrize("has_times", [True, False])
def test_most_users_keep_short_histories(has_times: bool) -> None:
    # With one of two items held out of every user, nothing would be left to learn which items go together.
    split = split_interactions(made(500, 2), has_times=has_times, seed=0)
    counts = np.bincount(split.train.users, minlength=500)
    assert (counts == 2).sum() >= (1 - 2 * 2 * MAX_HELD_OUT_SHARE) * 500
    assert len(split.test) <= MAX_HELD_OUT_SHARE * 1000


def test_small_data_is_validated_in_several_folds_that_never_touch_the_test_part() -> None:
    split = split_interactions(made(200, 10), has_times=False, seed=0)
    folds = folds_for_selection(split, has_times=False, seed=0)
    assert len(folds) == MAX_FOLDS
    for fold in folds:
        assert not pairs(fold.held_out) & pairs(fold.train)
        assert pairs(fold.held_out) | pairs(fold.train) == pairs(split.train)
    assert len({frozenset(pairs(fold.held_out)) for fold in folds}) == len(folds)


def test_with_times_the_selection_uses_the_last_item_of_every_user_that_is_left() -> None:
    split = split_interactions(made(200, 10), has_times=True, seed=0)
    (fold,) = folds_for_selection(split, has_times=True, seed=0)
    assert pairs(fold.held_out) == pairs(split.train.split_last()[1])


def test_users_with_nothing_left_to_hold_out_are_validated_with_what_there_is() -> None:
    split = split_interactions(made(30, 2), has_times=True, seed=0)
    (fold,) = folds_for_selection(split, has_times=True, seed=0)
    assert len(fold.held_out) > 0
    assert not pairs(fold.held_out) & pairs(split.test)
