"""Select the warm start's regularisation and the recency exponent on a validation part."""

from __future__ import annotations

from functools import partial
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.evaluation import evaluate
from recsys_train.fitting.recipe import Hyperparameters, Recipe
from recsys_train.model.batches import final_histories
from recsys_train.model.warm_start import MAX_EASE_ITEMS, WarmStart, ease, spectral, to_matrix

MAX_SERVING_BYTES: Final = 256 * 1024**2
"""Limit of a published model's item tables: half of the default cache of the recommend function."""
MAX_TABLE_BYTES: Final = 1024**3
"""Limit of the embedding tables in `model.h5`, users and items together."""
MIN_GMF_DIM: Final = 16
"""The GMF's width is never reduced below this."""


class Selection(NamedTuple):
    """What validation selected, and the closed-form model of the training part that belongs to it."""

    hyperparameters: Hyperparameters
    warm_start: WarmStart


def select_hyperparameters(
    train: Interactions, validation: Interactions, recipe: Recipe, *, has_times: bool, seed: int
) -> Selection:
    """Select `ridge` and `decay` by the validation NDCG@20 of the closed-form model.

    Parameters
    ----------
    validation
        One held-out pair per user.
    has_times
        Without timestamps every position of a history has the same weight (`decay` 0).

    Returns
    -------
    Selection
        The best candidate; the first one of equals.
    """
    decays = recipe.decays if has_times else (0.0,)
    matrix = to_matrix(train)
    if train.n_items > MAX_EASE_ITEMS and len(decays) == 1:  # there is one candidate only
        return Selection(Hyperparameters(0.0, decays[0]), closed_form(matrix, 0.0, recipe, seed))
    users = validation.users
    row_of = dict(zip(users.tolist(), range(len(users)), strict=True))
    validated = train[np.isin(train.users, users)]
    histories = {decay: final_histories(validated, decay)[users] for decay in decays}
    best, best_ndcg = None, -1.0
    for ridge in recipe.ridges if train.n_items <= MAX_EASE_ITEMS else (0.0,):
        warm_start = closed_form(matrix, ridge, recipe, seed)
        for decay, rows in histories.items():
            scores = partial(_rows_of_users, warm_start.scores(rows), row_of)
            ndcg = evaluate(scores, train, validation, seed=seed).quality().ndcg_at_20
            if best is None or ndcg > best_ndcg:
                best, best_ndcg = Selection(Hyperparameters(ridge, decay), warm_start), ndcg
    assert best is not None, "a recipe has at least one ridge and one decay"
    return best


def _rows_of_users(scores: Floats, row_of: dict[int, int], users: NDArray[np.integer]) -> Floats:
    rows: Floats = scores[[row_of[user] for user in users.tolist()]]
    return rows


def closed_form(matrix: Any, ridge: float, recipe: Recipe, generator: np.random.Generator | int) -> WarmStart:
    """Fit EASE where the catalogue is small enough, otherwise the spectral model, which ignores `ridge`.

    Parameters
    ----------
    matrix
        Sparse interactions of shape (n_users, n_items), float32.
    generator
        Source of the randomised decomposition, or its seed.
    """
    n_items = matrix.shape[1]
    if n_items > MAX_EASE_ITEMS:
        return spectral(matrix, gmf_dim(recipe, *matrix.shape), np.random.default_rng(generator))
    return ease(matrix, ridge)


def gmf_dim(recipe: Recipe, n_users: int, n_items: int) -> int:
    """Return the GMF's width: the recipe's, reduced so that the tables stay within the limits above."""
    served = MAX_SERVING_BYTES // (2 * 4 * n_items) - recipe.hidden_dims[0]  # two float32 rows per item
    stored = MAX_TABLE_BYTES // (4 * (n_users + n_items)) - recipe.mlp_dim
    return min(recipe.gmf_dim, n_items, max(MIN_GMF_DIM, min(served, stored)))
