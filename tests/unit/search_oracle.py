"""Random networks for the tests of exact search, and the plain ranking that its results must equal."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.model.neumf import Dims, Floats, ItemIndices, Network, User
from tests.made_models import random_network

NOTHING = np.array([], dtype=np.int64)


def random_search_network(
    n_items: int, hidden_dims: tuple[int, ...] = (16, 8, 4), *, seed: int = 0, mlp_share: float = 1.0, gmf_dim: int = 6
) -> Network:
    """Return a random network, in which a small `mlp_share` lets the GMF path decide the ranking."""
    network = random_network(Dims(1, n_items, gmf_dim, 4, hidden_dims), seed)
    return replace(network, output_mlp=network.output_mlp * np.float32(mlp_share))


def rank_every_item(
    network: Network, user: User, n: int, excluded: ItemIndices, candidates: ItemIndices | None = None
) -> tuple[list[int], Floats]:
    """Sort the exact logits of all items, larger first, ties to the lower index."""
    logits = network.exact_logits(user, np.arange(network.n_items))
    items = set(range(network.n_items) if candidates is None else candidates.tolist()) - set(excluded.tolist())
    best = sorted(items, key=lambda item: (-logits[item], item))[:n]
    return best, logits[best]
