"""What `recsys train` does, and what is asked of it: how well, how fast, for whom."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from recsys.neumf import Network
from recsys.registry.records import Progress
from recsys.settings import Settings
from recsys_train.fitting import Choice, Fitted, Recipe, _epochs, fit
from recsys_train.histories import make_examples
from recsys_train.interactions import Int32s, Interactions
from tests.benchmarks.measured import seconds_by_phase
from tests.benchmarks.protocol import DataSet, Floats, Scores, measure

VARIANTS: dict[str, dict[str, Any]] = {
    "defaults": {},
    "warm start alone, no training": {"max_epochs": 0},
    "without recency": {"decays": (0.0,)},
    "negatives count no more than positives": {"objective": replace(Recipe().objective, negative_weight=1.0)},
}
"""What each part of a recipe contributes: the changes that switch it off."""
TIMED_PASSES = 2


@dataclass(frozen=True, slots=True)
class Trained:
    """A network, the seconds it took, and of these each phase's."""

    fitted: Fitted
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


def scorer(fitted: Fitted, interactions: Interactions) -> Scores:
    """Logits of all items, for users as their items in `interactions` make them."""
    network = Network.from_weights(fitted.dims, fitted.weights, decay=fitted.choice.decay)
    starts, items = interactions.items_by_user()
    return lambda users: score_histories(network, [items[starts[user] : starts[user + 1]] for user in users])


def score_histories(network: Network, histories: list[Int32s]) -> Floats:
    """(len(histories), n_items) logits; as `Network.logits`, the GMF half in one product."""
    users = [network.user(history) for history in histories]
    logits: Floats = np.stack([user.gmf for user in users]) @ network.gmf_item.T
    for row, user in enumerate(users):
        logits[row] += network.mlp_outputs(user.mlp + network.mlp_item) + network.output_bias
    return logits


def pairs_per_second(data: DataSet, recipe: Recipe, *, seed: int) -> float:
    """Pairs whose logit and gradient are computed in passes over all examples, after one that compiles."""
    choice = Choice(recipe.ridges[0], recipe.decays[-1] if data.has_times else 0.0)
    n_examples = len(make_examples(data.train, choice.decay, np.zeros((data.train.n_items, 1), np.float32)).targets)
    n_pairs = n_examples // recipe.block * recipe.block * (1 + recipe.negatives)
    passes = _epochs(data.train, recipe, choice, seed, deadline=float("inf"))
    next(passes), next(passes)
    started = time.perf_counter()
    for _ in range(TIMED_PASSES):
        next(passes)
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
