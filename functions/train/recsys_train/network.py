"""NeuMF in TensorFlow: the weights, the loss of one block, one step of Adam; and the same weights as a Keras model.

The arithmetic is `recsys.neumf`'s. What is here is how to train it fast:

- A block of positives shares its negatives, so the GMF half of all negative logits is one matrix product.
- The first MLP layer is a user half plus an item half: per block it costs rows, not pairs.
- Embedding rows are gathered once per block, and Adam updates just those rows ("lazy" Adam: the moments of other rows
  rest), so a step costs what the block touches, not what the tables hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.neumf import Dims, Floats
from recsys_train.tensorflow import keras, tf

TABLES: Final = ("gmf_user", "gmf_item", "mlp_user", "mlp_item")
ADAM_BETA_1: Final = 0.9
ADAM_BETA_2: Final = 0.999
ADAM_EPSILON: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Objective:
    """Weighted binary cross-entropy over a block, see `NeuMF.loss`.

    `negative_weight` is how much the mean over negatives counts against the mean over positives: it stands for that
    many sampled negatives per positive. `l2` weighs the squared norm of the embedding rows a pair uses.
    """

    learning_rate: float
    negative_weight: float
    l2: float


class NeuMF:
    """Trainable weights with their Adam moments.

    Parameters
    ----------
    weights
        Initial values, named and shaped as `dims.weight_shapes()` says, float32.
    """

    def __init__(self, dims: Dims, weights: dict[str, Floats]) -> None:
        self.dims = dims
        self._weights = {name: tf.Variable(weights[name], name=name) for name in dims.weight_shapes()}
        self._means = {name: tf.Variable(tf.zeros_like(value)) for name, value in self._weights.items()}
        self._squares = {name: tf.Variable(tf.zeros_like(value)) for name, value in self._weights.items()}
        self._step = tf.Variable(0.0)

    def weights(self) -> dict[str, Floats]:
        """The present values, copied."""
        return {name: value.numpy() for name, value in self._weights.items()}

    def train_blocks(self, users: Any, items: Any, negatives: Any, objective: Objective) -> Any:
        """Take one Adam step per block; the mean loss, a scalar tensor.

        `users` and `items` (n_blocks, block) int32 are positives, `negatives` (n_blocks, n_negatives) int32 items.
        Call it through `tf.function`: the loop then runs inside one graph.
        """
        total = tf.constant(0.0)
        for block in tf.range(tf.shape(users)[0]):
            total += self._train_block(users[block], items[block], negatives[block], objective)
        return total / tf.cast(tf.shape(users)[0], tf.float32)

    def _train_block(self, users: Any, items: Any, negatives: Any, objective: Objective) -> Any:
        user_rows, user_places = tf.unique(users)
        item_rows, item_places = tf.unique(tf.concat([items, negatives], axis=0))
        rows = {name: user_rows if name.endswith("_user") else item_rows for name in TABLES}
        values = {
            name: tf.gather(weight, rows[name]) if name in rows else weight.read_value()
            for name, weight in self._weights.items()
        }
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(values.values()))
            loss = self._loss(
                values, user_places, item_places[: tf.size(items)], item_places[tf.size(items) :], objective
            )
        slices = tape.gradient(loss, list(values.values()))
        gradients = {name: tf.convert_to_tensor(slice_) for name, slice_ in zip(values, slices, strict=True)}
        self._adam_step(values, gradients, rows, objective.learning_rate)
        return loss

    def _loss(self, values: dict[str, Any], users: Any, items: Any, negatives: Any, objective: Objective) -> Any:
        """`mean(softplus(-positive)) + negative_weight * mean(softplus(negative)) + l2 * norms`.

        That is binary cross-entropy on logits: softplus(-x) = -log sigmoid(x), softplus(x) = -log(1 - sigmoid(x)).
        `users`, `items` (block,) and `negatives` (n_negatives,) are places in the gathered rows.
        """
        split = self.dims.mlp_dim
        output_gmf, output_mlp = (
            values["output_kernel"][: self.dims.gmf_dim, 0],
            values["output_kernel"][self.dims.gmf_dim :, 0],
        )
        user_half = values["mlp_user"] @ values["mlp_kernel_1"][:split] + values["mlp_bias_1"]
        item_half = values["mlp_item"] @ values["mlp_kernel_1"][split:]
        gmf_user, gmf_item = tf.gather(values["gmf_user"], users), tf.gather(values["gmf_item"], items)
        gmf_negative = tf.gather(values["gmf_item"], negatives)
        mlp_user = tf.gather(user_half, users)

        positive = tf.linalg.matvec(gmf_user * gmf_item, output_gmf)
        positive += self._mlp(values, mlp_user + tf.gather(item_half, items), output_mlp)
        negative = tf.matmul(gmf_user * output_gmf, gmf_negative, transpose_b=True)
        pairs = mlp_user[:, None, :] + tf.gather(item_half, negatives)[None, :, :]
        negative += tf.reshape(
            self._mlp(values, tf.reshape(pairs, [-1, self.dims.hidden_dims[0]]), output_mlp), tf.shape(negative)
        )
        bias = values["output_bias"]
        norms = _mean_square_norm(gmf_user) + _mean_square_norm(gmf_item) + _mean_square_norm(gmf_negative)
        return (
            tf.reduce_mean(tf.nn.softplus(-(positive + bias)))
            + objective.negative_weight * tf.reduce_mean(tf.nn.softplus(negative + bias))
            + objective.l2 * norms
        )

    def _mlp(self, values: dict[str, Any], hidden: Any, output_mlp: Any) -> Any:
        hidden = tf.nn.relu(hidden)
        for layer in range(2, len(self.dims.hidden_dims) + 1):
            hidden = tf.nn.relu(hidden @ values[f"mlp_kernel_{layer}"] + values[f"mlp_bias_{layer}"])
        return tf.linalg.matvec(hidden, output_mlp)

    def _adam_step(
        self, values: dict[str, Any], gradients: dict[str, Any], rows: dict[str, Any], learning_rate: float
    ) -> None:
        """Kingma & Ba 2015, algorithm 1, on the rows that were gathered."""
        self._step.assign_add(1.0)
        rate = learning_rate * tf.sqrt(1 - ADAM_BETA_2**self._step) / (1 - ADAM_BETA_1**self._step)
        for name, gradient in gradients.items():
            mean, square = self._means[name], self._squares[name]
            old_mean = tf.gather(mean, rows[name]) if name in rows else mean
            old_square = tf.gather(square, rows[name]) if name in rows else square
            new_mean = ADAM_BETA_1 * old_mean + (1 - ADAM_BETA_1) * gradient
            new_square = ADAM_BETA_2 * old_square + (1 - ADAM_BETA_2) * tf.square(gradient)
            new_value = values[name] - rate * new_mean / (tf.sqrt(new_square) + ADAM_EPSILON)
            for variable, new in ((mean, new_mean), (square, new_square), (self._weights[name], new_value)):
                if name in rows:
                    variable.scatter_update(tf.IndexedSlices(new, rows[name]))
                else:
                    variable.assign(new)


def initial_weights(dims: Dims, generator: np.random.Generator) -> dict[str, Floats]:
    """Small random embeddings, He-scaled ReLU layers, an output unit that starts as a plain dot product.

    The bias starts at -2: most pairs are no interaction, and starting there saves the first steps learning it.
    """
    weights = {}
    for name, shape in dims.weight_shapes().items():
        if name in TABLES:
            values = generator.normal(0.0, 0.05, shape)
        elif name.startswith("mlp_kernel"):
            values = generator.normal(0.0, np.sqrt(2 / shape[0]), shape)
        elif name == "output_kernel":
            values = np.concatenate(
                [np.ones((dims.gmf_dim, 1)), generator.normal(0.0, 0.1, (shape[0] - dims.gmf_dim, 1))]
            )
        else:
            values = np.full(shape, -2.0 if name == "output_bias" else 0.0)
        weights[name] = values.astype(np.float32)
    return weights


def save_keras(dims: Dims, weights: dict[str, Floats], path: Path) -> None:
    """Write `model.h5`: inputs `user_index` and `item_index` (batch,) int32, output the score (batch, 1).

    Only Keras's own layers, so `keras.models.load_model` needs no custom objects.
    """
    user = keras.Input((), dtype="int32", name="user_index")
    item = keras.Input((), dtype="int32", name="item_index")
    embedded = {
        name: keras.layers.Embedding(*dims.weight_shapes()[name], name=name)(user if name.endswith("_user") else item)
        for name in TABLES
    }
    gmf = keras.layers.Multiply(name="gmf")([embedded["gmf_user"], embedded["gmf_item"]])
    hidden = keras.layers.Concatenate(name="mlp")([embedded["mlp_user"], embedded["mlp_item"]])
    for layer, width in enumerate(dims.hidden_dims, start=1):
        hidden = keras.layers.Dense(width, activation="relu", name=f"mlp_{layer}")(hidden)
    both = keras.layers.Concatenate(name="neumf")([gmf, hidden])
    score = keras.layers.Dense(1, activation="sigmoid", name="output")(both)
    model = keras.Model([user, item], score, name="neumf")
    for name in TABLES:
        model.get_layer(name).set_weights([weights[name]])
    for layer in range(1, len(dims.hidden_dims) + 1):
        model.get_layer(f"mlp_{layer}").set_weights([weights[f"mlp_kernel_{layer}"], weights[f"mlp_bias_{layer}"]])
    model.get_layer("output").set_weights([weights["output_kernel"], weights["output_bias"]])
    model.save(path)


def _mean_square_norm(rows: Any) -> Any:
    return tf.reduce_mean(tf.reduce_sum(tf.square(rows), axis=1))
