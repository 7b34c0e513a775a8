"""Select the regularisation of the warm start and the recency exponent on the validation part."""

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
    """The selected hyperparameters and the closed-form model that was fitted with them to the training part."""

    hyperparameters: Hyperparameters
    warm_start: WarmStart


def select_hyperparameters(
    train: Interactions, validation: Interactions, recipe: Recipe, *, has_times: bool, seed: int
) -> Selection:
    """Select `ridge` and `decay` by the validation NDCG@20 of the closed-form model.

    Parameters
    ----------
    train
        The pairs that the closed-form model is fitted to.
    validation
        One held-out pair per user.
    recipe
        Lists the candidates, `ridges` and `decays`.
    has_times
        Whether the interactions are in chronological order. Otherwise every position of a history has the same weight
        (`decay` 0).
    seed
        Seed of the sampled negatives and of the randomised decomposition.

    Returns
    -------
    Selection
        The best candidate; if several are equal, the first of them.

    Examples
    --------
    >>> from recsys_train.fitting.split import split_interactions
    >>> users, items = np.divmod(np.arange(200, dtype="i4"), 10)
    >>> ids = [str(index) for index in range(20)]
    >>> split = split_interactions(Interactions(ids, ids[:10], users, items), has_times=True, seed=0)
    >>> recipe = Recipe(ridges=(50.0, 200.0), decays=(0.0, 1.0))
    >>> select_hyperparameters(split.train, split.validation, recipe, has_times=True, seed=0).hyperparameters
    Hyperparameters(ridge=50.0, decay=0.0, epochs=0)
    """
    decays = recipe.decays if has_times else (0.0,)
    matrix = to_matrix(train)
    if train.n_items > MAX_EASE_ITEMS and len(decays) == 1:  # a single candidate
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
    """Fit EASE if the catalogue is small enough, otherwise the spectral model, which ignores `ridge`.

    Parameters
    ----------
    matrix
        Sparse interactions of shape (n_users, n_items), float32.
    generator
        Random generator of the randomised decomposition, or its seed.
    """
    n_items = matrix.shape[1]
    if n_items > MAX_EASE_ITEMS:
        return spectral(matrix, gmf_dim(recipe, *matrix.shape), np.random.default_rng(generator))
    return ease(matrix, ridge)


def gmf_dim(recipe: Recipe, n_users: int, n_items: int) -> int:
    """Return the width of the GMF path: `recipe.gmf_dim`, or less if the tables would exceed the module's limits."""
    served = MAX_SERVING_BYTES // (2 * 4 * n_items) - recipe.hidden_dims[0]  # two float32 rows per item
    stored = MAX_TABLE_BYTES // (4 * (n_users + n_items)) - recipe.mlp_dim
    return min(recipe.gmf_dim, n_items, max(MIN_GMF_DIM, min(served, stored)))
