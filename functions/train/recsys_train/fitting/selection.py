"""Select the closed-form model, the recency exponent and the weight of popularity on a validation part."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.evaluation import ndcg_at_20
from recsys_train.fitting.recipe import Hyperparameters, Recipe, SearchSpace
from recsys_train.fitting.split import Fold
from recsys_train.model.batches import final_histories
from recsys_train.model.warm_start import (
    MAX_EXACT_ITEMS,
    Decomposition,
    LinearSettings,
    WarmStart,
    decompose,
    invert_gram,
)

MAX_SERVING_BYTES: Final = 256 * 1024**2
"""Limit of a published model's item tables: half of the default cache of the recommend function."""
MAX_TABLE_BYTES: Final = 512 * 1024**2
"""Limit of the embedding tables in `model.h5`, users and items together; Keras holds them several times."""
MIN_GMF_DIM: Final = 16
"""The GMF's width is never reduced below this."""
SCORED_PAIRS: Final = 8_000_000
"""User-item pairs that are scored at once: 32 MB."""

MIN_GAIN: Final = 0.002
"""Relative gain of NDCG@20 for which a setting leaves its default: smaller ones are noise of a few thousand users."""
POPULARITY_TOLERANCE: Final = 0.005
"""Of the weights of popularity that rank within this share of the best, the smallest is selected."""

Grid = Mapping[str, tuple[float, ...]]


def select_hyperparameters(
    folds: Sequence[Fold], recipe: Recipe, *, has_times: bool, seed: int, deadline: float
) -> Hyperparameters:
    """Select by the NDCG@20 of the closed-form model, one setting at a time.

    The search is a hill climb over the grid of the recipe: each setting in turn moves up or down as long as that
    helps. It covers every setting once and ends early at `deadline`. The weight of popularity comes last.

    Parameters
    ----------
    folds
        One at least; NDCG@20 is the mean over their users.
    has_times
        Without timestamps every position of a history has the same weight (`decay` 0).
    deadline
        Value of `time.monotonic`.
    """
    space = search_space(recipe, folds[0].train.n_items)
    decays = recipe.decays if has_times else (0.0,)
    start = {"decay": decays[len(decays) // 2], **asdict(space.start)}
    if len(folds[0].held_out) == 0:
        return Hyperparameters(space.start, start["decay"])
    validations = [_Validation(fold, recipe, has_times, seed) for fold in folds]
    grid: Grid = {
        "score_exponent": space.score_exponents,
        "decay": decays,
        "history_exponent": space.history_exponents,
        "diagonal": space.diagonals,
        "ridge": space.ridges,
        "item_exponent": space.item_exponents,
        "user_exponent": space.user_exponents,
    }

    def mean_ndcg(values: dict[str, float]) -> float:
        return float(np.mean([validation.ndcg(*_settings(values)) for validation in validations]))

    linear, decay = _settings(climb(grid, start, mean_ndcg, deadline))
    ndcgs = np.mean([validation.ndcg_by_popularity(linear, decay) for validation in validations], axis=0)
    is_good = ndcgs >= (1 - POPULARITY_TOLERANCE) * ndcgs.max()
    return Hyperparameters(linear, decay, recipe.popularities[int(np.argmax(is_good))])


def climb(
    grid: Grid, start: Mapping[str, float], value: Callable[[dict[str, float]], float], deadline: float
) -> dict[str, float]:
    """Move each setting of `start` along its candidates as long as `value` increases; return the best settings.

    `value` is positive and an increase is one by a share of more than `MIN_GAIN`.

    Examples
    --------
    >>> grid = {"x": (0, 1, 2, 3), "y": (0, 1)}
    >>> climb(grid, {"x": 1, "y": 0}, lambda at: 1 / (4 - at["x"] + at["y"]), deadline=float("inf"))
    {'x': 3, 'y': 0}
    """
    best = dict(start)
    best_value = value(best)
    for name, candidates in grid.items():
        for step in (1, -1):
            position = candidates.index(best[name]) + step
            while 0 <= position < len(candidates) and time.monotonic() < deadline:
                trial = {**best, name: candidates[position]}
                trial_value = value(trial)
                if trial_value <= best_value * (1 + MIN_GAIN):
                    break
                best, best_value = trial, trial_value
                position += step
    return best


class _Part(NamedTuple):
    """Some of the validation users: rows of sparse matrices (n, n_items)."""

    histories: Any
    seen: Any
    held_out: Any


@dataclass(slots=True)
class _Validation:
    """Scores closed-form models on held-out pairs; keeps the latest decomposition, because most trials rescale it."""

    fold: Fold
    recipe: Recipe
    ordered: bool
    seed: int
    _decomposition: Decomposition | None = None
    _histories: dict[float, Any] = field(default_factory=dict)

    def ndcg(self, linear: LinearSettings, decay: float) -> float:
        """Return the mean NDCG@20 over the validation users."""
        model = self._model(linear)
        parts = self._parts(decay)
        ndcgs = [ndcg_at_20(model.scores(part.histories), part.seen, part.held_out) for part in parts]
        return float(np.mean(np.concatenate(ndcgs)))

    def ndcg_by_popularity(self, linear: LinearSettings, decay: float) -> NDArray[np.float64]:
        """Return the mean NDCG@20 for each weight of popularity in the recipe."""
        model, popularity = self._model(linear), log_popularity(self.fold.train)
        unit, ndcgs = None, []
        for part in self._parts(decay):
            scores = model.scores(part.histories)
            unit = popularity_unit(scores, popularity) if unit is None else unit
            trials = (scores + weight * unit * popularity for weight in self.recipe.popularities)
            ndcgs.append(np.stack([ndcg_at_20(trial, part.seen, part.held_out) for trial in trials]))
        means: NDArray[np.float64] = np.concatenate(ndcgs, axis=1).mean(axis=1)
        return means

    def _model(self, linear: LinearSettings) -> WarmStart:
        if self._decomposition is None or not self._decomposition.is_for(linear):
            self._decomposition = None  # frees the previous one before the next is made
            self._decomposition = decomposition(
                self.fold.train.to_matrix(), linear, self.recipe, self.seed, ordered=self.ordered
            )
        return self._decomposition.model(linear)

    def _parts(self, decay: float) -> Iterator[_Part]:
        users = np.unique(self.fold.held_out.users)
        if decay not in self._histories:
            validated = self.fold.train[np.isin(self.fold.train.users, users)]
            self._histories[decay] = final_histories(validated, decay)[users]
        histories, held_out = self._histories[decay], self.fold.held_out.to_matrix()[users]
        n_rows = max(1, SCORED_PAIRS // self.fold.train.n_items)
        for begin in range(0, len(users), n_rows):
            rows = slice(begin, begin + n_rows)
            yield _Part(histories[rows], histories[rows], held_out[rows])


def log_popularity(train: Interactions) -> Floats:
    """Return the logarithm of one plus each item's count, scaled to a maximum of 1; (n_items,) float32."""
    logs = np.log1p(train.users_per_item())
    scaled: Floats = (logs / max(float(logs.max(initial=0.0)), 1.0)).astype(np.float32)
    return scaled


def popularity_unit(scores: Floats, popularity: Floats) -> float:
    """Return the factor that gives `popularity` (n_items,) the standard deviation of a user's scores (n, n_items)."""
    spread = float(popularity.std())
    return float(scores.std(axis=1).mean()) / spread if spread > 0 else 0.0


def search_space(recipe: Recipe, n_items: int) -> SearchSpace:
    """Return the candidates for a catalogue of this size."""
    return recipe.exact_search if n_items <= MAX_EXACT_ITEMS else recipe.spectral_search


def decomposition(
    matrix: Any, settings: LinearSettings, recipe: Recipe, generator: np.random.Generator | int, *, ordered: bool
) -> Decomposition:
    """Invert the Gram matrix where the catalogue is small enough, otherwise take the leading part of its spectrum.

    Parameters
    ----------
    matrix
        Sparse interactions of shape (n_users, n_items), float32.
    generator
        Source of the randomised decomposition, or its seed.
    """
    n_users, n_items = matrix.shape
    if n_items <= MAX_EXACT_ITEMS:
        return invert_gram(matrix, settings)
    dim = gmf_dim(recipe, n_users, n_items, ordered=ordered)
    return decompose(matrix, settings, dim, np.random.default_rng(generator))


def gmf_dim(recipe: Recipe, n_users: int, n_items: int, *, ordered: bool) -> int:
    """Return the GMF's width: the recipe's, reduced so that the tables stay within the limits above.

    `ordered` tells whether histories have an order, see `Recipe.large_ordered_gmf_dim`.
    """
    wanted = recipe.large_ordered_gmf_dim if ordered and n_items > MAX_EXACT_ITEMS else recipe.gmf_dim
    served = MAX_SERVING_BYTES // (2 * 4 * n_items) - recipe.hidden_dims[0]  # two float32 rows per item
    stored = MAX_TABLE_BYTES // (4 * (n_users + n_items)) - recipe.mlp_dim
    return min(wanted, n_items, max(MIN_GMF_DIM, min(served, stored)))


def _settings(values: Mapping[str, float]) -> tuple[LinearSettings, float]:
    linear = {name: value for name, value in values.items() if name != "decay"}
    return LinearSettings(**linear), values["decay"]
