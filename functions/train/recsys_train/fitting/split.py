"""Split interactions into training, validation and test parts."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from recsys_train.data.interactions import Interactions

MAX_SELECTION_INTERACTIONS: Final = 3_000_000
"""Above this many interactions, selection and evaluation use a random subset of users."""
VALIDATION_PAIRS: Final = 100_000_000
"""User-item pairs that one validation scores; limits the number of validation users."""
TEST_PAIRS: Final = 150_000_000
"""User-item pairs that the evaluation scores; limits the number of test users."""
SELECTION_PAIRS: Final = 20_000_000
"""User-item pairs that one evaluation of a warm start scores; limits the number of its users."""
MIN_SELECTION_USERS: Final = 500
FOLD_USERS: Final = 5_000
"""Validation users of all folds together, at which the noise of a selection is small."""
MAX_FOLDS: Final = 5
MIN_SPLIT_USERS: Final = 20
"""With fewer held-out users than this, the same users serve validation and test."""
MAX_HELD_OUT_SHARE: Final = 0.2
"""Limit of the interactions that are held out: where histories are short, most users keep theirs, because a model
learns nothing from histories of one item."""
VALIDATION_SHARE: Final = 0.2
"""Share of each user's items that are held out for validation without timestamps: several per user are less noisy."""


class Split(NamedTuple):
    """The parts of the interactions; all of them are in their original order.

    `test` has one pair per user. `validation` has one pair of each of the other users if histories have an order;
    otherwise it has several pairs of any user. `rest` is everything but `test`, and
    `train` is `rest` without `validation`.
    """

    train: Interactions
    validation: Interactions
    test: Interactions
    rest: Interactions


def split_interactions(interactions: Interactions, *, has_times: bool, seed: int) -> Split:
    """Split interactions into training, validation and test parts.

    Parameters
    ----------
    has_times
        Whether the order of the interactions is that of time. If so, a user's last interaction is held out, otherwise
        random ones, because the last line of a user in a sorted file is not a random sample.
    seed
        Seed of every random choice.
    """
    interactions = _subsample_users(interactions, seed)
    if has_times:
        _, held_out = interactions.split_last()
    else:
        _, held_out = interactions.split_random(np.random.default_rng(seed))
    held_out = _limit_held_out(interactions, held_out, seed)
    n_validation = max(50, VALIDATION_PAIRS // interactions.n_items)
    n_test = max(500, TEST_PAIRS // interactions.n_items)
    validation, test = _split_validation_test(held_out, n_validation=n_validation, n_test=n_test, seed=seed)
    rest = interactions.without(test)
    if not has_times:
        validation = _share_held_out(rest, n_validation, seed)
    return Split(rest.without(validation), validation, test, rest)


class Fold(NamedTuple):
    """A training part, and held-out pairs of some of its users."""

    train: Interactions
    held_out: Interactions


def folds_for_selection(split: Split, *, has_times: bool, seed: int) -> list[Fold]:
    """Split the training part once more, to select a closed-form model with.

    With timestamps the last interaction of every user of `split.train` is held out, which gives twice as many users as
    `split.validation` has, unless most histories are too short for that. Without timestamps there are several random
    folds, the first of them `split.train` and `split.validation`, until they have `FOLD_USERS` users.
    """
    max_users = max(MIN_SELECTION_USERS, SELECTION_PAIRS // split.train.n_items)
    first = Fold(split.train, _of_some_users(split.validation, max_users, seed))
    if has_times:
        _, held_out = split.train.split_last()
        held_out = _limit_held_out(split.train, held_out, seed)
        is_larger = len(held_out) > len(split.validation)
        return [Fold(split.train.without(held_out), _of_some_users(held_out, max_users, seed)) if is_larger else first]
    n_users = max(1, len(np.unique(first.held_out.users)))
    n_folds = min(MAX_FOLDS, FOLD_USERS // n_users, max_users // n_users)  # no more scores than one large fold has
    folds = [first]
    for fold in range(1, n_folds):
        held_out = _share_held_out(split.rest, max_users, seed + fold)
        folds.append(Fold(split.rest.without(held_out), held_out))
    return folds


def _share_held_out(interactions: Interactions, max_users: int, seed: int) -> Interactions:
    """Hold out `VALIDATION_SHARE` of the items of at most `max_users` users."""
    _, held_out = interactions.split_share(VALIDATION_SHARE, np.random.default_rng(seed))
    return _of_some_users(_limit_held_out(interactions, held_out, seed), max_users, seed)


def _limit_held_out(interactions: Interactions, held_out: Interactions, seed: int) -> Interactions:
    """Drop random users from `held_out` until it holds at most `MAX_HELD_OUT_SHARE` of the interactions."""
    share = MAX_HELD_OUT_SHARE * len(interactions) / max(1, len(held_out))
    n_users = len(np.unique(held_out.users))
    return _of_some_users(held_out, max(MIN_SPLIT_USERS, round(share * n_users)), seed)


def _of_some_users(interactions: Interactions, max_users: int, seed: int) -> Interactions:
    users = np.unique(interactions.users)
    if len(users) <= max_users:
        return interactions
    return interactions[np.isin(interactions.users, np.random.default_rng(seed).permutation(users)[:max_users])]


def _subsample_users(interactions: Interactions, seed: int) -> Interactions:
    """Restrict the interactions to random users, so that about `MAX_SELECTION_INTERACTIONS` remain."""
    share = MAX_SELECTION_INTERACTIONS / max(1, len(interactions))
    if share >= 1:
        return interactions
    is_drawn = np.random.default_rng(seed).random(interactions.n_users) < share
    return interactions[is_drawn[interactions.users]]


def _split_validation_test(
    held_out: Interactions, *, n_validation: int, n_test: int, seed: int
) -> tuple[Interactions, Interactions]:
    """Draw at most `n_validation` users for validation and at most `n_test` others for the test."""
    if len(held_out) < MIN_SPLIT_USERS:
        return held_out, held_out
    order = np.random.default_rng(seed).permutation(len(held_out))
    n_validation = min(len(held_out) // 2, n_validation)
    return (
        held_out[np.sort(order[:n_validation])],
        held_out[np.sort(order[n_validation : n_validation + n_test])],
    )
