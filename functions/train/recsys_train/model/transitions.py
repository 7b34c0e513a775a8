"""Fit item-to-item transitions by ridge regression from the recent part of a history to the next item.

The linear autoencoder learns which items occur together, in any order. With timestamps, the order also shows which
item follows. SLIST (Choi et al., "Session-aware Linear Item-Item Models for Session-based Recommendation", WWW 2021)
extends an autoencoder by a regression from the earlier to the later items of a session. The regression of this module
predicts only the next item. The weights of the earlier items are those of `recsys.model.user_encoder`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys.model.user_encoder import length_scales, recency_weights
from recsys_train.data.interactions import Interactions
from recsys_train.model.batches import MAX_LENGTH
from recsys_train.model.warm_start import DenseWeights

TRANSITION_RIDGE: Final = 1.0
"""L2 regularisation in units of the mean diagonal of the Gram matrix. Of the values 1, 4 and 16, 1 is the best on the
validation part of Online Retail. On MovieLens 100K, transitions improve the ranking by about 5% with each of the
values."""
WINDOW: Final = 20
"""Number of items that predict the next item. Earlier items would have small weights. Not tuned."""
TARGETS_PER_CHUNK: Final = 200_000
"""Number of next items whose predictors are in memory at once; the predictors have at most 4 million weights."""
MAX_TARGETS: Final = 2_000_000
"""Maximum number of next items that the regression predicts, which limits its duration. If there are more next items,
evenly spaced ones are used."""


def fit_transitions(interactions: Interactions, decay: float) -> DenseWeights:
    """Fit the regression from histories to next items in closed form.

    Row j of the weights contains the contributions of item j, if the history contains this item, to the scores of all
    items as the next item.

    Parameters
    ----------
    interactions
        The pairs, oldest first. The regression predicts the latest `MAX_LENGTH` items of each user, except the user's
        first item.
    decay
        Recency exponent of histories.

    Examples
    --------
    >>> interactions = Interactions(["u"], ["a", "b", "c"], np.zeros(3, "i4"), np.arange(3, dtype="i4"))
    >>> fit_transitions(interactions, decay=1.0).weights[0].argmax()  # "b" followed "a"
    np.int64(1)
    """
    starts, items = interactions.items_by_user()
    lengths = np.diff(starts)
    position = np.arange(len(items)) - np.repeat(starts[:-1], lengths)
    is_target = (position >= 1) & (np.repeat(lengths, lengths) - position <= MAX_LENGTH)
    targets = np.flatnonzero(is_target)
    targets = targets[:: -(-len(targets) // MAX_TARGETS) or 1]
    n_items = interactions.n_items
    gram, cross = (np.zeros((n_items, n_items), dtype=np.float32) for _ in range(2))
    for begin in range(0, len(targets), TARGETS_PER_CHUNK):
        chunk = targets[begin : begin + TARGETS_PER_CHUNK]
        earlier = _earlier_items(items, chunk, position[chunk], n_items, decay)
        shape = len(chunk), n_items
        following = sp.csr_matrix((np.ones(len(chunk), np.float32), items[chunk], np.arange(len(chunk) + 1)), shape)
        gram += (earlier.T @ earlier).toarray()
        cross += (earlier.T @ following).toarray()
    return DenseWeights(_solve(gram, cross))


def _earlier_items(
    items: NDArray[np.int32], targets: NDArray[np.int64], position: NDArray[np.int64], n_items: int, decay: float
) -> Any:
    """Return the weights of the latest `WINDOW` items before each target, sparse (n_targets, n_items) float32."""
    rows, columns, weights = [], [], []
    for ago in range(WINDOW):
        has_item = np.flatnonzero(position > ago)
        rows.append(has_item)
        columns.append(items[targets[has_item] - 1 - ago])
        weights.append(np.full(len(has_item), recency_weights(np.array(ago), decay)))
    pairs = np.concatenate(rows), np.concatenate(columns)
    matrix = sp.csr_matrix((np.concatenate(weights), pairs), shape=(len(targets), n_items))
    scales = length_scales(np.asarray(matrix.sum(axis=1), dtype=np.float64).ravel())
    return sp.csr_matrix(sp.diags(scales) @ matrix, dtype=np.float32)


def _solve(gram: Floats, cross: Floats) -> Floats:
    """Return `(gram + λI)⁻¹ cross`, where λ makes the matrix positive definite. Both arrays are overwritten."""
    ridge = TRANSITION_RIDGE * float(np.diag(gram).mean()) or 1.0
    gram[np.diag_indices_from(gram)] += np.float32(ridge)
    return np.asarray(scipy.linalg.solve(gram, cross, assume_a="pos", overwrite_a=True, overwrite_b=True), np.float32)
