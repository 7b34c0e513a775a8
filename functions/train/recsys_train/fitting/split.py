"""Split interactions into a training, a validation and a test part."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from recsys_train.data.interactions import Interactions

MAX_SELECTION_INTERACTIONS: Final = 3_000_000
"""Above this many interactions, selection and evaluation use a random subset of users."""
VALIDATION_PAIRS: Final = 100_000_000
"""Maximum number of user-item pairs that one validation scores, which limits the number of validation users."""
TEST_PAIRS: Final = 150_000_000
"""Maximum number of user-item pairs that the evaluation scores, which limits the number of test users."""
MIN_SPLIT_USERS: Final = 20
"""If fewer users than this have a held-out pair, the same users are used for validation and for the test."""
MAX_HELD_OUT_SHARE: Final = 0.2
"""Maximum share of the interactions that are held out. If histories are short, most users keep all their items, because
a history of one item does not show which items occur together."""
SELECTION_PAIRS: Final = 20_000_000
"""Maximum number of user-item pairs that one trial of a closed-form model scores, which limits the users in a trial."""
MIN_SELECTION_USERS: Final = 500
"""Number of users that a trial may score even if their pairs exceed `SELECTION_PAIRS`; not tuned."""
FOLD_SHARE: Final = 0.2
"""Share of each user's items that is held out to select a closed-form model if there are no timestamps. NDCG@20 is less
noisy with several held-out items per user than with one."""
FOLD_USERS: Final = 5_000
"""Maximum number of users in several folds together. With this number of users, the noise of NDCG@20 is below 1%."""
MAX_FOLDS: Final = 5
"""Maximum number of folds, because each fold takes as long as the first."""


class Split(NamedTuple):
    """The parts of a leave-one-out split; `validation` and `test` hold one pair per user."""

    train: Interactions
    validation: Interactions
    test: Interactions


def split_interactions(interactions: Interactions, *, has_times: bool, seed: int) -> Split:
    """Hold out one interaction per user and divide the users between validation and test.

    Parameters
    ----------
    interactions
        All pairs.
    has_times
        Whether the interactions are in chronological order. If so, each user's last interaction is held out. Otherwise,
        a random interaction is held out, because in a file that is sorted by item, the last interaction of a user is
        not a random one.
    seed
        Seed of every random choice.

    Returns
    -------
    Split
        Users with a single interaction are in `train` only. If more than `MAX_HELD_OUT_SHARE` of the interactions would
        be held out, further users, drawn at random, are in `train` only. If `train` has more than
        `MAX_SELECTION_INTERACTIONS` interactions, only a random subset of the users remains in the split. With fewer
        than `MIN_SPLIT_USERS` held-out pairs, validation and test are the same.

    Examples
    --------
    >>> users, items = np.divmod(np.arange(200, dtype="i4"), 5)
    >>> ids = [str(index) for index in range(40)]
    >>> split = split_interactions(Interactions(ids, ids[:5], users, items), has_times=True, seed=0)
    >>> len(split.train), len(split.validation), len(split.test)
    (160, 20, 20)
    """
    if has_times:
        _, held_out = interactions.split_last()
    else:
        _, held_out = interactions.split_random(np.random.default_rng(seed))
    held_out = _limit_held_out(interactions, held_out, seed)
    train, held_out = _subsample_users(interactions.without(held_out), held_out, seed)
    validation, test = _split_validation_test(
        held_out,
        n_validation=max(50, VALIDATION_PAIRS // train.n_items),
        n_test=max(500, TEST_PAIRS // train.n_items),
        seed=seed,
    )
    return Split(train, validation, test)


def _subsample_users(train: Interactions, held_out: Interactions, seed: int) -> tuple[Interactions, Interactions]:
    """Restrict `train` and `held_out` to the same random users.

    `train` keeps about `MAX_SELECTION_INTERACTIONS` pairs, or all pairs if there are fewer.
    """
    share = MAX_SELECTION_INTERACTIONS / max(1, len(train))
    if share >= 1:
        return train, held_out
    is_drawn = np.random.default_rng(seed).random(train.n_users) < share
    return train[is_drawn[train.users]], held_out[is_drawn[held_out.users]]


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


class Fold(NamedTuple):
    """A training part, and held-out pairs of some of its users."""

    train: Interactions
    held_out: Interactions


def folds_for_selection(split: Split, *, has_times: bool, seed: int) -> list[Fold]:
    """Split the training part into folds for the selection of the closed-form model.

    Parameters
    ----------
    split
        The split of all interactions. Its test part is never used.
    has_times
        Whether the interactions are in chronological order. If so, one fold holds out the last interaction of each user
        of `split.train`, or uses the pairs of `split.validation` if these are at least as many. Otherwise, each fold
        holds out the random share `FOLD_SHARE` of the interactions of some users. If a fold has few users, several
        folds are used, which together have at most `FOLD_USERS` users. If no interaction can be held out in this way,
        the pairs of `split.validation` are used.
    seed
        Seed of every random choice.

    Returns
    -------
    list of Fold
        At least one fold.
    """
    train = split.train
    max_users = max(MIN_SELECTION_USERS, SELECTION_PAIRS // train.n_items)
    if has_times:
        _, held_out = train.split_last()
        held_out = _limit_held_out(train, held_out, seed)
        if len(held_out) > len(split.validation):
            return [Fold(train.without(held_out), _of_some_users(held_out, max_users, seed))]
        return [Fold(train, _of_some_users(split.validation, max_users, seed))]
    folds = [_random_fold(train, max_users, seed)]
    n_users = len(np.unique(folds[0].held_out.users))
    if n_users == 0:
        return [Fold(train, _of_some_users(split.validation, max_users, seed))]
    # The folds together have at most as many users as one large fold.
    n_folds = min(MAX_FOLDS, FOLD_USERS // n_users, max_users // n_users)
    return folds + [_random_fold(train, max_users, seed + fold) for fold in range(1, n_folds)]


def _random_fold(train: Interactions, max_users: int, seed: int) -> Fold:
    """For each of at most `max_users` random users, hold out the share `FOLD_SHARE` of the items, drawn at random."""
    _, held_out = train.split_share(FOLD_SHARE, np.random.default_rng(seed))
    held_out = _of_some_users(_limit_held_out(train, held_out, seed), max_users, seed)
    return Fold(train.without(held_out), held_out)


def _limit_held_out(interactions: Interactions, held_out: Interactions, seed: int) -> Interactions:
    """Restrict `held_out` to random users, so that at most about `MAX_HELD_OUT_SHARE` of the interactions are held out.

    At least `MIN_SPLIT_USERS` users remain, if there are as many.
    """
    share = MAX_HELD_OUT_SHARE * len(interactions) / max(1, len(held_out))
    n_users = len(np.unique(held_out.users))
    return _of_some_users(held_out, max(MIN_SPLIT_USERS, round(share * n_users)), seed)


def _of_some_users(interactions: Interactions, max_users: int, seed: int) -> Interactions:
    """Return the interactions of at most `max_users` random users."""
    users = np.unique(interactions.users)
    if len(users) <= max_users:
        return interactions
    return interactions[np.isin(interactions.users, np.random.default_rng(seed).permutation(users)[:max_users])]
