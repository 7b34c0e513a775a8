"""Split interactions into a training, a validation and a test part."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from recsys_train.data.interactions import Interactions

MAX_SELECTION_INTERACTIONS: Final = 3_000_000
"""Above this many interactions, selection and evaluation use a random subset of users."""
VALIDATION_PAIRS: Final = 100_000_000
"""User-item pairs that one validation may score; limits the number of validation users."""
TEST_PAIRS: Final = 150_000_000
"""User-item pairs that the evaluation may score; limits the number of test users."""
MIN_SPLIT_USERS: Final = 20
"""With fewer users with a held-out pair than this, the same users serve validation and test."""


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
        Whether the interactions are in chronological order. If so, each user's last interaction is held out; otherwise
        a random one, because in a file that is sorted by item the last line of a user is not a random sample.
    seed
        Seed of every random choice.

    Returns
    -------
    Split
        Users with a single interaction are in `train` only. Above `MAX_SELECTION_INTERACTIONS`, a random subset of the
        users remains. With fewer than `MIN_SPLIT_USERS` held-out pairs, validation and test are the same.

    Examples
    --------
    >>> users, items = np.divmod(np.arange(120, dtype="i4"), 3)
    >>> ids = [str(index) for index in range(40)]
    >>> split = split_interactions(Interactions(ids, ids[:3], users, items), has_times=True, seed=0)
    >>> len(split.train), len(split.validation), len(split.test)
    (80, 20, 20)
    """
    if has_times:
        train, held_out = interactions.split_last()
    else:
        train, held_out = interactions.split_random(np.random.default_rng(seed))
    train, held_out = _subsample_users(train, held_out, seed)
    validation, test = _split_validation_test(
        held_out,
        n_validation=max(50, VALIDATION_PAIRS // train.n_items),
        n_test=max(500, TEST_PAIRS // train.n_items),
        seed=seed,
    )
    return Split(train, validation, test)


def _subsample_users(train: Interactions, held_out: Interactions, seed: int) -> tuple[Interactions, Interactions]:
    """Restrict both parts to random users, so that about `MAX_SELECTION_INTERACTIONS` interactions remain."""
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
