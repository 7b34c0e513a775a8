"""Compute the weights with which the embeddings of a history's items are summed to the user's embedding.

The item r positions before the end of a history (r = 0 for the latest) has the weight

    w_r = (1 + r) ** -decay * total ** LENGTH_POWER,    total = sum_r (1 + r) ** -decay

so that recent items count more, and the sum over a history grows more slowly than the length of the history. FISM
(Kabbur, Ning & Karypis, "FISM: Factored Item Similarity Models for Top-N Recommender Systems", KDD 2013) also computes
users from items, with the factor n ** -alpha for n items. The recency term is an addition to FISM.

Training, `model.h5` and serving all use these weights, both for users in the training data and for new users and
sessions.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

LENGTH_POWER: Final = -0.5
"""Exponent of a history's total weight. It is the negative of the hyperparameter alpha of FISM."""


def recency_weights(ago: NDArray[np.integer], decay: float) -> NDArray[np.float64]:
    """Return `(1 + ago) ** -decay`, the weights of items that are `ago` positions before the end of a history."""
    weights: NDArray[np.float64] = (1 + ago.astype(np.float64)) ** -decay
    return weights


def length_scales(totals: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the factors by which the recency weights of histories are multiplied, `totals ** LENGTH_POWER`.

    `totals` holds the sum of the recency weights of each history. The result has the same shape. The factor of an empty
    history, whose sum is 0, is 1.
    """
    scales: NDArray[np.float64] = np.where(totals > 0, totals, 1.0).astype(np.float64) ** LENGTH_POWER
    return scales


@lru_cache(maxsize=512)
def history_weights(length: int, decay: float) -> NDArray[np.float64]:
    """Return the weight of each item of a history.

    Parameters
    ----------
    length
        Number of items in the history; may be 0.
    decay
        Recency exponent, at least 0. If it is 0, all items have the same weight.

    Returns
    -------
    (length,) float64
        Weights, oldest item first. The array is cached and therefore read-only.

    Examples
    --------
    >>> history_weights(4, decay=0.0).tolist()
    [0.5, 0.5, 0.5, 0.5]
    >>> history_weights(2, decay=1.0).round(3).tolist()
    [0.408, 0.816]
    """
    weights = recency_weights(np.arange(length - 1, -1, -1), decay)
    weights *= length_scales(weights.sum())
    weights.flags.writeable = False  # cached: the histories of a shop have few distinct lengths
    return weights
