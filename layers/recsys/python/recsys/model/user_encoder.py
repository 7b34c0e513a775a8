"""A user is what the user had: how a history, items oldest first, becomes weights of items.

The item that is r places before the end counts `(1 + r) ** -decay`, and all weights of a history are multiplied by
their total to the power of `LENGTH_POWER`. Training, `model.h5` and serving take it from here, for users of the
training data, newcomers and sessions alike.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

LENGTH_POWER: Final = -0.5
"""Histories are scaled by the power of their total weight: long ones count more, less than in proportion."""


def recency_weights(ago: NDArray[np.integer], decay: float) -> NDArray[np.float64]:
    """What items count that are `ago` places before the end of their history, before scaling; the same shape."""
    weights: NDArray[np.float64] = (1 + ago.astype(np.float64)) ** -decay
    return weights


def length_scales(totals: NDArray[np.floating]) -> NDArray[np.float64]:
    """What multiplies the weights of histories whose weights sum to `totals`; 1 for an empty one, the same shape."""
    scales: NDArray[np.float64] = np.where(totals > 0, totals, 1.0).astype(np.float64) ** LENGTH_POWER
    return scales


@lru_cache(maxsize=512)
def history_weights(length: int, decay: float) -> NDArray[np.float64]:
    """Weight of each item of one history, oldest first, scaled: (length,) float64, read-only."""
    weights = recency_weights(np.arange(length - 1, -1, -1), decay)
    weights *= length_scales(weights.sum())
    weights.flags.writeable = False  # it is kept: a shop's histories have few lengths
    return weights
