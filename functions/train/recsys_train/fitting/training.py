"""Train a NeuMF from its warm start, epoch by epoch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from recsys.model.neumf import Dims
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.closed_form import closed_form, log_popularity, popularity_unit, sample_histories
from recsys_train.fitting.recipe import BatchSizes, Hyperparameters, Recipe
from recsys_train.fitting.selection import gmf_dim
from recsys_train.model.batches import Histories, final_histories
from recsys_train.model.calibration import calibrate
from recsys_train.model.network import NeuMF, Objective, WeightedLogits, initial_weights
from recsys_train.model.warm_start import LinearModel, balance, reduce_rank, row_importance

CALIBRATION_BATCHES: Final = 16
"""Number of batches whose logits calibrate the warm start; enough to fit two parameters."""


@dataclass(slots=True)
class TrainingRun:
    """The state of a training run, which determines the next epoch.

    `n_epochs` counts the epochs so far. The last epoch may have ended early at its deadline.
    """

    network: NeuMF
    histories: Histories
    batch_sizes: BatchSizes
    objective: Objective
    generator: np.random.Generator
    n_epochs: int = 0

    @classmethod
    def start(
        cls,
        train: Interactions,
        recipe: Recipe,
        hyperparameters: Hyperparameters,
        *,
        seed: int,
    ) -> Self:
        """Create a training run that starts from the closed-form model and popularity.

        The scores of the closed-form model and the weighted popularity are added and calibrated, so that the sums are
        logits.
        """
        generator = np.random.default_rng(seed)
        network = _initial_network(train, recipe, hyperparameters, generator)
        histories = Histories.of(train, ordered=hyperparameters.decay > 0)
        batch_sizes = recipe.ordered if histories.ordered else recipe.unordered
        rate = recipe.learning_rate if hyperparameters.linear is None else recipe.fine_tuning_rate
        objective = Objective(rate, recipe.negative_weight)
        training = cls(network, histories, batch_sizes, objective, generator)
        training._calibrate()
        return training

    def run_epoch(self, *, deadline: float) -> float | None:
        """Train once on every history with at least two items.

        Parameters
        ----------
        deadline
            Value of `time.monotonic` after which the epoch ends early.

        Returns
        -------
        float or None
            Mean loss of the batches; None if there was no batch.
        """
        losses = []
        for batch in self.histories.batches(self.batch_sizes.interactions, self.generator):
            losses.append(self.network.train_batch(batch, self._sample_negatives(), self.objective))
            if time.monotonic() > deadline:
                break
        self.n_epochs += 1
        return float(np.mean(losses)) if losses else None

    def _calibrate(self) -> None:
        """Scale the logits of the network and set its output bias so that the loss of the first batches is smallest."""
        batches = itertools.islice(
            self.histories.batches(self.batch_sizes.interactions, self.generator), CALIBRATION_BATCHES
        )
        logits = [self.network.logits(batch, self._sample_negatives()) for batch in batches]
        if logits:
            positives, negatives = (_concatenated(side) for side in zip(*logits, strict=True))
            self.network.calibrate(*calibrate(positives, negatives, self.objective.negative_weight))

    def _sample_negatives(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Draw negatives uniformly from the whole catalogue. The negatives can include positives of a user."""
        return self.generator.integers(0, self.network.dims.n_items, self.batch_sizes.negatives, dtype=np.int32)


def _initial_network(
    train: Interactions, recipe: Recipe, hyperparameters: Hyperparameters, generator: np.random.Generator
) -> NeuMF:
    """Return a network that ranks items like the closed-form model plus the weighted logarithm of popularity."""
    histories = final_histories(train, hyperparameters.decay)
    start = _factors(train, histories, recipe, hyperparameters, generator)
    dims = Dims(train.n_users, train.n_items, start.item_map.shape[1], recipe.mlp_dim, recipe.hidden_dims)
    item_bias = np.zeros(train.n_items, dtype=np.float32)
    if hyperparameters.popularity > 0:
        popularity = log_popularity(train)
        unit = popularity_unit(start.scores(sample_histories(histories, generator)), popularity)
        item_bias = np.float32(hyperparameters.popularity * unit) * popularity
    weights = initial_weights(dims, start.item_map, start.item_vectors, item_bias, generator)
    return NeuMF(dims, weights, decay=hyperparameters.decay)


def _factors(
    train: Interactions,
    histories: Any,
    recipe: Recipe,
    hyperparameters: Hyperparameters,
    generator: np.random.Generator,
) -> LinearModel:
    """Fit the closed-form model, reduce it to the width of the GMF path, and balance its factors."""
    dim = gmf_dim(hyperparameters.gmf_dim, recipe, train.n_users, train.n_items)
    model = closed_form(train, histories, hyperparameters, dim, generator)
    if not isinstance(model, LinearModel):
        model = reduce_rank(model, row_importance(histories), dim, generator)
    return balance(model, histories @ model.item_map)


def _concatenated(parts: Sequence[WeightedLogits]) -> WeightedLogits:
    """Concatenate the logits of all parts as one vector, and repeat the weights, one per logit."""
    logits = np.concatenate([part.logits.ravel() for part in parts])
    weights = [np.repeat(part.weights, part.logits.size // len(part.weights)) for part in parts]
    return WeightedLogits(logits, np.concatenate(weights))
