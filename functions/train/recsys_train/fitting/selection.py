"""Select the closed-form model, the recency exponent, the weight of popularity and the GMF's width by validation."""

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
from recsys_train.fitting.recipe import Hyperparameters, Recipe, first_hyperparameters
from recsys_train.fitting.split import Fold
from recsys_train.model.autoencoder import GramInverse, LinearSettings, invert_gram
from recsys_train.model.batches import final_histories
from recsys_train.model.spectral import spectral
from recsys_train.model.warm_start import LinearModel, WarmStart, reduce_rank

MAX_SERVING_BYTES: Final = 256 * 1024**2
"""Limit of a published model's item tables: half of the default cache of the recommend function."""
MIN_GMF_DIM: Final = 16
"""The GMF's width is never reduced below this."""
SCORED_PAIRS: Final = 8_000_000
"""User-item pairs that are scored at once: 32 MB."""

MIN_GAIN: Final = 0.002
"""Relative gain of NDCG@20 for which a setting leaves its default; smaller gains are noise of a few thousand users."""
MIN_WIDE_GAIN: Final = 0.03
"""Relative gain of NDCG@20 for which the GMF is widened, because a wider one takes more memory and time to serve."""
POPULARITY_TOLERANCE: Final = 0.02
"""Of the weights of popularity whose NDCG@20 is within this share of the best, the smallest is selected: smaller
differences are noise of 500 users, and training learns popularity as well."""

Grid = Mapping[str, tuple[float, ...]]


def select_hyperparameters(
    folds: Sequence[Fold], recipe: Recipe, *, has_times: bool, seed: int, deadline: float
) -> Hyperparameters:
    """Select by the NDCG@20 of the closed-form model, one setting at a time.

    The search is a hill climb over the candidates of the recipe: each setting in turn moves up or down as long as that
    improves NDCG@20. It covers every setting once, and ends early at `deadline`. The weight of popularity and the width
    of the GMF come last, in any case.

    Parameters
    ----------
    folds
        At least one; NDCG@20 is the mean over their users.
    recipe
        Candidates and limits.
    has_times
        Whether the interactions are in chronological order. Otherwise every position of a history has the same weight
        (`decay` 0).
    seed
        Seed of the randomised decompositions.
    deadline
        Value of `time.monotonic`.
    """
    train = folds[0].train
    decays = recipe.decays if has_times else (0.0,)
    first = first_hyperparameters(recipe, train.n_users, train.n_items, decay=decays[len(decays) // 2])
    if len(folds[0].held_out) == 0:
        return first
    has_inverse = first.linear is not None
    start = {"decay": first.decay} | (asdict(first.linear) if first.linear else {})
    dim = gmf_dim(recipe.gmf_dim, recipe, train.n_users, train.n_items)
    validations = [_Validation(fold, recipe, dim, seed) for fold in folds]

    def mean_ndcg(values: dict[str, float]) -> float:
        return float(np.mean([validation.ndcg(*_settings(values)) for validation in validations]))

    linear, decay = _settings(climb(_grid(recipe, decays, has_inverse=has_inverse), start, mean_ndcg, deadline))
    ndcgs = np.mean([validation.ndcg_by_popularity(linear, decay) for validation in validations], axis=0)
    is_good = ndcgs >= (1 - POPULARITY_TOLERANCE) * ndcgs.max()
    if has_inverse:
        dim = validations[0].best_dim(linear, decay)
    return Hyperparameters(linear, decay, recipe.popularities[int(np.argmax(is_good))], dim)


def _grid(recipe: Recipe, decays: tuple[float, ...], *, has_inverse: bool) -> Grid:
    """Return the candidates of each setting, in the order of the search."""
    if not has_inverse:
        return {"decay": decays}
    space = recipe.search_space
    return {
        "score_exponent": space.score_exponents,
        "decay": decays,
        "diagonal": space.diagonals,
        "ridge": space.ridges,
        "item_exponent": space.item_exponents,
        "user_exponent": space.user_exponents,
    }


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


class _ValidationPart(NamedTuple):
    """Some of the validation users: rows of sparse matrices (n, n_items)."""

    histories: Any
    seen: Any
    held_out: Any


@dataclass(slots=True)
class _Validation:
    """Measures closed-form models on held-out pairs; keeps the latest model, because most trials only rescale it."""

    fold: Fold
    recipe: Recipe
    dim: int
    seed: int
    _inverse: GramInverse | None = None
    _spectral: LinearModel | None = None
    _histories: dict[float, Any] = field(default_factory=dict)

    def ndcg(self, linear: LinearSettings | None, decay: float) -> float:
        """Return the mean NDCG@20 over the validation users."""
        return self._mean_ndcg(self._model(linear), decay)

    def ndcg_by_popularity(self, linear: LinearSettings | None, decay: float) -> NDArray[np.float64]:
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

    def best_dim(self, linear: LinearSettings | None, decay: float) -> int:
        """Return the smallest width that none of the larger ones exceeds by `MIN_WIDE_GAIN`."""
        train, model = self.fold.train, self._model(linear)
        wanted = (widening * self.recipe.gmf_dim for widening in self.recipe.widenings)
        dims = sorted({gmf_dim(dim, self.recipe, train.n_users, train.n_items) for dim in wanted})
        if len(dims) == 1 or isinstance(model, LinearModel):
            return dims[0]
        reduced = reduce_rank(model, final_histories(train, decay), dims[-1], np.random.default_rng(self.seed))
        ndcgs = [self._mean_ndcg(reduced.first(dim), decay) for dim in dims]
        return next(dim for dim, ndcg in zip(dims, ndcgs, strict=True) if ndcg * (1 + MIN_WIDE_GAIN) >= max(ndcgs))

    def _mean_ndcg(self, model: WarmStart, decay: float) -> float:
        parts = self._parts(decay)
        ndcgs = [ndcg_at_20(model.scores(part.histories), part.seen, part.held_out) for part in parts]
        return float(np.mean(np.concatenate(ndcgs)))

    def _model(self, linear: LinearSettings | None) -> WarmStart:
        if linear is None:
            if self._spectral is None:
                self._spectral = spectral(self.fold.train.to_matrix(), self.dim, np.random.default_rng(self.seed))
            return self._spectral
        if self._inverse is None or not self._inverse.is_for(linear):
            self._inverse = None  # frees the previous one before the next one is computed
            self._inverse = invert_gram(self.fold.train.to_matrix(), linear)
        return self._inverse.model(linear)

    def _parts(self, decay: float) -> Iterator[_ValidationPart]:
        users = np.unique(self.fold.held_out.users)
        if decay not in self._histories:
            validated = self.fold.train[np.isin(self.fold.train.users, users)]
            self._histories[decay] = final_histories(validated, decay)[users]
        histories, held_out = self._histories[decay], self.fold.held_out.to_matrix()[users]
        n_rows = max(1, SCORED_PAIRS // self.fold.train.n_items)
        for begin in range(0, len(users), n_rows):
            rows = slice(begin, begin + n_rows)
            yield _ValidationPart(histories[rows], histories[rows], held_out[rows])


def log_popularity(train: Interactions) -> Floats:
    """Return the logarithm of one plus each item's count, scaled to a maximum of 1; (n_items,) float32."""
    logs = np.log1p(train.users_per_item())
    scaled: Floats = (logs / max(float(logs.max(initial=0.0)), 1.0)).astype(np.float32)
    return scaled


def popularity_unit(scores: Floats, popularity: Floats) -> float:
    """Return the factor that gives `popularity` (n_items,) the standard deviation of a user's scores (n, n_items)."""
    spread = float(popularity.std())
    return float(scores.std(axis=1).mean()) / spread if spread > 0 else 0.0


def closed_form(matrix: Any, linear: LinearSettings | None, dim: int, generator: np.random.Generator) -> WarmStart:
    """Fit the linear autoencoder, or without settings the spectral model of width `dim`.

    Parameters
    ----------
    matrix
        Sparse interactions of shape (n_users, n_items), float32.
    generator
        Source of the randomised decomposition.
    """
    return spectral(matrix, dim, generator) if linear is None else invert_gram(matrix, linear).model(linear)


def gmf_dim(wanted: int, recipe: Recipe, n_users: int, n_items: int) -> int:
    """Return the width of the GMF path: `wanted`, or less if the tables would exceed their limits."""
    served = MAX_SERVING_BYTES // (2 * 4 * n_items) - recipe.hidden_dims[0]  # two float32 rows per item
    stored = recipe.max_table_bytes // (4 * (n_users + n_items)) - recipe.mlp_dim
    return min(wanted, n_items, max(MIN_GMF_DIM, min(served, stored)))


def _settings(values: Mapping[str, float]) -> tuple[LinearSettings | None, float]:
    linear = {name: value for name, value in values.items() if name != "decay"}
    return LinearSettings(**linear) if linear else None, values["decay"]
