"""`model.h5`, opened by Keras alone, and the NumPy network that serves compute the same scores."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.model import artifact
from recsys.model.neumf import Dims, Floats, Network, sigmoid
from recsys.model.recommender import ServingModel, recommend
from recsys_train.build import describe_metrics, write_version
from recsys_train.data.interactions import Interactions
from recsys_train.data.report import DataReport
from recsys_train.fitting.fit import fit
from recsys_train.fitting.recipe import BatchSizes, Recipe
from recsys_train.model.keras_export import save_keras, user_tables
from tests.made_models import random_weights, serving_model, write_model
from tests.markers import TENSORFLOW

pytestmark = list(TENSORFLOW)

N_PAIRS = 1000
TOLERANCE = 1e-5
DIMS = Dims(n_users=300, n_items=200, gmf_dim=16, mlp_dim=8, hidden_dims=(16, 8))


@dataclass(frozen=True)
class Version:
    """A version as Keras reads it and as a server reads it."""

    scores: Callable[[Any, Any], Floats]
    logits: Callable[[Any, Any], Floats]
    serving: ServingModel

    @property
    def n_users(self) -> int:
        return len(self.serving.users)

    @property
    def n_items(self) -> int:
        return len(self.serving.items)

    def served_logits(self, user_index: int) -> Floats:
        """Return the server's logits of all items for a user's history."""
        network = self.serving.network
        return network.logits(network.user(self.serving.seen(user_index)))


def open_with_keras(path: Path) -> tuple[Callable[[Any, Any], Floats], Callable[[Any, Any], Floats]]:
    """Return functions for the model's scores and for its logits, before the sigmoid; both give (n_pairs,)."""

    def predicting(model: Any) -> Callable[[Any, Any], Floats]:
        return lambda users, items: np.asarray(model([users, items]))[:, 0]

    scoring = keras.models.load_model(path)
    without_sigmoid = keras.models.load_model(path, compile=False)
    without_sigmoid.get_layer("output").activation = keras.activations.linear
    return predicting(scoring), predicting(without_sigmoid)


def random_version(folder: Path) -> Version:
    """Write a version with random weights, so that every path, layer and bias contributes."""
    generator, decay = np.random.default_rng(1), 0.5
    seen = [generator.choice(DIMS.n_items, int(generator.integers(0, 60)), replace=False) for _ in range(DIMS.n_users)]
    histories = np.zeros((DIMS.n_users, DIMS.n_items))
    for user, items in enumerate(seen):
        recency = np.arange(len(items), 0, -1) ** -decay
        histories[user, items] = recency / np.sqrt(recency.sum()) if len(items) else 0
    weights = random_weights(DIMS)
    weights |= user_tables(weights, histories)
    network = Network.from_weights(DIMS, weights, decay=decay)
    write_model(folder, serving_model(network, seen=[items.tolist() for items in seen]))
    save_keras(DIMS, weights, folder / artifact.MODEL)
    artifact.write_manifest(folder, "job.1")
    return Version(*open_with_keras(folder / artifact.MODEL), artifact.read_folder(folder))


def trained_version(folder: Path) -> Version:
    """Write the version of a real training."""
    generator = np.random.default_rng(2)
    seen = [set(generator.choice(np.arange(user % 2, 40, 2), 8, replace=False).tolist()) for user in range(120)]
    pairs = [(user, item) for user, items in enumerate(seen) for item in sorted(items)]
    users, items = np.array(pairs, dtype=np.int32)[generator.permutation(len(pairs))].T
    interactions = Interactions(
        [f"u{user}" for user in range(120)],
        [f"i{item}" for item in range(40)],
        users,
        items,
    )
    # Small batches, so that many steps change the initial weights.
    recipe = Recipe(ordered=BatchSizes(64, 64), learning_rate=0.001, max_epochs=6, patience=6)
    fitted = fit(interactions, recipe, seed=0, budget_s=600, on_progress=lambda _progress: None)
    metrics = describe_metrics(fitted, DataReport(), recipe=recipe, seed=0)
    write_version(folder, "job.1", interactions, fitted, metrics)
    return Version(*open_with_keras(folder / artifact.MODEL), artifact.read_folder(folder))


@pytest.fixture(scope="module", params=[random_version, trained_version], ids=["random", "trained"])
def version(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Version:
    version: Version = request.param(tmp_path_factory.mktemp("version"))
    return version


@pytest.fixture(scope="module")
def pairs(version: Version) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    generator = np.random.default_rng(3)
    users = generator.integers(0, version.n_users, N_PAIRS, dtype=np.int32)
    return users, generator.integers(0, version.n_items, N_PAIRS, dtype=np.int32)


def served_logits_of_pairs(version: Version, pairs: tuple[NDArray[np.int32], NDArray[np.int32]]) -> Floats:
    return np.array([version.served_logits(user)[item] for user, item in zip(*pairs, strict=True)])


def test_logits_agree_on_a_thousand_random_pairs(
    version: Version, pairs: tuple[NDArray[np.int32], NDArray[np.int32]]
) -> None:
    served, expected = served_logits_of_pairs(version, pairs), version.logits(*pairs)
    assert np.abs(expected).max() > 0.5  # not a constant
    assert expected.std() > 0.05
    assert np.abs(served - expected).max() < TOLERANCE


def test_logits_of_all_items_agree(version: Version) -> None:
    for user in (0, 7, version.n_users - 1):
        expected = version.logits(np.full(version.n_items, user), np.arange(version.n_items))
        assert np.abs(version.served_logits(user) - expected).max() < TOLERANCE


def test_scores_agree(version: Version, pairs: tuple[NDArray[np.int32], NDArray[np.int32]]) -> None:
    served = sigmoid(served_logits_of_pairs(version, pairs))
    assert np.abs(served - version.scores(*pairs)).max() < TOLERANCE


def test_recommendations_equal_a_brute_force_ranking_of_keras_scores(version: Version) -> None:
    generator = np.random.default_rng(4)
    n_items = version.n_items
    for user in generator.choice(version.n_users, 50, replace=False).tolist():
        excluded = set(generator.choice(n_items, 5, replace=False).tolist())
        logits = version.logits(np.full(n_items, user), np.arange(n_items)).astype(np.float64)
        ineligible = excluded | set(version.serving.seen(user).tolist())
        eligible = [item for item in range(n_items) if item not in ineligible]
        expected = sorted(eligible, key=lambda item: (-logits[item], item))[:10]

        result = recommend(version.serving, f"u{user}", n=10, exclude_items=[f"i{item}" for item in excluded])

        items = [int(item.item_id[1:]) for item in result.items]
        assert len(items) == len(expected)
        for item, expected_item in zip(items, expected, strict=True):
            # Only items whose logits are within the tolerance of each other may be in another order.
            assert item == expected_item or abs(logits[item] - logits[expected_item]) < 2 * TOLERANCE
        assert not set(items) & ineligible
        scores = version.scores(np.full(len(items), user), np.array(items))
        assert [item.score for item in result.items] == pytest.approx(scores.tolist(), abs=TOLERANCE)


def test_model_h5_contains_only_layers_of_keras(tmp_path: Path) -> None:
    save_keras(DIMS, random_weights(DIMS), tmp_path / "model.h5")
    model = keras.models.load_model(tmp_path / "model.h5", safe_mode=True)
    assert [each.name for each in model.inputs] == ["user_index", "item_index"]
    assert model.output_shape == (None, 1)
    assert {type(layer).__module__.split(".")[0] for layer in model.layers} == {"keras"}
