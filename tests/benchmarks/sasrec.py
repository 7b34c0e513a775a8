"""SASRec: a transformer that predicts the next item from the ordered history (Kang & McAuley, ICDM 2018).

The network is the paper's: learned positions, two blocks of causal self-attention with one head and a pointwise
feed-forward layer, and one embedding per item that serves as input and output. The loss is softmax cross-entropy with
sampled negatives instead of binary cross-entropy with one negative, because it ranks better (Klenitskiy & Vasilev,
"Turning Dross Into Gold Loss", RecSys 2023).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar, Final

import numpy as np
from numpy.typing import NDArray

from recsys_train.data.interactions import Int32s, Interactions
from recsys_train.model.quiet_tf import keras, tf
from tests.benchmarks.peers import Fit, Grid, Settings
from tests.benchmarks.protocol import Floats

DIM: Final = 64
"""Width of the embeddings. The paper uses 50 and finds no gain from 40 on."""
N_BLOCKS: Final = 2
MAX_LENGTH: Final = 50
"""Latest items of a history, as in the paper for sparse data sets."""
N_NEGATIVES: Final = 1024
"""Drawn uniformly, and shared by all positions of a batch."""
BATCH_USERS: Final = 128
LEARNING_RATE: Final = 0.001


class SasRec:
    """SASRec with sampled softmax. Its epochs and its dropout are selected on the validation part.

    The first item of the catalogue has the index 1 in the network; 0 is padding, on the left.
    """

    grid: ClassVar[Grid] = {"epochs": (5, 10, 20, 40, 60), "dropout": (0.2, 0.5)}
    is_random: ClassVar[bool] = True

    def __init__(self, train: Interactions) -> None:
        starts, items = train.items_by_user()
        self._n_items = train.n_items
        self._histories = np.zeros((train.n_users, MAX_LENGTH + 1), dtype=np.int32)
        for user, (begin, end) in enumerate(zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)):
            latest = items[max(begin, end - MAX_LENGTH - 1) : end]
            self._histories[user, MAX_LENGTH + 1 - len(latest) :] = latest + 1
        self._runs: dict[tuple[float, int], _Run] = {}

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Train from random weights. Epochs that are trained already, for other settings, are not repeated."""
        key = (settings["dropout"], seed)
        if key not in self._runs:
            self._runs = {key: _Run(self._n_items, settings["dropout"], seed)}
        weights = self._runs[key].weights_after(settings["epochs"], self._histories)
        network = _network(self._n_items, 0.0)
        network.set_weights(weights)
        table = weights[0][1:]

        def scores(users: NDArray[np.int64]) -> Floats:
            return np.asarray(network(self._histories[users, 1:])[:, -1] @ table.T, dtype=np.float32)

        return Fit(scores)


class _Run:
    """A training run, and its weights after each number of epochs that was requested or trained."""

    def __init__(self, n_items: int, dropout: float, seed: int) -> None:
        keras.utils.set_random_seed(seed)
        self._n_items = n_items
        self._network = _network(n_items, dropout)
        self._optimizer = keras.optimizers.Adam(LEARNING_RATE, beta_2=0.98)
        self._optimizer.build(self._network.trainable_variables)
        self._generator = np.random.default_rng(seed)
        self._weights = [self._network.get_weights()]
        signature = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None,), tf.int32))
        self._train = tf.function(self._step, input_signature=signature)

    def weights_after(self, n_epochs: int, histories: Int32s) -> list[Floats]:
        """Return the weights after a number of epochs; continue to train if they are not trained yet."""
        while len(self._weights) <= n_epochs:
            for batch in self._batches(histories):
                self._train(batch, self._generator.integers(1, self._n_items + 1, N_NEGATIVES, dtype=np.int32))
            self._weights.append(self._network.get_weights())
        return self._weights[n_epochs]

    def _batches(self, histories: Int32s) -> Iterator[Int32s]:
        """Yield the histories with at least one item to predict, in random order, without common padding.

        Users of one batch have histories of similar length.
        """
        users = self._generator.permutation(np.flatnonzero(histories[:, -2]))
        lengths = np.count_nonzero(histories[users], axis=1)
        order = np.argsort(lengths, kind="stable")
        for begin in self._generator.permutation(np.arange(0, len(users), BATCH_USERS)).tolist():
            batch = order[begin : begin + BATCH_USERS]
            yield histories[users[batch], -lengths[batch].max() :]

    def _step(self, histories: Any, negatives: Any) -> None:
        inputs, targets = histories[:, :-1], histories[:, 1:]
        is_positive = inputs > 0
        with tf.GradientTape() as tape:
            states = tf.boolean_mask(self._network(inputs, training=True), is_positive)  # (p, DIM)
            positives = tf.boolean_mask(targets, is_positive)  # (p,)
            table = self._network.trainable_variables[0]
            positive = tf.reduce_sum(states * tf.gather(table, positives), axis=1, keepdims=True)
            negative = tf.matmul(states, tf.gather(table, negatives), transpose_b=True)  # (p, N_NEGATIVES)
            negative -= 1e9 * tf.cast(positives[:, None] == negatives[None, :], tf.float32)
            loss = tf.reduce_mean(tf.reduce_logsumexp(tf.concat([positive, negative], axis=1), axis=1) - positive[:, 0])
        gradients = tape.gradient(loss, self._network.trainable_variables)
        self._optimizer.apply_gradients(zip(gradients, self._network.trainable_variables, strict=True))


def _network(n_items: int, dropout: float) -> Any:
    """Return the network from item numbers (n, length) to states (n, length, DIM). Its first weights are the
    item embeddings (n_items + 1, DIM)."""
    items = keras.Input((None,), dtype="int32")
    embeddings = keras.layers.Embedding(
        n_items + 1, DIM, embeddings_initializer=keras.initializers.RandomNormal(stddev=0.02)
    )
    states = keras.layers.Rescaling(DIM**0.5)(embeddings(items))
    states = keras.layers.Dropout(dropout)(_Positions()(states))
    mask = _Mask()(items)
    for _ in range(N_BLOCKS):
        query = keras.layers.LayerNormalization(epsilon=1e-8)(states)
        attention = keras.layers.MultiHeadAttention(num_heads=1, key_dim=DIM, dropout=dropout)
        states = query + attention(query, states, attention_mask=mask)
        states = keras.layers.LayerNormalization(epsilon=1e-8)(states)
        hidden = keras.layers.Dropout(dropout)(keras.layers.Dense(DIM, activation="relu")(states))
        states = states + keras.layers.Dropout(dropout)(keras.layers.Dense(DIM)(hidden))
    return keras.Model(items, keras.layers.LayerNormalization(epsilon=1e-8)(states))


class _Positions(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Adds a learned embedding per position; the last position is the most recent item."""

    def build(self, shape: Any) -> None:
        self.positions = self.add_weight(
            shape=(MAX_LENGTH, DIM), initializer=keras.initializers.RandomNormal(stddev=0.02)
        )

    def call(self, states: Any) -> Any:
        return states + self.positions[-tf.shape(states)[1] :]


class _Mask(keras.layers.Layer):  # type: ignore[misc]  # Keras ships no types
    """Lets each position attend to itself and to earlier items, but not to padding."""

    def call(self, items: Any) -> Any:
        length = tf.shape(items)[1]
        earlier = tf.linalg.band_part(tf.ones((length, length), dtype=tf.bool), -1, 0)
        return earlier[None] & (items > 0)[:, None, :]
