"""Train our model as `recsys train` does, and measure its quality and speed."""

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
from recsys_train.fitting.recipe import Recipe, first_hyperparameters
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
    "negatives weighted like positives": {"negative_weight": 1.0},
    "without popularity": {"popularities": (0.0,)},
    "GMF of 512 dimensions": {"widenings": (1,)},
    "GMF of 1024 dimensions": {"widenings": (2,)},
}
"""Ablations: the changes of the recipe that disable one of its parts."""
TIMED_PASSES = 2


@dataclass(frozen=True, slots=True)
class TimedFit:
    """The result of a training run, its seconds, and the seconds of each phase."""

    result: FitResult
    seconds: float
    phases: dict[str, float]


def train(
    interactions: Interactions, recipe: Recipe, *, seed: int, has_times: bool, budget_s: float | None = None
) -> TimedFit:
    """Train as `recsys train` does; without `budget_s`, with its default budget."""
    started = time.perf_counter()
    marks: list[tuple[str, float]] = []

    def on_progress(progress: Progress) -> None:
        marks.append((progress.phase, time.perf_counter()))

    result = fit(
        interactions,
        recipe,
        seed=seed,
        budget_s=Settings().train_budget_s if budget_s is None else budget_s,
        on_progress=on_progress,
        has_times=has_times,
    )
    ended = time.perf_counter()
    return TimedFit(result, ended - started, seconds_by_phase([("starting", started), *marks], ended))


def scorer(result: FitResult, interactions: Interactions) -> Scores:
    """Return a function for the logits of all items, for users with their histories in `interactions`."""
    return network_scorer(
        Network.from_weights(result.dims, result.weights, decay=result.hyperparameters.decay), interactions
    )


def network_scorer(network: Network, interactions: Interactions) -> Scores:
    """Return the same function for a network."""
    starts, items = interactions.items_by_user()
    return lambda users: score_histories(network, [items[starts[user] : starts[user + 1]] for user in users])


def pairs_per_second(data: DataSet, recipe: Recipe, *, seed: int) -> float:
    """Return how many pairs per second get a logit and a gradient, measured after an epoch that compiles the graph."""
    decay = recipe.decays[-1] if data.has_times else 0.0
    histories = Histories.of(data.train, ordered=data.has_times)
    n_pairs = 0
    sizes = recipe.ordered if data.has_times else recipe.unordered
    for batch in histories.batches(sizes.interactions, np.random.default_rng(seed)):
        n_positives = int(
            (batch.lengths - data.has_times).sum()
        )  # the first item of an ordered history is not a positive
        n_pairs += n_positives + (n_positives if data.has_times else len(batch.lengths)) * sizes.negatives
    hyperparameters = first_hyperparameters(recipe, data.train.n_users, data.train.n_items, decay=decay)
    training = TrainingRun.start(data.train, recipe, hyperparameters, seed=seed)
    training.run_epoch(deadline=float("inf"))
    started = time.perf_counter()
    for _ in range(TIMED_PASSES):
        training.run_epoch(deadline=float("inf"))
    return TIMED_PASSES * n_pairs / (time.perf_counter() - started)


def seconds_to_reach(data: DataSet, ndcg_at_20: float, *, seed: int) -> tuple[float, float]:
    """Return seconds and NDCG@20 of the first training run that reaches `ndcg_at_20`, with at most 0, 1, 2, … epochs.

    Each is a complete training run, including selection and evaluation. Their times are not added, because a user would
    set the number of epochs once. If none reaches it, the last one counts.
    """
    attempts: list[tuple[float, float]] = []
    for max_epochs in range(Recipe().max_epochs + 1):
        timed = train(data.train, replace(Recipe(), max_epochs=max_epochs), seed=seed, has_times=data.has_times)
        attempts.append((timed.seconds, measure(scorer(timed.result, data.train), data).ndcg_at_20))
        if attempts[-1][1] >= ndcg_at_20:
            break
    return attempts[-1]
