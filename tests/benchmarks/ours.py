"""What `recsys train` does, and what is asked of it: how well, how fast, for whom."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.model.neumf import Network
from recsys.registry.records import Progress
from recsys.settings import Settings
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.fit import FitResult, fit
from recsys_train.fitting.recipe import Hyperparameters, Recipe
from recsys_train.fitting.scoring import score_histories
from recsys_train.fitting.training import TrainingRun
from recsys_train.model.batches import Histories
from tests.benchmarks.measured import seconds_by_phase
from tests.benchmarks.protocol import DataSet, Scores, measure

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "warm start alone, no training": {"max_epochs": 0},
    "without the MLP path": {"mlp_dim": 1, "hidden_dims": (1,)},
    "without recency": {"decays": (0.0,)},
    "negatives count no more than positives": {"negative_weight": 1.0},
}
"""What each part of a recipe contributes: the changes that switch it off."""
TIMED_PASSES = 2


@dataclass(frozen=True, slots=True)
class Trained:
    """A network, the seconds it took, and of these each phase's."""

    fitted: FitResult
    seconds: float
    phases: dict[str, float]


def train(
    interactions: Interactions, recipe: Recipe, *, seed: int, has_times: bool, budget_s: float | None = None
) -> Trained:
    """As `recsys train` does, with its budget where none is given."""
    started = time.perf_counter()
    marks: list[tuple[str, float]] = []

    def on_progress(progress: Progress) -> None:
        marks.append((progress.phase, time.perf_counter()))

    fitted = fit(
        interactions,
        recipe,
        seed=seed,
        budget_s=Settings().train_budget_s if budget_s is None else budget_s,
        on_progress=on_progress,
        has_times=has_times,
    )
    ended = time.perf_counter()
    return Trained(fitted, ended - started, seconds_by_phase([("starting", started), *marks], ended))


def scorer(fitted: FitResult, interactions: Interactions) -> Scores:
    """Logits of all items, for users as their items in `interactions` make them."""
    return network_scorer(
        Network.from_weights(fitted.dims, fitted.weights, decay=fitted.hyperparameters.decay), interactions
    )


def network_scorer(network: Network, interactions: Interactions) -> Scores:
    """Return the same for a network."""
    starts, items = interactions.items_by_user()
    return lambda users: score_histories(network, [items[starts[user] : starts[user + 1]] for user in users])


def pairs_per_second(data: DataSet, recipe: Recipe, *, seed: int) -> float:
    """Pairs whose logit and gradient are computed in passes over all histories, after one that compiles."""
    decay = recipe.decays[-1] if data.has_times else 0.0
    histories = Histories.of(data.train, ordered=data.has_times)
    n_pairs = 0
    sizes = recipe.ordered if data.has_times else recipe.unordered
    for batch in histories.batches(sizes.interactions, np.random.default_rng(seed)):
        n_positives = int((batch.lengths - data.has_times).sum())  # the first of an ordered history has no predecessor
        n_pairs += n_positives + (n_positives if data.has_times else len(batch.lengths)) * sizes.negatives
    training = TrainingRun.start(data.train, recipe, Hyperparameters(recipe.ridges[0], decay), seed=seed)
    training.run_epoch(deadline=float("inf"))
    started = time.perf_counter()
    for _ in range(TIMED_PASSES):
        training.run_epoch(deadline=float("inf"))
    return TIMED_PASSES * n_pairs / (time.perf_counter() - started)


def seconds_to_reach(data: DataSet, ndcg_at_20: float, *, seed: int) -> tuple[float, float]:
    """`(seconds, NDCG@20)` of the shortest training that ranks so well: without an epoch, with 1, 2, … at most.

    Each is a whole training, with all that is chosen and measured on the way; they are not added up, since who asks for
    so many epochs knows it before.
    """
    for max_epochs in range(Recipe().max_epochs + 1):
        recipe = replace(Recipe(), max_epochs=max_epochs)
        trained = train(data.train, recipe, seed=seed, has_times=data.has_times)
        reached = measure(scorer(trained.fitted, data.train), data).ndcg_at_20
        if reached >= ndcg_at_20:
            break
    return trained.seconds, reached
