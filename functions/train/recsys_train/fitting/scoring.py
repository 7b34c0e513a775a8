"""Score the whole catalogue for many users, as evaluation requires."""

from __future__ import annotations

import numpy as np

from recsys.model.neumf import Dims, Floats, Network
from recsys_train.data.interactions import Int32s, Interactions
from recsys_train.fitting.evaluation import ScoreUsers


def score_users(dims: Dims, weights: dict[str, Floats], decay: float, train: Interactions) -> ScoreUsers:
    """Return a function that scores every item for users of `train` in the same way as the published network."""
    network = Network.from_weights(dims, weights, decay=decay)
    starts, items = train.items_by_user()
    return lambda users: score_histories(network, [items[starts[user] : starts[user + 1]] for user in users])


def score_histories(network: Network, histories: list[Int32s]) -> Floats:
    """Return the logits of all items for each history, (n_histories, n_items).

    One matrix product computes the GMF parts of all users, so that the result differs from that of `Network.logits` by
    rounding errors.
    """
    users = [network.user(history) for history in histories]
    logits: Floats = np.stack([user.gmf for user in users]) @ network.item_gmf.T
    for row, user in enumerate(users):
        logits[row] += network.mlp_parts(user.mlp) + network.output_bias
    return logits
