"""The one written definition of NeuMF's arithmetic: names, shapes, order of concatenation.

Neural matrix factorization, He et al., "Neural Collaborative Filtering", WWW 2017, §3.4, equation 12. For user u and
item i:

    gmf      = gmf_user[u] * gmf_item[i]                             element-wise, (gmf_dim,)
    hidden_0 = [mlp_user[u], mlp_item[i]]                            the user half first, (2 * mlp_dim,)
    hidden_k = relu(hidden_{k-1} @ mlp_kernel_k + mlp_bias_k)        (hidden_dims[k-1],)
    logit    = [gmf, hidden_K] @ output_kernel + output_bias         the GMF half first
    score    = 1 / (1 + exp(-logit))

A user's two rows are not free parameters. They are computed from the items j of the user's history, with the weights w
of `recsys.model.user_encoder`:

    gmf_user[u] = sum_j w_j * gmf_map[j]
    mlp_user[u] = sum_j w_j * mlp_map[j]

`recsys_train.model.network` trains it in TensorFlow, this module computes it in NumPy; tests/integration/test_parity.py
holds the two within 1e-5 on the logit. The first MLP layer is linear before its ReLU, so it splits into a user half
(with the bias) and an item half that can be computed once and stored: that is what `Network` holds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from recsys.model.user_encoder import history_weights

Floats = NDArray[np.float32]

_BLOCK: Final = 1024
"""Items at a time; the products of a layer then stay in cache."""
_EXACT_BLOCK: Final = 128
"""The same in float64."""


@dataclass(frozen=True, slots=True)
class Dims:
    """The sizes of one NeuMF. `hidden_dims` are the widths of the MLP's ReLU layers, at least one."""

    n_users: int
    n_items: int
    gmf_dim: int
    mlp_dim: int
    hidden_dims: tuple[int, ...]

    def weight_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of every trained array, in the order in which they are listed everywhere."""
        shapes: dict[str, tuple[int, ...]] = {
            "gmf_user": (self.n_users, self.gmf_dim),
            "gmf_item": (self.n_items, self.gmf_dim),
            "mlp_user": (self.n_users, self.mlp_dim),
            "mlp_item": (self.n_items, self.mlp_dim),
        }
        fan_in = 2 * self.mlp_dim
        for layer, width in enumerate(self.hidden_dims, start=1):
            shapes[f"mlp_kernel_{layer}"] = (fan_in, width)
            shapes[f"mlp_bias_{layer}"] = (width,)
            fan_in = width
        shapes["output_kernel"] = (self.gmf_dim + fan_in, 1)
        shapes["output_bias"] = (1,)
        return shapes

    def map_shapes(self) -> dict[str, tuple[int, ...]]:
        """Name and shape of the arrays that make a user's row of the user tables out of the items the user had."""
        return {"gmf_map": (self.n_items, self.gmf_dim), "mlp_map": (self.n_items, self.mlp_dim)}


@dataclass(frozen=True, slots=True)
class User:
    """A user's side of every logit: `gmf` (gmf_dim,) and `mlp` (hidden_1,), the user half of layer 1 with its bias."""

    gmf: Floats
    mlp: Floats


@dataclass(frozen=True, slots=True)
class Network:
    """A trained NeuMF, rearranged for serving; all arrays float32 and C-contiguous.

    gmf_map (n_items, gmf_dim) and mlp_map (n_items, hidden_1) make a user of a history that is forgotten with `decay`,
    see `user`; mlp_bias_1 (hidden_1,). gmf_item (n_items, gmf_dim), already multiplied by the output unit's weights;
    mlp_item (n_items, hidden_1), the item half of the first MLP layer; mlp_kernels and mlp_biases of layers 2 and up;
    output_mlp (hidden_K,); output_bias, a number.
    """

    history_gmf: Floats
    history_hidden_1: Floats
    mlp_bias_1: Floats
    decay: float
    item_gmf: Floats
    item_hidden_1: Floats
    mlp_kernels: tuple[Floats, ...]
    mlp_biases: tuple[Floats, ...]
    output_mlp: Floats
    output_bias: float

    @classmethod
    def from_weights(cls, dims: Dims, weights: dict[str, Floats], *, decay: float) -> Self:
        """Rearrange trained weights, named and shaped as `dims.weight_shapes()` and `dims.map_shapes()` say."""
        output_kernel = weights["output_kernel"][:, 0]
        kernel_1 = weights["mlp_kernel_1"]
        deeper = range(2, len(dims.hidden_dims) + 1)
        return cls(
            history_gmf=np.ascontiguousarray(weights["gmf_map"]),
            history_hidden_1=weights["mlp_map"] @ kernel_1[: dims.mlp_dim],
            mlp_bias_1=weights["mlp_bias_1"],
            decay=decay,
            item_gmf=weights["gmf_item"] * output_kernel[: dims.gmf_dim],
            item_hidden_1=weights["mlp_item"] @ kernel_1[dims.mlp_dim :],
            mlp_kernels=tuple(weights[f"mlp_kernel_{layer}"] for layer in deeper),
            mlp_biases=tuple(weights[f"mlp_bias_{layer}"] for layer in deeper),
            output_mlp=np.ascontiguousarray(output_kernel[dims.gmf_dim :]),
            output_bias=float(weights["output_bias"][0]),
        )

    @property
    def n_items(self) -> int:
        """Rows of the item arrays."""
        return len(self.item_gmf)

    def user(self, history: NDArray[np.integer]) -> User:
        """Who had these items, oldest first; somebody who had none is a user too."""
        weights = history_weights(len(history), self.decay)
        gmf = np.einsum("i,ij->j", weights, self.history_gmf.take(history, axis=0))
        mlp = np.einsum("i,ij->j", weights, self.history_hidden_1.take(history, axis=0)) + self.mlp_bias_1
        return User(gmf.astype(np.float32), mlp.astype(np.float32))

    def logits(self, user: User) -> Floats:
        """Logits of one user for every item, (n_items,) float32, but for the last bits those of `exact_logits`."""
        gmf: Floats = self.item_gmf @ user.gmf
        return gmf + self.mlp_parts(user.mlp) + self.output_bias

    def mlp_parts(self, user_half: Floats) -> Floats:
        """The MLP's part of the logits of one user, (hidden_1,), for every item, (n_items,)."""
        parts = np.empty(self.n_items, dtype=np.float32)
        for begin in range(0, self.n_items, _BLOCK):
            block = slice(begin, begin + _BLOCK)
            parts[block] = self.mlp_outputs(user_half + self.item_hidden_1[block])
        return parts

    def exact_logits(self, user: User, rows: NDArray[np.integer]) -> Floats:
        """The logits that items are ranked by, of some items, (n,) float32; see `exact_pair_logits`."""
        alone = User(user.gmf[None], user.mlp[None])
        return _in_blocks(len(rows), lambda block: self._exact_logits(alone, rows[block]))

    def exact_pair_logits(self, users: User, user_rows: NDArray[np.integer], item_rows: NDArray[np.integer]) -> Floats:
        """The logits that items are ranked by, of pairs, (n_pairs,) float32; `users` holds a user per row.

        A pair's is the same whatever others it is computed with: in float64, each product that of one pair alone, and
        rounded once in the end. One product of many pairs is faster but promises no such thing.
        """

        def logits(block: slice) -> NDArray[np.float64]:
            asking = user_rows[block]
            return self._exact_logits(User(users.gmf[asking], users.mlp[asking]), item_rows[block])

        return _in_blocks(len(item_rows), logits)

    def _exact_logits(self, users: User, item_rows: NDArray[np.integer]) -> NDArray[np.float64]:
        """Of stacks of matrices, one a pair, which NumPy multiplies one after the other.

        `users` holds one row for each item, or one for all.
        """
        gmf = _stack(self.item_gmf[item_rows]) @ _stack(users.gmf).swapaxes(1, 2)
        hidden = np.maximum(_stack(self.item_hidden_1[item_rows]) + _stack(users.mlp), 0)
        for kernel, bias in zip(self.mlp_kernels, self.mlp_biases, strict=True):
            hidden = np.maximum(hidden @ kernel.astype(np.float64) + bias, 0)
        mlp = hidden @ self.output_mlp.astype(np.float64)[:, None]
        logits: NDArray[np.float64] = (gmf + mlp + self.output_bias)[:, 0, 0]
        return logits

    def mlp_outputs(self, hidden: Floats) -> Floats:
        """The MLP's part of the logit, (n,), from the first layer before its ReLU, (n, hidden_1), which it uses up."""
        np.maximum(hidden, 0, out=hidden)
        for kernel, bias in zip(self.mlp_kernels, self.mlp_biases, strict=True):
            hidden = hidden @ kernel
            hidden += bias
            np.maximum(hidden, 0, out=hidden)
        product: Floats = hidden @ self.output_mlp
        return product


def _in_blocks(n: int, logits: Callable[[slice], NDArray[np.float64]]) -> Floats:
    """What `logits` gives for each `_EXACT_BLOCK` of n, rounded, (n,)."""
    rounded = np.empty(n, dtype=np.float32)
    for begin in range(0, n, _EXACT_BLOCK):
        block = slice(begin, begin + _EXACT_BLOCK)
        rounded[block] = logits(block)
    return rounded


def _stack(rows: Floats) -> NDArray[np.float64]:
    """(n, width) as n matrices of one row."""
    return rows.astype(np.float64)[:, None, :]


def sigmoid(logits: Floats) -> Floats:
    """`1 / (1 + exp(-logits))` without overflow, same shape."""
    return (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)
