"""Explain a recommended item by the items of the history that contribute most to its logit.

The GMF part of a logit is linear in the history, and therefore the sum of one part per item j of the history:

    gmf(u, i) = sum_j  w_j * (gmf_map[j] * gmf_item[i]) @ output_kernel

The MLP part is left out, because it is not linear and could be attributed to the items only approximately.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import ItemIndices, Network
from recsys.model.user_encoder import history_weights

MAX_REASONS: Final = 3


class Contribution(NamedTuple):
    """An item of the history, and its contribution to the logit of a recommended item."""

    item_index: int
    contribution: float


def contributions(network: Network, history: ItemIndices, items: ItemIndices) -> NDArray[np.float64]:
    """Return the contribution of each history item to the GMF part of each recommended item's logit.

    Parameters
    ----------
    network
        The model.
    history
        Indices of the items of the history, oldest first, (n_history,).
    items
        Indices of the recommended items, (n_items,).

    Returns
    -------
    (n_items, n_history) float64
        The contributions. The sum of a row is the GMF part of the logit.
    """
    weights = history_weights(len(history), network.decay)
    embeddings = network.history_gmf.take(history, axis=0) * weights[:, None]  # (n_history, gmf_dim)
    parts: NDArray[np.float64] = network.item_gmf.take(items, axis=0).astype(np.float64) @ embeddings.T
    return parts


def explain(network: Network, history: ItemIndices, items: ItemIndices) -> list[list[Contribution]]:
    """Return the history items that contribute most to each item's logit.

    Parameters
    ----------
    network, history, items
        The same as in `contributions`.

    Returns
    -------
    list of list of Contribution
        At most `MAX_REASONS` contributions per recommended item, largest first. Only positive contributions are
        returned.
    """
    return [_largest(row, history) for row in contributions(network, history, items)]


def _largest(parts: NDArray[np.float64], history: ItemIndices) -> list[Contribution]:
    best = np.argsort(-parts, kind="stable")[:MAX_REASONS]
    return [Contribution(int(history[index]), float(parts[index])) for index in best.tolist() if parts[index] > 0]
