"""Compute the forward pass, the loss and the training steps of NeuMF in TensorFlow.

`recsys.model.neumf` defines the arithmetic and names the arrays. A user's embedding is not a parameter but a weighted
sum of embeddings of the items in the user's history (FISM: Kabbur et al., KDD 2013; asymmetric SVD: Paterek 2007, Koren
2008). The history tables `gmf_map` and `mlp_map` hold these embeddings. The item tables `gmf_item` and `mlp_item` hold
the embeddings with which items are scored. A training step takes a batch of users with their histories:

- The items of a history are positives. If the order of a history counts, each item except the first is predicted from
  the items before it. Otherwise, each item is predicted from all other items of the history, as in FISM.
- All users of a batch share the sampled negatives, which are drawn from the whole catalogue. Negatives that are in a
  user's history are not masked, because they are few.

In comments on shapes, n is the number of users, `longest` the length of the longest history, p the number of positives,
m the number of user vectors that score the negatives, and k the number of negatives. A batch uses h rows of each
history table and i rows of each item table.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Dims, Floats
from recsys.model.user_encoder import LENGTH_POWER, length_scales, recency_weights
from recsys_train.model.batches import MAX_LENGTH, UserBatch
from recsys_train.model.optimizer import RowwiseAdam
from recsys_train.model.quiet_tf import tf

HISTORY_TABLES: Final = ("gmf_map", "mlp_map")
"""Names of the tables that hold the embeddings of items in histories, one row per item of the catalogue."""
ITEM_TABLES: Final = ("gmf_item", "mlp_item")
"""Names of the tables that hold the embeddings of items to score, one row per item of the catalogue."""
TABLES: Final = HISTORY_TABLES + ITEM_TABLES
MLP_EMBEDDING_STD: Final = 0.3
"""Standard deviation of the initial embeddings of the MLP path; not tuned."""

Tensor = Any
"""A `tf.Tensor`. The alias is `Any`, because TensorFlow ships no types that mypy could check."""


class Objective(NamedTuple):
    """The hyperparameters of a training step, which are the learning rate and the weight of the negatives in the loss.

    The loss is binary cross-entropy. The mean loss over the negatives is multiplied by `negative_weight`, which has the
    same effect as sampling `negative_weight` negatives per positive.
    """

    learning_rate: float
    negative_weight: float


class WeightedLogits(NamedTuple):
    """Logits of shape (n,) or (n, k), and the weight of each row in the loss, (n,)."""

    logits: Floats
    weights: Floats


class _Positions(NamedTuple):
    """Position of each item of a batch among the gathered table rows, see `NeuMF._gather`."""

    history: Tensor  # (n, longest) int32, into the h history rows
    items: Tensor  # (n, longest) int32, into the i item rows
    negatives: Tensor  # (k,) int32, into the i item rows


class _UserVectors(NamedTuple):
    """User embeddings of the GMF path or of the MLP path, with which a batch scores its positives and negatives."""

    for_positives: Tensor  # (n, longest, dim): per position, from the items that predict the positive
    for_negatives: Tensor  # (n, longest or 1, dim): from the earlier items per position, or from the history
    n_items: Tensor  # (n, longest) int32: number of predicting items; 0 if the position is not a positive


class _Shared(NamedTuple):
    """Intermediate values that the logits of positives and negatives have in common."""

    output_gmf: Tensor  # (gmf_dim,): the output unit's weights of the GMF path
    output_mlp: Tensor  # (hidden_K,): the output unit's weights of the MLP path
    item_half: Tensor  # (i, hidden_1): the items' part of the first hidden layer before its ReLU


class _Logits(NamedTuple):
    """Logits of a batch, and the weight of each row of logits in the loss."""

    positive: Tensor  # (p,)
    positive_weights: Tensor  # (p,)
    negative: Tensor  # (m, k)
    negative_weights: Tensor  # (m,)


class NeuMF:
    """A trainable model of neural matrix factorization (He et al., WWW 2017).

    Parameters
    ----------
    dims
        Sizes of the network.
    weights
        Initial values by name, float32. The names and shapes are those of `dims.weight_shapes()` and
        `dims.map_shapes()`, without the user tables.
    decay
        Recency exponent of histories, see `recsys.model.user_encoder`. If it is 0, the order does not count.
    """

    def __init__(self, dims: Dims, weights: dict[str, Floats], *, decay: float) -> None:
        self.dims = dims
        self._earlier = tf.constant(_earlier_item_weights(decay)) if decay > 0 else None
        self._weights = {name: tf.Variable(value, name=name) for name, value in weights.items()}
        self._optimizer = RowwiseAdam(self._weights, TABLES)
        batch = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None,), tf.int32))
        negatives, scalar = tf.TensorSpec((None,), tf.int32), tf.TensorSpec((), tf.float32)
        self._train = tf.function(self._train_step, input_signature=(*batch, negatives, scalar, scalar))
        self._forward = tf.function(self._forward_batch, input_signature=(*batch, negatives))

    def weights(self) -> dict[str, Floats]:
        """Return copies of the current weights by name."""
        return {name: value.numpy() for name, value in self._weights.items()}

    def train_batch(self, batch: UserBatch, negatives: NDArray[np.int32], objective: Objective) -> float:
        """Take one step of Adam on a batch of users.

        Parameters
        ----------
        negatives
            Indices of the sampled negative items, (k,), which all users of the batch share.

        Returns
        -------
        float
            The loss before the step.
        """
        rates = tf.constant(objective.learning_rate, tf.float32), tf.constant(objective.negative_weight, tf.float32)
        return float(self._train(batch.items, batch.lengths, negatives, *rates))

    def logits(self, batch: UserBatch, negatives: NDArray[np.int32]) -> tuple[WeightedLogits, WeightedLogits]:
        """Return the logits of a batch's positives, (p,), and negatives, (m, k), with their weights in the loss.

        Each of the m rows holds the logits of the k negatives for one user vector. The weights of the positives, (p,),
        sum to 1, and so do the weights of the rows, (m,).
        """
        values = _Logits(*(tensor.numpy() for tensor in self._forward(batch.items, batch.lengths, negatives)))
        positives = WeightedLogits(values.positive, values.positive_weights)
        return positives, WeightedLogits(values.negative, values.negative_weights)

    def calibrate(self, slope: float, bias: float) -> None:
        """Multiply the logits without the output bias by `slope`, and set the output bias to `bias`.

        Both GMF tables are multiplied by the square root of `slope`, and the output weights of the MLP by `slope`.
        """
        for name in ("gmf_map", "gmf_item"):
            self._weights[name].assign(self._weights[name] * slope**0.5)
        kernel, gmf_dim = self._weights["output_kernel"], self.dims.gmf_dim
        kernel.assign(tf.concat([kernel[:gmf_dim], kernel[gmf_dim:] * slope], axis=0))
        self._weights["output_bias"].assign([bias])

    def _train_step(
        self, items: Tensor, lengths: Tensor, negatives: Tensor, learning_rate: Tensor, negative_weight: Tensor
    ) -> Tensor:
        values, rows, positions = self._gather(items, negatives)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(list(values.values()))
            loss = self._loss(values, positions, lengths, negative_weight)
        slices = tape.gradient(loss, list(values.values()))
        gradients = {name: tf.convert_to_tensor(slice_) for name, slice_ in zip(values, slices, strict=True)}
        self._optimizer.apply(values, gradients, rows, learning_rate)
        return loss

    def _forward_batch(self, items: Tensor, lengths: Tensor, negatives: Tensor) -> _Logits:
        values, _, positions = self._gather(items, negatives)
        return self._logits(values, positions, lengths)

    def _gather(self, items: Tensor, negatives: Tensor) -> tuple[dict[str, Tensor], dict[str, Tensor], _Positions]:
        """Gather every table row that the batch uses, each row once, and return three results.

        The first result holds values by name of the variable. A table is represented by its gathered rows, (h, dim) or
        (i, dim), and any other variable by all its values. The second result holds the indices of the gathered rows, by
        name of the table. The third result holds the position of each item of the batch among the gathered rows.
        """
        flat = tf.reshape(items, [-1])  # (n * longest,)
        history_rows, history_positions = tf.unique(flat)
        item_rows, item_positions = tf.unique(tf.concat([flat, negatives], axis=0))
        rows = dict.fromkeys(HISTORY_TABLES, history_rows) | dict.fromkeys(ITEM_TABLES, item_rows)
        values = {
            name: tf.gather(weight, rows[name]) if name in rows else weight.read_value()
            for name, weight in self._weights.items()
        }
        size, shape = tf.size(flat), tf.shape(items)
        positions = _Positions(
            tf.reshape(history_positions, shape), tf.reshape(item_positions[:size], shape), item_positions[size:]
        )
        return values, rows, positions

    def _loss(
        self, values: dict[str, Tensor], positions: _Positions, lengths: Tensor, negative_weight: Tensor
    ) -> Tensor:
        """Return the weighted binary cross-entropy of a batch.

        The loss is `mean(softplus(-positive)) + negative_weight * mean(softplus(negative))` with weighted means over
        the logits. In terms of probabilities, softplus(-x) = -log sigmoid(x) and softplus(x) = -log(1 - sigmoid(x)).
        """
        logits = self._logits(values, positions, lengths)
        return tf.reduce_sum(logits.positive_weights * tf.nn.softplus(-logits.positive)) + negative_weight * (
            tf.reduce_sum(logits.negative_weights * tf.reduce_mean(tf.nn.softplus(logits.negative), axis=1))
        )

    def _logits(self, values: dict[str, Tensor], positions: _Positions, lengths: Tensor) -> _Logits:
        gmf = self._user_vectors(tf.gather(values["gmf_map"], positions.history), lengths)
        mlp = self._user_vectors(tf.gather(values["mlp_map"], positions.history), lengths)
        is_positive = gmf.n_items > 0  # (n, longest)
        is_scoring = gmf.n_items[:, : tf.shape(gmf.for_negatives)[1]] > 0  # (n, longest or 1)
        weights = tf.cast(is_positive, tf.float32)
        weights /= tf.reduce_sum(weights)
        scoring_weights = weights if self._earlier is not None else tf.reduce_sum(weights, axis=1, keepdims=True)
        gmf_dim = self.dims.gmf_dim
        output_gmf, output_mlp = values["output_kernel"][:gmf_dim, 0], values["output_kernel"][gmf_dim:, 0]
        item_half = values["mlp_item"] @ values["mlp_kernel_1"][self.dims.mlp_dim :]
        shared = _Shared(output_gmf, output_mlp, item_half)
        positive = self._positive_logits(values, shared, positions.items, gmf, mlp, is_positive)
        negative = self._negative_logits(values, shared, positions.negatives, gmf, mlp, is_scoring)
        return _Logits(
            positive + values["output_bias"],
            tf.boolean_mask(weights, is_positive),
            negative + values["output_bias"],
            tf.boolean_mask(scoring_weights, is_scoring),
        )

    def _positive_logits(
        self,
        values: dict[str, Tensor],
        shared: _Shared,
        positions: Tensor,
        gmf: _UserVectors,
        mlp: _UserVectors,
        mask: Tensor,
    ) -> Tensor:
        """Return the logits of the positives for the user vectors that predict them, (p,), without the output bias."""
        targets = tf.boolean_mask(positions, mask)  # (p,)
        gmf_items = tf.gather(values["gmf_item"], targets)  # (p, gmf_dim)
        logits = tf.linalg.matvec(tf.boolean_mask(gmf.for_positives, mask) * gmf_items, shared.output_gmf)
        user_half = self._user_half(values, tf.boolean_mask(mlp.for_positives, mask))  # (p, hidden_1)
        hidden = user_half + tf.gather(shared.item_half, targets)
        return logits + self._mlp(values, hidden, shared.output_mlp)

    def _negative_logits(
        self,
        values: dict[str, Tensor],
        shared: _Shared,
        positions: Tensor,
        gmf: _UserVectors,
        mlp: _UserVectors,
        mask: Tensor,
    ) -> Tensor:
        """Return the logits of the negatives for each user vector that scores them, (m, k), without the output bias."""
        gmf_items = tf.gather(values["gmf_item"], positions)  # (k, gmf_dim)
        logits = tf.matmul(tf.boolean_mask(gmf.for_negatives, mask) * shared.output_gmf, gmf_items, transpose_b=True)
        user_half = self._user_half(values, tf.boolean_mask(mlp.for_negatives, mask))  # (m, hidden_1)
        pairs = user_half[:, None, :] + tf.gather(shared.item_half, positions)[None, :, :]
        mlp_logits = self._mlp(values, tf.reshape(pairs, [-1, self.dims.hidden_dims[0]]), shared.output_mlp)  # (m * k,)
        return logits + tf.reshape(mlp_logits, tf.shape(logits))

    def _user_half(self, values: dict[str, Tensor], users: Tensor) -> Tensor:
        """Return the user's part of the first hidden layer before its ReLU, including the bias, (…, hidden_1)."""
        return users @ values["mlp_kernel_1"][: self.dims.mlp_dim] + values["mlp_bias_1"]

    def _user_vectors(self, vectors: Tensor, lengths: Tensor) -> _UserVectors:
        """Combine the vectors of the items in each history, (n, longest, dim), into user embeddings."""
        longest = tf.shape(vectors)[1]
        position = tf.range(longest)[None, :]
        inside = position < lengths[:, None]  # (n, longest)
        if self._earlier is not None:
            before = self._earlier[:longest, :longest] @ vectors  # (n, longest, dim)
            return _UserVectors(before, before, tf.where(inside, position, 0))
        vectors *= tf.cast(inside, tf.float32)[:, :, None]
        total = tf.reduce_sum(vectors, axis=1, keepdims=True)  # (n, 1, dim)
        length = tf.cast(lengths, tf.float32)[:, None, None]
        others = (total - vectors) * tf.maximum(length - 1, 1) ** LENGTH_POWER
        return _UserVectors(others, total * length**LENGTH_POWER, tf.where(inside, lengths[:, None] - 1, 0))

    def _mlp(self, values: dict[str, Tensor], hidden: Tensor, output_mlp: Tensor) -> Tensor:
        """Return the MLP path's contribution to r logits, (r,), given the inputs of the first ReLU, (r, hidden_1)."""
        hidden = tf.nn.relu(hidden)
        for layer in range(2, len(self.dims.hidden_dims) + 1):
            hidden = tf.nn.relu(hidden @ values[f"mlp_kernel_{layer}"] + values[f"mlp_bias_{layer}"])
        return tf.linalg.matvec(hidden, output_mlp)


def _earlier_item_weights(decay: float) -> Floats:
    """Return the weights with which earlier items are summed at each position of a history, (MAX_LENGTH, MAX_LENGTH).

    Row t contains the weights of the positions before t. The other entries of the row are 0.
    """
    positions = np.arange(MAX_LENGTH)
    ago = positions[:, None] - 1 - positions[None, :]
    weights = np.where(ago >= 0, recency_weights(np.maximum(ago, 0), decay), 0.0)
    scaled: Floats = (weights * length_scales(weights.sum(axis=1))[:, None]).astype(np.float32)
    return scaled


def initial_weights(
    dims: Dims, gmf_map: Floats, gmf_item: Floats, item_bias: Floats, generator: np.random.Generator
) -> dict[str, Floats]:
    """Return the weights before the first training step.

    With these weights, the logits are those of the warm start, `(history @ gmf_map) @ gmf_item.T + item_bias`. NeuMF
    has no item bias. The first dimension of the MLP's item embeddings therefore holds the bias, and the first unit of
    every ReLU layer passes the bias on, independently of the user and of the other dimensions. The output weights of
    all other units of the MLP are 0.

    Parameters
    ----------
    gmf_map, gmf_item
        Factors of the warm start, (n_items, gmf_dim) float32 each.
    item_bias
        Bias of each item, at least 0, (n_items,) float32. If all biases are 0, the first unit starts like the others.
    generator
        Source of the MLP path's embeddings and kernels. The kernels of the ReLU layers follow He initialisation.
    """
    shapes = dims.weight_shapes() | dims.map_shapes()
    weights: dict[str, NDArray[np.floating]] = {
        "gmf_map": gmf_map,
        "mlp_map": generator.normal(0.0, MLP_EMBEDDING_STD, shapes["mlp_map"]),
        "gmf_item": gmf_item,
        "mlp_item": generator.normal(0.0, MLP_EMBEDDING_STD, shapes["mlp_item"]),
    }
    for layer in range(1, len(dims.hidden_dims) + 1):
        shape = shapes[f"mlp_kernel_{layer}"]
        weights[f"mlp_kernel_{layer}"] = generator.normal(0.0, np.sqrt(2 / shape[0]), shape)
        weights[f"mlp_bias_{layer}"] = np.zeros(shape[1])
    weights["output_kernel"] = np.concatenate([np.ones((dims.gmf_dim, 1)), np.zeros((dims.hidden_dims[-1], 1))])
    weights["output_bias"] = np.zeros(1)
    if item_bias.any():
        _pass_item_bias(weights, dims, item_bias)
    return {name: value.astype(np.float32, copy=False) for name, value in weights.items()}


def _pass_item_bias(weights: dict[str, NDArray[np.floating]], dims: Dims, item_bias: Floats) -> None:
    """Set the weights of the first unit of each ReLU layer so that `item_bias` is added to the logits of the items."""
    largest = item_bias.max()
    weights["mlp_item"][:, 0] = item_bias / largest
    source = dims.mlp_dim  # row of the item embedding's first dimension; the user embedding comes first
    for layer in range(1, len(dims.hidden_dims) + 1):
        kernel = weights[f"mlp_kernel_{layer}"]
        kernel[:, 0] = 0.0
        kernel[source] = 0.0
        kernel[source, 0] = 1.0
        source = 0
    weights["output_kernel"][dims.gmf_dim] = largest
