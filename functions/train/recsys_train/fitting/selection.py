"""Select the closed-form model, the recency exponent, the weight of popularity and the GMF's width by validation."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys_train.fitting.closed_form import (
    add_models,
    blended_spectrum,
    can_fit_transitions,
    log_popularity,
    popularity_unit,
    score_spread,
    share_factor,
    start_spectrum,
)
from recsys_train.fitting.evaluation import ndcg_at_20
from recsys_train.fitting.recipe import Hyperparameters, Recipe, first_hyperparameters
from recsys_train.fitting.split import Fold
from recsys_train.model.autoencoder import GramInverse, LinearSettings, invert_gram
from recsys_train.model.batches import final_histories
from recsys_train.model.transitions import fit_transitions
from recsys_train.model.warm_start import LinearModel, WarmStart, reduce_rank, row_importance

MAX_SERVING_BYTES: Final = 256 * 1024**2
"""Maximum size of the item tables in a published model, in bytes. This is half of the default cache of the recommend
function."""
MIN_GMF_DIM: Final = 16
"""Minimum width to which the GMF path is reduced if the tables would be too large."""
SCORED_PAIRS: Final = 8_000_000
"""Number of user-item pairs that are scored at once; their scores take 32 MB."""

MIN_GAIN: Final = 0.002
"""Relative gain of NDCG@20 above which the search changes a setting. Smaller gains are within the noise of a few
thousand users."""
MIN_SMOOTHING_GAIN: Final = 0.1
"""Relative gain of NDCG@20 before training that justifies smoothed counts in the spectral model. It is about three
standard errors of the gain with 500 users, and training makes up for smaller gains."""
MIN_WIDE_GAIN: Final = 0.03
"""Relative gain of NDCG@20 that justifies a wider GMF, which takes more memory and time to serve."""
POPULARITY_TOLERANCE: Final = 0.02
"""Tolerance in the selection of the weight of popularity. The smallest weight whose NDCG@20 is within this share of the
best NDCG@20 is selected, because smaller differences are noise with 500 users, and because training learns popularity
as well."""

Grid = Mapping[str, tuple[float, ...]]
"""Candidates for each setting, by name of the setting. Each setting's candidates are in ascending order."""


def select_hyperparameters(
    folds: Sequence[Fold], recipe: Recipe, *, has_times: bool, seed: int, deadline: float
) -> Hyperparameters:
    """Select the hyperparameters by the validation NDCG@20 of the closed-form model.

    The search is a hill climb over the candidates of the recipe. It moves one setting after the other up or down as
    long as NDCG@20 improves, covers every setting once, and ends early at `deadline`. Before the search, the counts of
    a spectral model are smoothed if that gains enough. The weight of popularity and the width of the GMF are selected
    last, even if the deadline has passed.

    Parameters
    ----------
    folds
        At least one fold. NDCG@20 is averaged over the users of each fold, and then over the folds.
    recipe
        Candidates and limits.
    has_times
        Whether the interactions are in chronological order. If not, every position of a history has the same weight
        (`decay` 0).
    seed
        Seed of the randomised decompositions.
    deadline
        Value of `time.monotonic` at which the hill climb ends.

    Returns
    -------
    Hyperparameters
        The selected hyperparameters, without the number of epochs. If the first fold has no held-out pairs, the
        hyperparameters with which the search starts.
    """
    train = folds[0].train
    decays = recipe.decays if has_times else (0.0,)
    first = first_hyperparameters(recipe, train.n_users, train.n_items, decay=decays[len(decays) // 2])
    if len(folds[0].held_out) == 0:
        return first
    dim = gmf_dim(recipe.gmf_dim, recipe, train.n_users, train.n_items)
    validations = [_Validation(fold, recipe, dim, seed) for fold in folds]

    def mean_ndcg(trial: Hyperparameters) -> float:
        return float(np.mean([validation.ndcg(trial) for validation in validations]))

    if first.linear is None and time.monotonic() < deadline:
        smoothed = replace(first, smoothing=recipe.smoothing)
        if mean_ndcg(smoothed) > mean_ndcg(first) * (1 + MIN_SMOOTHING_GAIN):
            first = smoothed
    grid = _grid(recipe, first, decays, train.n_items)
    best = _with_settings(
        first,
        climb(grid, _settings(first, grid), lambda settings: mean_ndcg(_with_settings(first, settings)), deadline),
    )
    ndcgs = np.mean([validation.ndcg_by_popularity(best) for validation in validations], axis=0)
    is_good = ndcgs >= (1 - POPULARITY_TOLERANCE) * ndcgs.max()
    if best.linear is not None:
        dim = validations[0].best_dim(best, best.linear)
    return replace(best, popularity=recipe.popularities[int(np.argmax(is_good))], gmf_dim=dim)


def _grid(recipe: Recipe, first: Hyperparameters, decays: tuple[float, ...], n_items: int) -> Grid:
    """Return the candidates for each setting, in the order of the search."""
    if first.linear is None:
        return {"decay": decays}
    space = recipe.search_space
    has_transitions = len(decays) > 1 and can_fit_transitions(n_items)
    return {
        "score_exponent": space.score_exponents,
        "decay": decays,
        "diagonal": space.diagonals,
        "ridge": space.ridges,
        "item_exponent": space.item_exponents,
        "user_exponent": space.user_exponents,
        "spectrum": recipe.shares,
        "transitions": recipe.shares if has_transitions else (0.0,),
    }


def climb(
    grid: Grid, start: Mapping[str, float], value: Callable[[dict[str, float]], float], deadline: float
) -> dict[str, float]:
    """Move one setting after the other along its candidates as long as `value` increases, and return the best settings.

    `value` returns a positive number. A move is kept only if the number grows by more than the share `MIN_GAIN`.

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
            has_moved = False
            while 0 <= position < len(candidates) and time.monotonic() < deadline:
                trial = {**best, name: candidates[position]}
                trial_value = value(trial)
                if trial_value <= best_value * (1 + MIN_GAIN):
                    break
                best, best_value, has_moved = trial, trial_value, True
                position += step
            if has_moved:  # the next candidate in the other direction is known to be worse
                break
    return best


class _Batch(NamedTuple):
    """A batch of validation users, as sparse matrices (n_users_of_batch, n_items)."""

    histories: Any
    held_out: Any


Component = Literal["base", "spectrum", "transitions"]
"""A component of the closed-form model. The base is the autoencoder, or the spectral model of large shops."""


@dataclass(slots=True)
class _Validation:
    """A measurement of the NDCG@20 of closed-form models on the held-out pairs of a fold.

    The scores of a component are kept until the settings of this component change, because most trials only rescale or
    add the scores.
    """

    fold: Fold
    recipe: Recipe
    dim: int
    seed: int
    _inverse: GramInverse | None = None
    _spectral: tuple[float, LinearModel] | None = None
    _scores: dict[Component, tuple[object, list[Floats]]] = field(default_factory=dict)
    _histories: tuple[float, Any] | None = None

    def ndcg(self, trial: Hyperparameters) -> float:
        """Return the NDCG@20 of the closed-form model with the settings `trial`, averaged over the validation users."""
        ndcgs = [
            ndcg_at_20(scores, batch.histories, batch.held_out)
            for scores, batch in zip(self._totals(trial), self._batches(trial.decay), strict=True)
        ]
        return float(np.mean(np.concatenate(ndcgs)))

    def ndcg_by_popularity(self, trial: Hyperparameters) -> NDArray[np.float64]:
        """Return the mean NDCG@20 over the validation users per weight of popularity in the recipe, (n_weights,)."""
        popularity = log_popularity(self.fold.train)
        unit, ndcgs = None, []
        for scores, batch in zip(self._totals(trial), self._batches(trial.decay), strict=True):
            unit = popularity_unit(scores, popularity) if unit is None else unit
            sums = (scores + weight * unit * popularity for weight in self.recipe.popularities)
            ndcgs.append(np.stack([ndcg_at_20(total, batch.histories, batch.held_out) for total in sums]))
        means: NDArray[np.float64] = np.concatenate(ndcgs, axis=1).mean(axis=1)
        return means

    def best_dim(self, selected: Hyperparameters, linear: LinearSettings) -> int:
        """Return the smallest width that ranks nearly as well as the best width.

        NDCG@20 of the best width exceeds that of the result by at most the share `MIN_WIDE_GAIN`. If the model at full
        rank does not exceed the narrowest model by more than this share, no wider model is fitted.

        Parameters
        ----------
        selected
            The selected hyperparameters.
        linear
            `selected.linear`.
        """
        train = self.fold.train
        wanted = (widening * self.recipe.gmf_dim for widening in self.recipe.widenings)
        dims = sorted({gmf_dim(dim, self.recipe, train.n_users, train.n_items) for dim in wanted})
        if len(dims) == 1:
            return dims[0]
        self._scores.clear()  # the decompositions need the memory
        histories = final_histories(train, selected.decay)
        importance = row_importance(histories)
        generator = np.random.default_rng(self.seed)
        base = self._inverse_for(linear).model(linear)
        model = add_models(base, train, histories, selected, generator)
        narrow = reduce_rank(model, importance, dims[0], generator)
        if self._ndcg_of(narrow, selected.decay) * (1 + MIN_WIDE_GAIN) >= self._ndcg_of(model, selected.decay):
            return dims[0]
        wide = reduce_rank(model, importance, dims[-1], generator)
        ndcgs = [self._ndcg_of(wide.first(dim), selected.decay) for dim in dims]
        return next(dim for dim, ndcg in zip(dims, ndcgs, strict=True) if ndcg * (1 + MIN_WIDE_GAIN) >= max(ndcgs))

    def _ndcg_of(self, model: WarmStart, decay: float) -> float:
        batches = self._batches(decay)
        ndcgs = [ndcg_at_20(model.scores(batch.histories), batch.histories, batch.held_out) for batch in batches]
        return float(np.mean(np.concatenate(ndcgs)))

    def _totals(self, trial: Hyperparameters) -> Iterator[Floats]:
        """Yield the scores of the closed-form model for each batch of validation users, (n_users_of_batch, n_items).

        The scores are those of the base, plus the scaled scores of the spectrum and of the transitions.
        """
        scales = np.float32(1) if trial.linear is None else self._inverse_for(trial.linear).column_scales(trial.linear)
        others = [(share, self._scores_of(name, trial)) for name, share in _shares(trial).items() if share > 0]
        factors: list[float] | None = None
        for batch, scores in enumerate(self._scores_of("base", trial)):
            total = scores * scales
            if factors is None:  # the first batch determines the factors for all batches
                spread = score_spread(total)
                factors = [share_factor(share, spread, score_spread(batches[0])) for share, batches in others]
            for factor, (_, batches) in zip(factors, others, strict=True):
                total += np.float32(factor) * batches[batch]
            yield total

    def _scores_of(self, component: Component, trial: Hyperparameters) -> list[Floats]:
        """Return the scores of a component for each batch of validation users, (n_users_of_batch, n_items).

        The scores of the autoencoder are not multiplied by its column scales.
        """
        if component == "base" and trial.linear is not None:
            key: object = replace(trial.linear, diagonal=0.0, score_exponent=0.0), trial.decay
        else:
            key = trial.decay, trial.smoothing
        if self._scores.get(component, (None,))[0] != key:
            self._scores.pop(component, None)  # frees the previous scores before the next are computed
            model = self._fit(component, trial)
            self._scores[component] = key, [model.scores(batch.histories) for batch in self._batches(trial.decay)]
        return self._scores[component][1]

    def _fit(self, component: Component, trial: Hyperparameters) -> WarmStart:
        train, generator = self.fold.train, np.random.default_rng(self.seed)
        if component == "transitions":
            return fit_transitions(train, trial.decay)
        if component == "spectrum":
            return blended_spectrum(train.to_matrix(), generator)
        if trial.linear is None:
            if self._spectral is None or self._spectral[0] != trial.smoothing:
                self._spectral = None  # frees the previous one before the next one is computed
                self._spectral = trial.smoothing, start_spectrum(train.to_matrix(), self.dim, trial, generator)
            return self._spectral[1]
        return self._inverse_for(trial.linear).unscaled()

    def _inverse_for(self, linear: LinearSettings) -> GramInverse:
        if self._inverse is None or not self._inverse.is_for(linear):
            self._inverse = None  # frees the previous inverse before the next is computed
            self._inverse = invert_gram(self.fold.train.to_matrix(), linear)
        return self._inverse

    def _batches(self, decay: float) -> Iterator[_Batch]:
        users = np.unique(self.fold.held_out.users)
        if self._histories is None or self._histories[0] != decay:
            validated = self.fold.train[np.isin(self.fold.train.users, users)]
            self._histories = decay, final_histories(validated, decay)[users]
        histories, held_out = self._histories[1], self.fold.held_out.to_matrix()[users]
        n_rows = max(1, SCORED_PAIRS // self.fold.train.n_items)
        for begin in range(0, len(users), n_rows):
            rows = slice(begin, begin + n_rows)
            yield _Batch(histories[rows], held_out[rows])


def gmf_dim(wanted: int, recipe: Recipe, n_users: int, n_items: int) -> int:
    """Return the width of the GMF path, which is at most `wanted` and at most `n_items`.

    The width is reduced until the tables are within their limits, but not below `MIN_GMF_DIM`.
    """
    served = MAX_SERVING_BYTES // (2 * 4 * n_items) - recipe.hidden_dims[0]  # two float32 rows per item
    stored = recipe.max_table_bytes // (4 * (n_users + n_items)) - recipe.mlp_dim
    return min(wanted, n_items, max(MIN_GMF_DIM, min(served, stored)))


def _shares(selected: Hyperparameters) -> dict[Component, float]:
    return {"spectrum": selected.spectrum, "transitions": selected.transitions}


def _settings(selected: Hyperparameters, grid: Grid) -> dict[str, float]:
    """Return the values of the settings in `grid`, including the settings of the autoencoder."""
    values = asdict(selected)
    values |= values["linear"] or {}
    return {name: values[name] for name in grid}


def _with_settings(selected: Hyperparameters, settings: Mapping[str, float]) -> Hyperparameters:
    """Return a copy of the hyperparameters with the values in `settings`, which has the keys of `_grid`."""
    if selected.linear is None:
        return replace(selected, decay=settings["decay"])
    shares = {"spectrum", "transitions"}
    linear = LinearSettings(**{name: settings[name] for name in settings.keys() - {"decay", *shares}})
    spectrum, transitions = settings["spectrum"], settings["transitions"]
    return replace(selected, linear=linear, decay=settings["decay"], spectrum=spectrum, transitions=transitions)
