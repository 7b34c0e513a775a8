"""Training steps of the TensorFlow network, compared with the NumPy network that serves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.model.neumf import Dims, Network
from recsys_train.model.batches import UserBatch
from recsys_train.model.keras_export import user_tables
from recsys_train.model.network import NeuMF, Objective, initial_weights
from tests.made_models import random_weights
from tests.markers import TENSORFLOW

pytestmark = list(TENSORFLOW)

DIMS = Dims(n_users=3, n_items=9, gmf_dim=4, mlp_dim=3, hidden_dims=(6, 4))
HISTORIES = [[1, 6, 3], [6, 2], [0, 1, 2, 3]]
"""Histories of the users of the batch, oldest first."""
NEGATIVES = np.array([4, 4, 5, 0], dtype=np.int32)


def trainable_weights() -> dict[str, Any]:
    """Return random weights."""
    return {name: array for name, array in random_weights(DIMS).items() if name not in ("gmf_user", "mlp_user")}


def network_and_batch(decay: float) -> tuple[NeuMF, UserBatch]:
    """Return a network in training and the batch of `HISTORIES`."""
    rows = np.zeros((len(HISTORIES), 4), dtype=np.int32)
    for row, items in zip(rows, HISTORIES, strict=True):
        row[: len(items)] = items
    lengths = np.array([len(items) for items in HISTORIES], dtype=np.int32)
    return NeuMF(DIMS, trainable_weights(), decay=decay), UserBatch(rows, lengths)


def served_logits(weights: dict[str, Any], decay: float) -> tuple[list[Any], list[Any]]:
    """Return what a server computes for the batch: the logit of each positive, and those of `NEGATIVES` with it."""
    network = Network.from_weights(DIMS, weights, decay=decay)
    positives, negatives = [], []
    for items in HISTORIES:
        complete = network.logits(network.user(np.array(items)))
        for position, item in enumerate(items):
            seen = items[:position] if decay else items[:position] + items[position + 1 :]
            if seen:
                logits = network.logits(network.user(np.array(seen)))
                positives.append(logits[item])
                negatives.append((logits if decay else complete)[NEGATIVES])
    return positives, negatives


def take_steps(n_steps: int, *, learning_rate: float, negative_weight: float) -> tuple[list[float], dict[str, Any]]:
    """Return the loss before each step on the batch, and the weights after the last step."""
    model, batch = network_and_batch(decay=0.5)
    objective = Objective(learning_rate, negative_weight)
    return [model.train_batch(batch, NEGATIVES, objective) for _ in range(n_steps)], model.weights()


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_logits_equal_those_of_a_server_that_knows_the_items_a_positive_is_predicted_from(decay: float) -> None:
    model, batch = network_and_batch(decay)
    expected, expected_of_negatives = served_logits(trainable_weights(), decay)
    (positives, weights), (negatives, negative_weights) = model.logits(batch, NEGATIVES)
    assert positives == pytest.approx(np.array(expected), abs=1e-5)
    assert weights == pytest.approx(np.full(len(expected), 1 / len(expected)))
    assert negative_weights @ negatives == pytest.approx(np.mean(expected_of_negatives, axis=0), abs=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_loss_is_weighted_binary_cross_entropy(decay: float) -> None:
    model, batch = network_and_batch(decay)
    loss = model.train_batch(batch, NEGATIVES, Objective(0.1, 8.0))
    positives, negatives = served_logits(trainable_weights(), decay)
    up = np.logaddexp(0, -np.array(positives)).mean()
    down = np.logaddexp(0, np.array(negatives)).mean()
    assert loss == pytest.approx(up + 8 * down, rel=1e-5)


def test_steps_lower_the_loss_and_widen_the_gap_between_positives_and_negatives() -> None:
    losses, weights = take_steps(5, learning_rate=0.01, negative_weight=1)
    assert losses == sorted(losses, reverse=True)

    def gap(weights: dict[str, Any]) -> float:
        positives, negatives = served_logits(weights, 0.5)
        return float(np.mean(positives) - np.mean(negatives))

    assert gap(weights) > gap(trainable_weights())


def test_rows_of_items_outside_the_batch_do_not_change() -> None:
    _losses, after = take_steps(1, learning_rate=0.01, negative_weight=1)
    initial = trainable_weights()
    for table in ("gmf_item", "mlp_item"):  # the first item of a history is not a positive
        assert np.flatnonzero((after[table] != initial[table]).any(axis=1)).tolist() == [0, 1, 2, 3, 4, 5, 6]
    for table in ("gmf_map", "mlp_map"):
        assert np.flatnonzero((after[table] != initial[table]).any(axis=1)).tolist() == [0, 1, 2, 6]


def test_a_row_has_one_second_moment() -> None:
    # With a second moment per number, the first step of Adam would change all numbers by the same amount.
    _, after = take_steps(1, learning_rate=0.01, negative_weight=4.0)
    moved = after["gmf_item"] - trainable_weights()["gmf_item"]
    touched = np.abs(moved).max(axis=1) > 0
    assert touched.any()
    assert (np.abs(moved[touched]).std(axis=1) > 0.1 * np.abs(moved[touched]).mean(axis=1)).all()


def test_the_first_step_of_adam_moves_each_weight_by_the_learning_rate() -> None:
    # Kingma & Ba 2015, §2.1: with both moments corrected for their bias the first step is rate * g / (|g| + epsilon').
    _losses, after = take_steps(1, learning_rate=0.01, negative_weight=1)
    moved = np.abs(after["output_bias"] - trainable_weights()["output_bias"])
    assert moved.tolist() == [pytest.approx(0.01, rel=1e-3)]


@pytest.mark.parametrize("item_bias", [np.zeros(9), np.arange(9) / 4], ids=["without-bias", "with-bias"])
def test_a_network_starts_with_the_scores_of_its_warm_start_and_the_item_bias(item_bias: Any) -> None:
    generator = np.random.default_rng(0)
    items, item_map = generator.normal(size=(2, 9, 4)).astype(np.float32)
    weights = initial_weights(DIMS, item_map, items, item_bias.astype(np.float32), generator)
    network = Network.from_weights(DIMS, weights, decay=0.0)
    for item in range(3):
        linear, logits = items @ item_map[item], network.logits(network.user(np.array([item])))
        # The rest of the MLP starts with output weights of 0: any noise would drown a spectral model's small scores.
        assert logits == pytest.approx(linear + item_bias, abs=1e-5)
    assert network.logits(network.user(np.array([], dtype=np.int64))) == pytest.approx(item_bias, abs=1e-5)


def test_user_tables_are_the_histories_times_the_maps() -> None:
    weights = trainable_weights()
    tables = user_tables(weights, np.eye(3, 9, dtype=np.float32))
    assert np.array_equal(tables["gmf_user"], weights["gmf_map"][:3])
    assert np.array_equal(tables["mlp_user"], weights["mlp_map"][:3])


def test_calibration_scales_both_paths() -> None:
    network, batch = network_and_batch(0.0)
    before = network.logits(batch, NEGATIVES)[1].logits - float(trainable_weights()["output_bias"][0])
    network.calibrate(0.5, 0.25)
    assert network.logits(batch, NEGATIVES)[1].logits == pytest.approx(0.5 * before + 0.25, rel=1e-4, abs=1e-5)
