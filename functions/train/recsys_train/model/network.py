"""NeuMF in TensorFlow: the weights, the loss of one block, one step of Adam; and the same weights as a Keras model.

The arithmetic is `recsys.model.neumf`'s. What is here is how to train it fast:

- A block is some users with all they had. Each history is gathered once, and every place in it becomes a positive, with
  a user vector made of what that place may see: a product with one small triangular matrix, not a sum per positive.
- All positives of a block share its negatives, so the GMF half of the negative logits is one matrix product.
- The first MLP layer is a user half plus an item half: per block it costs rows, not pairs.
- Adam updates just the rows that a block touches ("lazy" Adam: the moments of other rows rest), so a step costs what
  the block holds, not what the tables do. A row has one second moment, the mean over its dimensions ("row-wise", as for
  the embeddings in FBGEMM), so a step keeps the gradient's direction within the row.

Learning follows the order of time: the user vector of a positive is made of what came before it. Where the data has no
order worth following (`decay` 0), it is made of everything but the positive itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Dims, Floats
from recsys.model.user_encoder import LENGTH_POWER, length_scales, recency_weights
from recsys_train.model.batches import MAX_LENGTH, UserBatch
from recsys_train.model.quiet_tf import keras, tf

HISTORY_TABLES: Final = ("gmf_map", "mlp_map")
"""Rows are the items that somebody had."""
ITEM_TABLES: Final = ("gmf_item", "mlp_item")
"""Rows are the items to be ranked."""
TABLES: Final = HISTORY_TABLES + ITEM_TABLES
USER_TABLES: Final = ("gmf_user", "mlp_user")
Weighted = tuple[Floats, Floats]
"""Numbers, and what each row of them counts."""
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
        Initial values, float32: all but the user tables, as `dims.weight_shapes()` and `dims.map_shapes()` name and
        shape them.
    decay
        How fast histories are forgotten, see `recsys.model.user_encoder`.
    """

    def __init__(self, dims: Dims, weights: dict[str, Floats], *, decay: float) -> None:
        self.dims = dims
        self._before = tf.constant(_weights_before(decay)) if decay > 0 else None
        self._weights = {name: tf.Variable(value, name=name) for name, value in weights.items()}
        self._means = {name: tf.Variable(tf.zeros_like(value)) for name, value in self._weights.items()}
        self._squares = {
            name: tf.Variable(tf.zeros_like(value[:, :1] if name in TABLES else value))
            for name, value in self._weights.items()
        }
        self._step = tf.Variable(0.0)
        shapes = (tf.TensorSpec((None, None), tf.int32), *(tf.TensorSpec((None,), tf.int32),) * 2)
        rates = (tf.TensorSpec((), tf.float32),) * 2
        self._train = tf.function(self._train_block, input_signature=(*shapes, *rates))
        self._ask = tf.function(self._logits_of_block, input_signature=shapes)

    def weights(self) -> dict[str, Floats]:
        """The present values, copied."""
        return {name: value.numpy() for name, value in self._weights.items()}

    def train_block(self, block: UserBatch, negatives: NDArray[np.int32], objective: Objective) -> float:
        """Take one step of Adam; the loss before it. `negatives` (n_negatives,) are items that all positives share."""
        rates = tf.constant(objective.learning_rate, tf.float32), tf.constant(objective.negative_weight, tf.float32)
        return float(self._train(block.items, block.lengths, negatives, *rates))

    def logits(self, block: UserBatch, negatives: NDArray[np.int32]) -> tuple[Weighted, Weighted]:
        """Logits of the block's positives, (n,), and of who asks with the negatives, (m, n_negatives).

        Each with the weights of its rows in the loss, (n,) and (m,), which sum to 1.
        """
        logits = self._ask(block.items, block.lengths, negatives)
        positive, positive_weights, negative, negative_weights = (values.numpy() for values in logits)
        return (positive, positive_weights), (negative, negative_weights)

    def calibrate(self, slope: float, bias: float) -> None:
        """Make every logit of the GMF path `slope` times as large, half of it on each side, and set the output bias."""
        for name in ("gmf_map", "gmf_item"):
            self._weights[name].assign(self._weights[name] * slope**0.5)
        self._weights["output_bias"].assign([bias])

    def _train_block(self, items: Any, lengths: Any, negatives: Any, learning_rate: Any, negative_weight: Any) -> Any:
        values, rows, places = self._gather(items, negatives)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(values.values()))
            loss = self._loss(values, places, lengths, negative_weight)
        slices = tape.gradient(loss, list(values.values()))
        gradients = {name: tf.convert_to_tensor(slice_) for name, slice_ in zip(values, slices, strict=True)}
        self._adam_step(values, gradients, rows, learning_rate)
        return loss

    def _logits_of_block(self, items: Any, lengths: Any, negatives: Any) -> Any:
        values, _, places = self._gather(items, negatives)
        return self._logits(values, places, lengths)

    def _gather(self, items: Any, negatives: Any) -> tuple[dict[str, Any], dict[str, Any], tuple[Any, Any, Any]]:
        """Each row of a table that the block touches, once: values and row numbers by table, and places in them.

        The places are those of `items` among the history rows, of `items` and of `negatives` among the item rows.
        """
        had = tf.reshape(items, [-1])
        history_rows, history_places = tf.unique(had)
        item_rows, item_places = tf.unique(tf.concat([had, negatives], axis=0))
        rows = dict.fromkeys(HISTORY_TABLES, history_rows) | dict.fromkeys(ITEM_TABLES, item_rows)
        values = {
            name: tf.gather(weight, rows[name]) if name in rows else weight.read_value()
            for name, weight in self._weights.items()
        }
        n_had = tf.size(had)
        return values, rows, (tf.reshape(history_places, tf.shape(items)), item_places[:n_had], item_places[n_had:])

    def _loss(self, values: dict[str, Any], places: tuple[Any, Any, Any], lengths: Any, negative_weight: Any) -> Any:
        """`mean(softplus(-positive)) + negative_weight * mean(softplus(negative))`, weighted means.

        That is binary cross-entropy on logits: softplus(-x) = -log sigmoid(x), softplus(x) = -log(1 - sigmoid(x)).
        """
        positive, positive_weights, negative, negative_weights = self._logits(values, places, lengths)
        return tf.reduce_sum(positive_weights * tf.nn.softplus(-positive)) + negative_weight * tf.reduce_sum(
            negative_weights * tf.reduce_mean(tf.nn.softplus(negative), axis=1)
        )

    def _logits(self, values: dict[str, Any], places: tuple[Any, Any, Any], lengths: Any) -> tuple[Any, Any, Any, Any]:
        """Logits of positives (n,) and of negatives (m, n_negatives), each before its weights, which sum to 1."""
        history_places, item_places, negative_places = places
        gmf, gmf_negative, counts = self._user_vectors(tf.gather(values["gmf_map"], history_places), lengths)
        mlp, mlp_negative, _ = self._user_vectors(tf.gather(values["mlp_map"], history_places), lengths)
        is_positive, is_asking = counts > 0, counts[:, : tf.shape(gmf_negative)[1]] > 0
        weights = tf.cast(is_positive, tf.float32)
        weights /= tf.reduce_sum(weights)
        asking_weights = weights if self._before is not None else tf.reduce_sum(weights, axis=1, keepdims=True)

        split, gmf_dim = self.dims.mlp_dim, self.dims.gmf_dim
        output_gmf, output_mlp = values["output_kernel"][:gmf_dim, 0], values["output_kernel"][gmf_dim:, 0]
        kernel_user, kernel_item = values["mlp_kernel_1"][:split], values["mlp_kernel_1"][split:]
        item_half = values["mlp_item"] @ kernel_item

        targets = tf.boolean_mask(tf.reshape(item_places, tf.shape(history_places)), is_positive)
        gmf_items = tf.gather(values["gmf_item"], targets)
        positive = tf.linalg.matvec(tf.boolean_mask(gmf, is_positive) * gmf_items, output_gmf)
        user_half = tf.boolean_mask(mlp, is_positive) @ kernel_user + values["mlp_bias_1"]
        positive += self._mlp(values, user_half + tf.gather(item_half, targets), output_mlp)

        gmf_items = tf.gather(values["gmf_item"], negative_places)
        negative = tf.matmul(tf.boolean_mask(gmf_negative, is_asking) * output_gmf, gmf_items, transpose_b=True)
        user_half = tf.boolean_mask(mlp_negative, is_asking) @ kernel_user + values["mlp_bias_1"]
        pairs = user_half[:, None, :] + tf.gather(item_half, negative_places)[None, :, :]
        pairs = self._mlp(values, tf.reshape(pairs, [-1, self.dims.hidden_dims[0]]), output_mlp)
        negative += tf.reshape(pairs, tf.shape(negative))
        bias = values["output_bias"]
        return (
            positive + bias,
            tf.boolean_mask(weights, is_positive),
            negative + bias,
            tf.boolean_mask(asking_weights, is_asking),
        )

    def _user_vectors(self, vectors: Any, lengths: Any) -> tuple[Any, Any, Any]:
        """User vectors out of those of the items they had, (n, longest, dim): for positives, for negatives, and counts.

        Positives: at each place, the vector of what the place may see, (n, longest, dim). Negatives: the vectors that
        are asked about them, (n, longest or 1, dim). The count (n, longest) is that of the items a place sees; 0 where
        there is nothing to learn.
        """
        longest = tf.shape(vectors)[1]
        place = tf.range(longest)[None, :]
        inside = place < lengths[:, None]
        if self._before is not None:
            before = self._before[:longest, :longest] @ vectors
            return before, before, tf.where(inside, place, 0)
        vectors *= tf.cast(inside, tf.float32)[:, :, None]
        total = tf.reduce_sum(vectors, axis=1, keepdims=True)
        length = tf.cast(lengths, tf.float32)[:, None, None]
        others = (total - vectors) * tf.maximum(length - 1, 1) ** LENGTH_POWER
        return others, total * length**LENGTH_POWER, tf.where(inside, lengths[:, None] - 1, 0)

    def _mlp(self, values: dict[str, Any], hidden: Any, output_mlp: Any) -> Any:
        hidden = tf.nn.relu(hidden)
        for layer in range(2, len(self.dims.hidden_dims) + 1):
            hidden = tf.nn.relu(hidden @ values[f"mlp_kernel_{layer}"] + values[f"mlp_bias_{layer}"])
        return tf.linalg.matvec(hidden, output_mlp)

    def _adam_step(
        self, values: dict[str, Any], gradients: dict[str, Any], rows: dict[str, Any], learning_rate: Any
    ) -> None:
        """Kingma & Ba 2015, algorithm 1; of the tables, only the gathered rows."""
        self._step.assign_add(1.0)
        rate = learning_rate * tf.sqrt(1 - ADAM_BETA_2**self._step) / (1 - ADAM_BETA_1**self._step)
        for name, gradient in gradients.items():
            variables = self._means[name], self._squares[name], self._weights[name]
            old_mean, old_square = (
                tf.gather(variable, rows[name]) if name in rows else variable for variable in variables[:2]
            )
            mean = ADAM_BETA_1 * old_mean + (1 - ADAM_BETA_1) * gradient
            new_square = tf.square(gradient)
            if name in rows:
                new_square = tf.reduce_mean(new_square, axis=1, keepdims=True)
            square = ADAM_BETA_2 * old_square + (1 - ADAM_BETA_2) * new_square
            value = values[name] - rate * mean / (tf.sqrt(square) + ADAM_EPSILON)
            for variable, new in zip(variables, (mean, square, value), strict=True):
                if name in rows:
                    variable.scatter_update(tf.IndexedSlices(new, rows[name]))
                else:
                    variable.assign(new)


def _weights_before(decay: float) -> Floats:
    """What an item counts for a later place: (MAX_LENGTH, MAX_LENGTH), row t weighs places 0 to t - 1."""
    places = np.arange(MAX_LENGTH)
    ago = places[:, None] - 1 - places[None, :]
    weights = np.where(ago >= 0, recency_weights(np.maximum(ago, 0), decay), 0.0)
    scaled: Floats = (weights * length_scales(weights.sum(axis=1))[:, None]).astype(np.float32)
    return scaled


def initial_weights(dims: Dims, gmf_map: Floats, gmf_item: Floats, generator: np.random.Generator) -> dict[str, Floats]:
    """Weights that score as the warm start, `(history @ gmf_map) @ gmf_item.T`: the MLP path begins at nothing."""
    shapes = dims.weight_shapes() | dims.map_shapes()
    weights: dict[str, NDArray[np.floating]] = {
        "gmf_map": gmf_map,
        "mlp_map": generator.normal(0.0, 0.3, shapes["mlp_map"]),
        "gmf_item": gmf_item,
        "mlp_item": generator.normal(0.0, 0.3, shapes["mlp_item"]),
    }
    for layer in range(1, len(dims.hidden_dims) + 1):
        shape = shapes[f"mlp_kernel_{layer}"]
        weights[f"mlp_kernel_{layer}"] = generator.normal(0.0, np.sqrt(2 / shape[0]), shape)
        weights[f"mlp_bias_{layer}"] = np.zeros(shape[1])
    weights["output_kernel"] = np.concatenate([np.ones((dims.gmf_dim, 1)), np.zeros((dims.hidden_dims[-1], 1))])
    weights["output_bias"] = np.zeros(1)
    return {name: value.astype(np.float32, copy=False) for name, value in weights.items()}


def user_tables(weights: dict[str, Floats], histories: Any) -> dict[str, Floats]:
    """The textbook's user tables: what `histories` (n_users, n_items), sparse, make of the maps."""
    pairs = zip(USER_TABLES, HISTORY_TABLES, strict=True)
    return {table: np.asarray(histories @ weights[name], dtype=np.float32) for table, name in pairs}


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
