"""NeuMF as textbooks train it: Keras layers, `model.fit`, and new negatives in every epoch.

He et al., WWW 2017: 4 negatives per positive, binary cross-entropy, Adam at 0.001, batches of 256, no pre-training.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from recsys_train.data.interactions import Interactions
from recsys_train.model.quiet_tf import keras
from tests.benchmarks.peers import Fit, Grid, Settings
from tests.benchmarks.protocol import Floats

EPOCHS = 20
NEGATIVES = 4
LEARNING_RATE = 0.001
BATCH = 256
PAIRS_PER_BATCH = 1 << 17
NARROW = (8, 32, (32, 16, 8))
"""Widths of GMF, MLP and hidden layers in the code of the paper, with 8 predictive factors."""
WIDE = (64, 64, (64, 32))


class Textbook:
    """NeuMF with user embeddings as parameters, the model that ours is derived from."""

    grid: ClassVar[Grid] = {"widths": (NARROW, WIDE), "epochs": (EPOCHS // 4, EPOCHS)}
    is_random: ClassVar[bool] = True

    def __init__(self, train: Interactions) -> None:
        self._train = train
        self._pairs = np.sort(train.users.astype(np.int64) * train.n_items + train.items)

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Train all epochs from random weights."""
        keras.utils.set_random_seed(seed)
        gmf_dim, mlp_dim, hidden_dims = settings["widths"]
        model = _model(self._train.n_users, self._train.n_items, gmf_dim, mlp_dim, tuple(hidden_dims))
        model.compile(keras.optimizers.Adam(LEARNING_RATE), "binary_crossentropy")
        generator = np.random.default_rng(seed)
        n_pairs = 0
        for _ in range(settings["epochs"]):
            users, items, labels = self._epoch(generator)
            model.fit([users, items], labels, batch_size=BATCH, epochs=1, verbose=0)
            n_pairs += len(labels)
        return Fit(lambda users: _scores(model, users, self._train.n_items), n_pairs)

    def _epoch(self, generator: np.random.Generator) -> tuple[NDArray[np.int32], NDArray[np.int32], Floats]:
        """Return users, items and labels of one epoch; `model.fit` shuffles them."""
        users = np.repeat(self._train.users, NEGATIVES)
        negatives = generator.integers(0, self._train.n_items, len(users), dtype=np.int32)
        while (rows := np.flatnonzero(self._are_positive(users, negatives))).size:
            negatives[rows] = generator.integers(0, self._train.n_items, len(rows), dtype=np.int32)
        labels = np.repeat(np.array([1, 0], dtype=np.float32), [len(self._train), len(users)])
        return np.concatenate([self._train.users, users]), np.concatenate([self._train.items, negatives]), labels

    def _are_positive(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.bool_]:
        codes = users.astype(np.int64) * self._train.n_items + items
        positions = np.minimum(np.searchsorted(self._pairs, codes), len(self._pairs) - 1)
        found: NDArray[np.bool_] = self._pairs[positions] == codes
        return found


def _model(n_users: int, n_items: int, gmf_dim: int, mlp_dim: int, hidden_dims: tuple[int, ...]) -> Any:
    user, item = keras.Input((), dtype="int32"), keras.Input((), dtype="int32")

    def embedding(rows: int, dim: int, index: Any) -> Any:
        return keras.layers.Embedding(rows, dim, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.01))(
            index
        )

    gmf = keras.layers.Multiply()([embedding(n_users, gmf_dim, user), embedding(n_items, gmf_dim, item)])
    hidden = keras.layers.Concatenate()([embedding(n_users, mlp_dim, user), embedding(n_items, mlp_dim, item)])
    for width in hidden_dims:
        hidden = keras.layers.Dense(width, activation="relu")(hidden)
    score = keras.layers.Dense(1, activation="sigmoid")(keras.layers.Concatenate()([gmf, hidden]))
    return keras.Model([user, item], score)


def _scores(model: Any, users: NDArray[np.int64], n_items: int) -> Floats:
    pairs = [np.repeat(users, n_items).astype(np.int32), np.tile(np.arange(n_items, dtype=np.int32), len(users))]
    values: Floats = model.predict(pairs, batch_size=PAIRS_PER_BATCH, verbose=0)
    return values.reshape(len(users), n_items)
