"""Train a NeuMF from its warm start, epoch by epoch."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

import numpy as np

from recsys.model.neumf import Dims
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.recipe import BatchSizes, Hyperparameters, Recipe
from recsys_train.fitting.selection import closed_form, gmf_dim
from recsys_train.model.batches import Histories, final_histories
from recsys_train.model.network import NeuMF, Objective, WeightedLogits, initial_weights
from recsys_train.model.warm_start import ItemWeights, WarmStart, balance, calibrate, reduce_rank, to_matrix

CALIBRATION_BATCHES: Final = 16
"""Batches whose logits calibrate the warm start; enough for two parameters."""


@dataclass(slots=True)
class TrainingRun:
    """A network under training, and everything that its next epoch depends on.

    `n_epochs` is the number of epochs so far. The last one may have ended early at its deadline.
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
        warm_start: WarmStart | None = None,
    ) -> Self:
        """Create a training run that starts from the closed-form model.

        The model is calibrated, so that its scores are logits.

        Parameters
        ----------
        warm_start
            The closed-form model of `train` with these hyperparameters, if it has been fitted already.
        """
        generator = np.random.default_rng(seed)
        network = _initial_network(train, recipe, hyperparameters, warm_start, generator)
        histories = Histories.of(train, ordered=hyperparameters.decay > 0)
        batch_sizes = recipe.ordered if histories.ordered else recipe.unordered
        objective = Objective(recipe.learning_rate, recipe.negative_weight)
        training = cls(network, histories, batch_sizes, objective, generator)
        training._calibrate()
        return training

    def run_epoch(self, *, deadline: float) -> float | None:
        """Train on every history once.

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
        """Scale and shift the closed-form model's scores so that they minimise the loss of the first batches."""
        batches = itertools.islice(
            self.histories.batches(self.batch_sizes.interactions, self.generator), CALIBRATION_BATCHES
        )
        logits = [self.network.logits(batch, self._sample_negatives()) for batch in batches]
        if logits:
            positives, negatives = (_concatenated(side) for side in zip(*logits, strict=True))
            self.network.calibrate(*calibrate(positives, negatives, self.objective.negative_weight))

    def _sample_negatives(self) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        """Draw negatives uniformly from the whole catalogue. They can include a user's positives."""
        return self.generator.integers(0, self.network.dims.n_items, self.batch_sizes.negatives, dtype=np.int32)


def _initial_network(
    train: Interactions,
    recipe: Recipe,
    hyperparameters: Hyperparameters,
    warm_start: WarmStart | None,
    generator: np.random.Generator,
) -> NeuMF:
    """Return a network that ranks items like the closed-form model."""
    final = final_histories(train, hyperparameters.decay)
    start = warm_start or closed_form(to_matrix(train), hyperparameters.ridge, recipe, generator)
    if isinstance(start, ItemWeights):
        start = reduce_rank(start, final, gmf_dim(recipe, train.n_users, train.n_items), generator)
    start = balance(start, final @ start.item_map)
    dims = Dims(train.n_users, train.n_items, start.item_map.shape[1], recipe.mlp_dim, recipe.hidden_dims)
    weights = initial_weights(dims, start.item_map, start.item_vectors, generator)
    return NeuMF(dims, weights, decay=hyperparameters.decay)


def _concatenated(parts: Sequence[WeightedLogits]) -> WeightedLogits:
    """Concatenate the logits of all parts as one vector, and repeat the weights so that each logit has its own."""
    logits = np.concatenate([part.logits.ravel() for part in parts])
    weights = [np.repeat(part.weights, part.logits.size // len(part.weights)) for part in parts]
    return WeightedLogits(logits, np.concatenate(weights))
