"""The one written definition of NeuMF's arithmetic: names, shapes, order of concatenation.

Neural matrix factorization, He et al., "Neural Collaborative Filtering", WWW 2017, §3.4, equation 12. For user u and
item i:

    gmf      = gmf_user[u] * gmf_item[i]                             element-wise, (gmf_dim,)
    hidden_0 = [mlp_user[u], mlp_item[i]]                            the user half first, (2 * mlp_dim,)
    hidden_k = relu(hidden_{k-1} @ mlp_kernel_k + mlp_bias_k)        (hidden_dims[k-1],)
    logit    = [gmf, hidden_K] @ output_kernel + output_bias         the GMF half first
    score    = 1 / (1 + exp(-logit))

`recsys_train.network` trains it in TensorFlow, this module computes it in NumPy; tests/integration/test_parity.py
holds the two within 1e-5 on the logit. The first MLP layer is linear before its ReLU, so it splits into a user half
(with the bias) and an item half that can be computed once and stored: that is what `Network` holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


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


@dataclass(frozen=True, slots=True)
class Network:
    """A trained NeuMF, rearranged for serving; all arrays float32 and C-contiguous.

    gmf_user (n_users, gmf_dim); gmf_item (n_items, gmf_dim), already multiplied by the output unit's weights;
    mlp_user (n_users, hidden_1), the user half of the first MLP layer with its bias; mlp_item (n_items, hidden_1), the
    item half; mlp_kernels and mlp_biases of layers 2 and up; output_mlp (hidden_K,); output_bias, a number.
    """

    gmf_user: Floats
    gmf_item: Floats
    mlp_user: Floats
    mlp_item: Floats
    mlp_kernels: tuple[Floats, ...]
    mlp_biases: tuple[Floats, ...]
    output_mlp: Floats
    output_bias: float

    @classmethod
    def from_weights(cls, dims: Dims, weights: dict[str, Floats]) -> Self:
        """Rearrange trained weights, named and shaped as `dims.weight_shapes()` says."""
        output_kernel = weights["output_kernel"][:, 0]
        kernel_1 = weights["mlp_kernel_1"]
        deeper = range(2, len(dims.hidden_dims) + 1)
        return cls(
            gmf_user=np.ascontiguousarray(weights["gmf_user"]),
            gmf_item=weights["gmf_item"] * output_kernel[: dims.gmf_dim],
            mlp_user=weights["mlp_user"] @ kernel_1[: dims.mlp_dim] + weights["mlp_bias_1"],
            mlp_item=weights["mlp_item"] @ kernel_1[dims.mlp_dim :],
            mlp_kernels=tuple(weights[f"mlp_kernel_{layer}"] for layer in deeper),
            mlp_biases=tuple(weights[f"mlp_bias_{layer}"] for layer in deeper),
            output_mlp=np.ascontiguousarray(output_kernel[dims.gmf_dim :]),
            output_bias=float(weights["output_bias"][0]),
        )

    @property
    def n_users(self) -> int:
        """Rows of the user arrays."""
        return len(self.gmf_user)

    @property
    def n_items(self) -> int:
        """Rows of the item arrays."""
        return len(self.gmf_item)

    def logits(self, user_index: int) -> Floats:
        """Logits of one user for every item, (n_items,) float32."""
        hidden: Floats = self.mlp_user[user_index] + self.mlp_item
        return self._gmf(user_index) + self._mlp(hidden) + self.output_bias

    def pair_logits(self, user_indices: NDArray[np.integer], item_indices: NDArray[np.integer]) -> Floats:
        """Logits of pairs, (n_pairs,) float32, for equally long index arrays."""
        gmf: Floats = np.einsum("pd,pd->p", self.gmf_user[user_indices], self.gmf_item[item_indices])
        hidden: Floats = self.mlp_user[user_indices] + self.mlp_item[item_indices]
        return gmf + self._mlp(hidden) + self.output_bias

    def _gmf(self, user_index: int) -> Floats:
        product: Floats = self.gmf_item @ self.gmf_user[user_index]
        return product

    def _mlp(self, hidden: Floats) -> Floats:
        """From the first layer before its ReLU, (n, hidden_1), to the MLP's part of the logit, (n,)."""
        np.maximum(hidden, 0, out=hidden)
        for kernel, bias in zip(self.mlp_kernels, self.mlp_biases, strict=True):
            hidden = hidden @ kernel
            hidden += bias
            np.maximum(hidden, 0, out=hidden)
        product: Floats = hidden @ self.output_mlp
        return product


def sigmoid(logits: Floats) -> Floats:
    """`1 / (1 + exp(-logits))` without overflow, same shape."""
    return (0.5 * (1 + np.tanh(0.5 * logits.astype(np.float64)))).astype(np.float32)
