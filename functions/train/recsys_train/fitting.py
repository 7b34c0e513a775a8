"""From interactions to a trained network: hold out, fit with early stopping, evaluate, fit again on everything."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Final

import numpy as np

from recsys.neumf import Dims, Floats, Network
from recsys.registry.records import Progress
from recsys_train.evaluation import Quality, evaluate
from recsys_train.interactions import Interactions
from recsys_train.network import NeuMF, Objective, initial_weights
from recsys_train.tensorflow import tf

OnProgress = Callable[[Progress], None]
"""Told how far a training is; what it raises ends the training."""

VALIDATION_PAIRS: Final = 8_000_000
"""About how many user-item pairs one validation scores; it bounds the number of users asked."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the defaults suit a shop of any size up to millions of interactions."""

    gmf_dim: int = 64
    mlp_dim: int = 32
    hidden_dims: tuple[int, ...] = (32, 16)
    block: int = 512
    """Positives per step."""
    negatives: int = 64
    """Negatives a block shares."""
    objective: Objective = field(default_factory=lambda: Objective(learning_rate=0.003, negative_weight=8.0, l2=0.0))
    max_epochs: int = 20
    patience: int = 2
    """Epochs without a better validation NDCG before training stops."""

    def to_json(self) -> dict[str, Any]:
        """The recipe as it stands in `metrics.json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Fitted:
    """A network trained on all interactions, and how the same recipe did with each user's last one held out."""

    dims: Dims
    weights: dict[str, Floats]
    quality: Quality
    popularity: Quality
    evaluated_users: int
    epochs: int
    fit_s: float


def fit(interactions: Interactions, recipe: Recipe, *, seed: int, budget_s: float, on_progress: OnProgress) -> Fitted:
    """Train on `interactions`.

    Parameters
    ----------
    budget_s
        The search for the number of epochs ends after half of it, with the best so far; the rest is for the second fit.
    """
    started = time.monotonic()
    train, held_out = interactions.split_last()
    dims = Dims(interactions.n_users, interactions.n_items, recipe.gmf_dim, recipe.mlp_dim, recipe.hidden_dims)
    max_users = max(50, VALIDATION_PAIRS // interactions.n_items)

    def validation_ndcg(weights: dict[str, Floats]) -> float:
        network = Network.from_weights(dims, weights)
        return evaluate(network.logits, train, held_out, seed=seed, max_users=max_users).ndcg_at_20

    best = _Best()
    deadline = started + budget_s / 2
    for epoch, loss, model in _epochs(train, dims, recipe, seed):
        weights = model.weights()
        ndcg = validation_ndcg(weights)
        best.offer(epoch, ndcg, weights)
        on_progress(Progress("fitting", epoch, recipe.max_epochs, loss, ndcg))
        if epoch >= best.epoch + recipe.patience or epoch == recipe.max_epochs or time.monotonic() > deadline:
            break

    on_progress(Progress("evaluating"))
    network = Network.from_weights(dims, best.weights)
    share = train.users_per_item().astype(np.float32)
    quality = evaluate(network.logits, train, held_out, seed=seed)
    popularity = evaluate(lambda _user: share, train, held_out, seed=seed)

    weights = best.weights
    for epoch, loss, model in _epochs(interactions, dims, recipe, seed):
        on_progress(Progress("refitting", epoch, best.epoch, loss))
        if epoch == best.epoch:
            weights = model.weights()
            break
    return Fitted(dims, weights, quality, popularity, len(held_out), best.epoch, round(time.monotonic() - started, 3))


@dataclass(slots=True)
class _Best:
    epoch: int = 0
    ndcg: float = -1.0
    weights: dict[str, Floats] = field(default_factory=dict)

    def offer(self, epoch: int, ndcg: float, weights: dict[str, Floats]) -> None:
        if ndcg > self.ndcg:
            self.epoch, self.ndcg, self.weights = epoch, ndcg, weights


def _epochs(train: Interactions, dims: Dims, recipe: Recipe, seed: int) -> Any:
    """Train without end, yielding `(epoch, mean loss, model)` after each pass over the positives."""
    generator = np.random.default_rng(seed)
    model = NeuMF(dims, initial_weights(dims, generator))
    train_blocks = tf.function(model.train_blocks, reduce_retracing=True)
    block = min(recipe.block, len(train))
    n_blocks = len(train) // block
    epoch = 0
    while True:
        epoch += 1
        order = generator.permutation(len(train))[: n_blocks * block].reshape(n_blocks, block)
        negatives = generator.integers(0, dims.n_items, (n_blocks, recipe.negatives), dtype=np.int32)
        loss = train_blocks(train.users[order], train.items[order], negatives, recipe.objective)
        yield epoch, float(loss), model
