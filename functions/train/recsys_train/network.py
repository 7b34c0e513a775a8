"""NeuMF in TensorFlow: the weights, the loss of one block, one step of Adam; and the same weights as a Keras model.

The arithmetic is `recsys.neumf`'s, with a user's embeddings computed from a history vector h: `gmf_user` is
`h @ gmf_encoder` and `mlp_user` is `h @ mlp_encoder`. What is here is how to train it fast:

- A block of positives shares its negatives, so the GMF half of all negative logits is one matrix product.
- The first MLP layer is a user half plus an item half: per block it costs rows, not pairs.
- Item rows are gathered once per block, and Adam updates just those ("lazy" Adam: the moments of other rows rest), so a
  step costs what the block touches, not what the tables hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.neumf import Dims, Floats
from recsys_train.tensorflow import keras, tf

ITEM_TABLES: Final = ("gmf_item", "mlp_item")
USER_TABLES: Final = ("gmf_user", "mlp_user")
ADAM_BETA_1: Final = 0.9
ADAM_BETA_2: Final = 0.999
ADAM_EPSILON: Final = 1e-8


@dataclass(frozen=True, slots=True)
class Objective:
    """Weighted binary cross-entropy over a block, see `NeuMF._loss`.

    `negative_weight` is how much the mean over negatives counts against the mean over positives: it stands for that
    many sampled negatives per positive.
    """

    learning_rate: float
    negative_weight: float


class NeuMF:
    """Trainable weights with their Adam moments.

    Parameters
    ----------
    weights
        Initial values, float32: the item tables, MLP and output unit as `dims.weight_shapes()` names and shapes them,
        and in place of the user tables `gmf_encoder` (dim, gmf_dim) and `mlp_encoder` (dim, mlp_dim).
    """

    def __init__(self, dims: Dims, weights: dict[str, Floats]) -> None:
        self.dims = dims
        self._weights = {name: tf.Variable(value, name=name) for name, value in weights.items()}
        self._means = {name: tf.Variable(tf.zeros_like(value)) for name, value in self._weights.items()}
        self._squares = {name: tf.Variable(tf.zeros_like(value)) for name, value in self._weights.items()}
        self._step = tf.Variable(0.0)

    def weights(self) -> dict[str, Floats]:
        """The present values, copied."""
        return {name: value.numpy() for name, value in self._weights.items()}

    def train_blocks(self, histories: Any, items: Any, negatives: Any, objective: Objective) -> Any:
        """Take one Adam step per block; the mean loss, a scalar tensor.

        `histories` (n_blocks, block, dim) float32 and `items` (n_blocks, block) int32 are positives, `negatives`
        (n_blocks, n_negatives) int32 items. Call it through `tf.function`: the loop then runs inside one graph.
        """
        total = tf.constant(0.0)
        for block in tf.range(tf.shape(items)[0]):
            total += self._train_block(histories[block], items[block], negatives[block], objective)
        return total / tf.cast(tf.shape(items)[0], tf.float32)

    def _train_block(self, histories: Any, items: Any, negatives: Any, objective: Objective) -> Any:
        rows, places = tf.unique(tf.concat([items, negatives], axis=0))
        values = {
            name: tf.gather(weight, rows) if name in ITEM_TABLES else weight.read_value()
            for name, weight in self._weights.items()
        }
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(values.values()))
            loss = self._loss(values, histories, places[: tf.size(items)], places[tf.size(items) :], objective)
        slices = tape.gradient(loss, list(values.values()))
        gradients = {name: tf.convert_to_tensor(slice_) for name, slice_ in zip(values, slices, strict=True)}
        self._adam_step(values, gradients, rows, objective.learning_rate)
        return loss

    def _loss(self, values: dict[str, Any], histories: Any, items: Any, negatives: Any, objective: Objective) -> Any:
        """`mean(softplus(-positive)) + negative_weight * mean(softplus(negative))`.

        That is binary cross-entropy on logits: softplus(-x) = -log sigmoid(x), softplus(x) = -log(1 - sigmoid(x)).
        `items` (block,) and `negatives` (n_negatives,) are places in the gathered rows.
        """
        split, gmf_dim = self.dims.mlp_dim, self.dims.gmf_dim
        output_gmf, output_mlp = values["output_kernel"][:gmf_dim, 0], values["output_kernel"][gmf_dim:, 0]
        gmf_user = histories @ values["gmf_encoder"]
        gmf_item, gmf_negative = tf.gather(values["gmf_item"], items), tf.gather(values["gmf_item"], negatives)
        user_half = (histories @ values["mlp_encoder"]) @ values["mlp_kernel_1"][:split] + values["mlp_bias_1"]
        item_half = values["mlp_item"] @ values["mlp_kernel_1"][split:]

        positive = tf.linalg.matvec(gmf_user * gmf_item, output_gmf)
        positive += self._mlp(values, user_half + tf.gather(item_half, items), output_mlp)
        negative = tf.matmul(gmf_user * output_gmf, gmf_negative, transpose_b=True)
        pairs = user_half[:, None, :] + tf.gather(item_half, negatives)[None, :, :]
        pairs = tf.reshape(pairs, [-1, self.dims.hidden_dims[0]])
        negative += tf.reshape(self._mlp(values, pairs, output_mlp), tf.shape(negative))
        bias = values["output_bias"]
        return tf.reduce_mean(tf.nn.softplus(-(positive + bias))) + objective.negative_weight * tf.reduce_mean(
            tf.nn.softplus(negative + bias)
        )

    def _mlp(self, values: dict[str, Any], hidden: Any, output_mlp: Any) -> Any:
        hidden = tf.nn.relu(hidden)
        for layer in range(2, len(self.dims.hidden_dims) + 1):
            hidden = tf.nn.relu(hidden @ values[f"mlp_kernel_{layer}"] + values[f"mlp_bias_{layer}"])
        return tf.linalg.matvec(hidden, output_mlp)

    def _adam_step(self, values: dict[str, Any], gradients: dict[str, Any], rows: Any, learning_rate: float) -> None:
        """Kingma & Ba 2015, algorithm 1; of the item tables, only the gathered rows."""
        self._step.assign_add(1.0)
        rate = learning_rate * tf.sqrt(1 - ADAM_BETA_2**self._step) / (1 - ADAM_BETA_1**self._step)
        for name, gradient in gradients.items():
            mean, square = self._means[name], self._squares[name]
            old_mean = tf.gather(mean, rows) if name in ITEM_TABLES else mean
            old_square = tf.gather(square, rows) if name in ITEM_TABLES else square
            new_mean = ADAM_BETA_1 * old_mean + (1 - ADAM_BETA_1) * gradient
            new_square = ADAM_BETA_2 * old_square + (1 - ADAM_BETA_2) * tf.square(gradient)
            new_value = values[name] - rate * new_mean / (tf.sqrt(new_square) + ADAM_EPSILON)
            for variable, new in ((mean, new_mean), (square, new_square), (self._weights[name], new_value)):
                if name in ITEM_TABLES:
                    variable.scatter_update(tf.IndexedSlices(new, rows))
                else:
                    variable.assign(new)


def initial_weights(
    dims: Dims, gmf_item: Floats, output_bias: float, history_rms: float, generator: np.random.Generator
) -> dict[str, Floats]:
    """Weights that score as the warm start does: the GMF path is its, and the MLP path begins near nothing.

    Parameters
    ----------
    gmf_item
        (n_items, gmf_dim); `h @ gmf_item.T + output_bias` are the warm start's logits for a history vector h.
    history_rms
        Root mean square of the entries of history vectors, so that the MLP sees inputs of size one.
    """
    shapes = dims.weight_shapes()
    weights: dict[str, NDArray[np.floating]] = {
        "gmf_encoder": np.eye(dims.gmf_dim),
        "mlp_encoder": generator.normal(0.0, 1 / (np.sqrt(dims.gmf_dim) * history_rms), (dims.gmf_dim, dims.mlp_dim)),
        "gmf_item": gmf_item,
        "mlp_item": generator.normal(0.0, 0.3, shapes["mlp_item"]),
    }
    for layer in range(1, len(dims.hidden_dims) + 1):
        shape = shapes[f"mlp_kernel_{layer}"]
        weights[f"mlp_kernel_{layer}"] = generator.normal(0.0, np.sqrt(2 / shape[0]), shape)
        weights[f"mlp_bias_{layer}"] = np.zeros(shape[1])
    output_mlp = generator.normal(0.0, 0.01, (dims.hidden_dims[-1], 1))
    weights["output_kernel"] = np.concatenate([np.ones((dims.gmf_dim, 1)), output_mlp])
    weights["output_bias"] = np.array([output_bias])
    return {name: value.astype(np.float32) for name, value in weights.items()}


def with_user_tables(weights: dict[str, Floats], item_map: Floats, histories: Any) -> dict[str, Floats]:
    """The weights of `recsys.neumf`: the encoders give way to the maps and user tables they make.

    Parameters
    ----------
    item_map
        (n_items, dim), what turned a history of items into the vectors that were trained on.
    histories
        Every user's, (n_users, n_items), dense or sparse, as `recsys.histories` weighs them.
    """
    rest = {name: value for name, value in weights.items() if not name.endswith("_encoder")}
    maps = {"gmf_map": item_map @ weights["gmf_encoder"], "mlp_map": item_map @ weights["mlp_encoder"]}
    users = {"gmf_user": histories @ maps["gmf_map"], "mlp_user": histories @ maps["mlp_map"]}
    return {name: np.asarray(value, dtype=np.float32) for name, value in (rest | maps | users).items()}


def save_keras(dims: Dims, weights: dict[str, Floats], path: Path) -> None:
    """Write `model.h5`: inputs `user_index` and `item_index` (batch,) int32, output the score (batch, 1).

    Only Keras's own layers, so `keras.models.load_model` needs no custom objects.
    """
    user = keras.Input((), dtype="int32", name="user_index")
    item = keras.Input((), dtype="int32", name="item_index")
    embedded = {
        name: keras.layers.Embedding(*dims.weight_shapes()[name], name=name)(user if name in USER_TABLES else item)
        for name in USER_TABLES + ITEM_TABLES
    }
    gmf = keras.layers.Multiply(name="gmf")([embedded["gmf_user"], embedded["gmf_item"]])
    hidden = keras.layers.Concatenate(name="mlp")([embedded["mlp_user"], embedded["mlp_item"]])
    for layer, width in enumerate(dims.hidden_dims, start=1):
        hidden = keras.layers.Dense(width, activation="relu", name=f"mlp_{layer}")(hidden)
    both = keras.layers.Concatenate(name="neumf")([gmf, hidden])
    score = keras.layers.Dense(1, activation="sigmoid", name="output")(both)
    model = keras.Model([user, item], score, name="neumf")
    for name in USER_TABLES + ITEM_TABLES:
        model.get_layer(name).set_weights([weights[name]])
    for layer in range(1, len(dims.hidden_dims) + 1):
        model.get_layer(f"mlp_{layer}").set_weights([weights[f"mlp_kernel_{layer}"], weights[f"mlp_bias_{layer}"]])
    model.get_layer("output").set_weights([weights["output_kernel"], weights["output_bias"]])
    model.save(path)
