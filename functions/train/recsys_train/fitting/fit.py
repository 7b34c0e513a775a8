"""Fit a network to interactions in five steps.

The interactions are split, hyperparameters are selected, a network is trained and evaluated, and the final network is
trained on all interactions.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

import numpy as np

from recsys.model.neumf import Dims, Floats
from recsys.registry.records import Progress
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.breakdowns import Breakdowns, break_down
from recsys_train.fitting.calibration import (
    IDENTITY,
    Platt,
    Reliability,
    fit_platt,
    measure_reliability,
    top_logits,
)
from recsys_train.fitting.evaluation import (
    HeldOutTest,
    Quality,
    ScoreUsers,
    evaluate,
    lift_interval,
    mean_ndcg_at_20,
)
from recsys_train.fitting.recipe import Hyperparameters, Recipe
from recsys_train.fitting.scoring import score_users
from recsys_train.fitting.selection import select_hyperparameters
from recsys_train.fitting.split import Fold, Split, folds_for_selection, split_interactions
from recsys_train.fitting.training import TrainingRun

SELECTION_BUDGET: Final = 0.25
"""Share of the time budget after which the search for a closed-form model ends."""

OnProgress = Callable[[Progress], None]
"""Function that is called with the progress of a training run. An exception that the function raises ends the run."""


@dataclass(frozen=True, slots=True)
class FitResult:
    """A network that was trained on all interactions, and its estimated quality.

    The quality is measured on held-out interactions with another network, which was trained in the same way but without
    these interactions.

    Parameters
    ----------
    dims, weights
        Sizes and trained arrays, named as in `Dims.weight_shapes` and `Dims.map_shapes`, without user tables.
    quality, popularity
        Metrics of the measured network and of the popularity ranking on the same `evaluated_users` users. The measured
        network was trained on `measured_interactions` interactions. No hyperparameter was selected on these users,
        unless fewer than `split.MIN_SPLIT_USERS` users have a held-out item.
    reliability
        Calibration of the scores of the measured network, see `calibration.Reliability`. None without held-out
        interactions.
    lift_interval
        95% confidence interval of the NDCG@20 of the measured network divided by that of the popularity ranking, see
        `evaluation.lift_interval`.
    fit_s
        Duration of the whole fit, in seconds.
    test
        The histories and held-out pairs on which `quality` was measured, and the scores of the measured network.
    breakdowns
        `quality` and `popularity` by the length of the user's history and by the popularity of the held-out item.
    """

    dims: Dims
    weights: dict[str, Floats]
    quality: Quality
    popularity: Quality
    reliability: Reliability | None
    lift_interval: tuple[float, float] | None
    evaluated_users: int
    measured_interactions: int
    hyperparameters: Hyperparameters
    fit_s: float
    test: HeldOutTest
    breakdowns: Breakdowns


def fit(
    interactions: Interactions,
    recipe: Recipe,
    *,
    seed: int,
    budget_s: float,
    on_progress: OnProgress,
    has_times: bool = True,
) -> FitResult:
    """Train a NeuMF on `interactions`, and measure the quality on held-out interactions.

    Parameters
    ----------
    interactions
        Distinct (user, item) pairs, oldest first.
    recipe
        Network sizes, candidates for the hyperparameters, and limits.
    seed
        Seed of every random choice; the same data, recipe and seed give the same weights on the same machine.
    budget_s
        Time budget in seconds. After half of it, the selection of the number of epochs ends with the best epoch so far.
        The rest is for the evaluation and for the refit, which stops when the budget is spent.
    on_progress
        Function that is called at the start of each phase and after each epoch. An exception that it raises ends the
        training.
    has_times
        Whether the interactions are in chronological order, see `split_interactions`.

    Returns
    -------
    FitResult
        The network of the refit, which uses all interactions. If no user has two interactions, nothing can be
        held out, and every metric is 0.

    Examples
    --------
    >>> from recsys_train.fitting.recipe import Recipe
    >>> users, items = np.array([0, 0, 1], "i4"), np.array([0, 1, 0], "i4")
    >>> interactions = Interactions(["u1", "u2"], ["a", "b"], users, items)
    >>> result = fit(interactions, Recipe(max_epochs=1), seed=0, budget_s=60, on_progress=lambda progress: None)
    >>> result.weights["gmf_item"].shape
    (2, 2)
    """
    started = time.monotonic()
    deadline = started + budget_s
    split = split_interactions(interactions, has_times=has_times, seed=seed)
    best = _select_and_train(split, recipe, started, budget_s, on_progress, has_times=has_times, seed=seed)

    on_progress(Progress("evaluating"))
    scores = best.score_users(split.train)
    model = evaluate(scores, split.train, split.test, seed=seed)
    popularity = evaluate(_popularity_scores(split.train), split.train, split.test, seed=seed)
    test = HeldOutTest(split.train, split.test, scores, model.gains(), popularity.gains())
    platt, reliability = _calibrate(scores, split)

    on_progress(Progress("refitting"))
    final = _train_again(interactions, recipe, best.hyperparameters, deadline, on_progress, seed=seed)
    return FitResult(
        dims=final.network.dims,
        weights=platt.fold(final.network.weights()),
        quality=model.quality(),
        popularity=popularity.quality(),
        reliability=reliability,
        lift_interval=lift_interval(model, popularity, seed=seed),
        evaluated_users=len(split.test),
        measured_interactions=best.n_interactions,
        hyperparameters=replace(best.hyperparameters, epochs=final.n_epochs),
        fit_s=round(time.monotonic() - started, 3),
        test=test,
        breakdowns=break_down(model, popularity, split.train, split.test),
    )


class _Checkpoint(NamedTuple):
    """The network after some epochs, with its validation NDCG@20."""

    hyperparameters: Hyperparameters
    ndcg: float
    dims: Dims
    weights: dict[str, Floats]
    n_interactions: int

    def score_users(self, train: Interactions) -> ScoreUsers:
        """Return a function that scores all items for users of `train` with this network."""
        return score_users(self.dims, self.weights, self.hyperparameters.decay, train)

    @property
    def is_finite(self) -> bool:
        """Whether every weight is a finite number."""
        return all(np.isfinite(values).all() for values in self.weights.values())


def _select_and_train(
    split: Split,
    recipe: Recipe,
    started: float,
    budget_s: float,
    on_progress: OnProgress,
    *,
    has_times: bool,
    seed: int,
) -> _Checkpoint:
    """Select the hyperparameters, train on the training part, and return the network with the best validation NDCG@20.

    The optimiser's state is freed on return, because the refit needs the memory.
    """
    on_progress(Progress("choosing"))
    folds = folds_for_selection(split, has_times=has_times, seed=seed)
    selected = select_hyperparameters(
        folds,
        recipe,
        has_times=has_times,
        seed=seed,
        deadline=started + SELECTION_BUDGET * budget_s,
    )
    on_progress(Progress("fitting"))
    training_started = time.monotonic()
    # Without timestamps, the NDCG@20 of several held-out items per user is less noisy than that of one.
    uses_fold = selected.linear is not None and not has_times
    fold = folds[0] if uses_fold else Fold(split.train, split.validation)
    training = TrainingRun.start(fold.train, recipe, selected, seed=seed)
    best = _validate(training, selected, fold)
    while (
        training.n_epochs < min(recipe.max_epochs, best.hyperparameters.epochs + recipe.patience)
        and _leaves_time_for_another(training.n_epochs, training_started, started + budget_s)
    ):  # fmt: skip
        loss = training.run_epoch(deadline=started + budget_s / 2)
        latest = _validate(training, selected, fold)
        on_progress(Progress("fitting", training.n_epochs, recipe.max_epochs, loss, latest.ndcg))
        if latest.ndcg > best.ndcg and latest.is_finite:
            best = latest
    return best


def _validate(training: TrainingRun, hyperparameters: Hyperparameters, fold: Fold) -> _Checkpoint:
    dims, weights = training.network.dims, training.network.weights()
    scores = score_users(dims, weights, hyperparameters.decay, fold.train)
    ndcg = mean_ndcg_at_20(scores, fold.train, fold.held_out)
    epochs = replace(hyperparameters, epochs=training.n_epochs)
    return _Checkpoint(epochs, ndcg, dims, weights, n_interactions=len(fold.train))


def _calibrate(score_users: ScoreUsers, split: Split) -> tuple[Platt, Reliability | None]:
    """Calibrate scores on the validation users, and measure the calibration on the test users."""
    if len(split.test) == 0:
        return IDENTITY, None
    platt = fit_platt(top_logits(score_users, split.train, split.validation))
    return platt, measure_reliability(top_logits(score_users, split.train, split.test), platt)


def _leaves_time_for_another(n_epochs: int, training_started: float, deadline: float) -> bool:
    """Return whether there is time for another epoch.

    The next epoch and all epochs of the refit must end before the deadline. An epoch is assumed to take the mean of the
    durations so far, in which the start of the training run counts as one epoch.
    """
    now = time.monotonic()
    return now + (now - training_started) * (n_epochs + 2) / (n_epochs + 1) <= deadline


def _train_again(
    interactions: Interactions,
    recipe: Recipe,
    hyperparameters: Hyperparameters,
    deadline: float,
    on_progress: OnProgress,
    *,
    seed: int,
) -> TrainingRun:
    """Train on all interactions for as many epochs as validation selected, or until the deadline."""
    training = TrainingRun.start(interactions, recipe, hyperparameters, seed=seed)
    while training.n_epochs < hyperparameters.epochs and time.monotonic() <= deadline:
        loss = training.run_epoch(deadline=deadline)
        on_progress(Progress("refitting", training.n_epochs, hyperparameters.epochs, loss))
    return training


def _popularity_scores(train: Interactions) -> ScoreUsers:
    counts = train.users_per_item().astype(np.float32)
    return lambda users: np.tile(counts, (len(users), 1))
