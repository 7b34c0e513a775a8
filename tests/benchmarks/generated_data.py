"""Generate a data set of any size, with a long tail of items and users with tastes.

Items belong to clusters, and their popularity follows Zipf's law. Users prefer three clusters, differ in activity, and
sometimes choose from the whole catalogue. A model that finds the clusters beats popularity; the best possible quality
is not known.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

N_USERS = 200_000
N_ITEMS = 50_000
N_CLUSTERS = 50
ZIPF_POWER = 0.9
TASTES = (0.5, 0.2, 0.1)
"""Shares of a user's choices from the first, second and third cluster; the others are from the whole catalogue."""
ACTIVITY_SIGMA = 0.8
"""Standard deviation of log(activity): the most active tenth of the users has about three tenths of the pairs."""
PAIRS_PER_BATCH = 1_000_000
YEAR_S = 365 * 24 * 3600


def write_generated_set(path: Path, n_pairs: int, *, seed: int = 0) -> None:
    """Write `n_pairs` distinct pairs as CSV with the columns user_id, item_id and timestamp, in random order."""
    generator = np.random.default_rng(seed)
    codes = generate_pairs(n_pairs, N_USERS, N_ITEMS, generator)
    times = 1_700_000_000 + generator.integers(0, YEAR_S, n_pairs)
    columns = {"user_id": codes // N_ITEMS, "item_id": codes % N_ITEMS, "timestamp": times}
    pyarrow.csv.write_csv(pa.table({name: pa.array(values) for name, values in columns.items()}), path)


def generate_pairs(n_pairs: int, n_users: int, n_items: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return distinct pairs as numbers `user * n_items + item`, in random order, (n_pairs,) int64."""
    catalogue = _Catalogue(n_items, generator)
    activity = generator.lognormal(0.0, ACTIVITY_SIGMA, n_users)
    tastes = generator.integers(0, N_CLUSTERS, (n_users, len(TASTES)))
    bounds = np.cumsum(activity) / activity.sum()
    codes = np.empty(0, dtype=np.int64)
    while (n_missing := n_pairs - len(codes)) > 0:
        parts = [codes]
        for _ in range(0, n_missing + n_missing // 4, PAIRS_PER_BATCH):
            users = np.searchsorted(bounds, generator.random(PAIRS_PER_BATCH))
            kinds = np.searchsorted(np.cumsum(TASTES), generator.random(PAIRS_PER_BATCH), side="right")
            clusters = tastes[users, np.minimum(kinds, len(TASTES) - 1)]
            items = catalogue.draw(np.where(kinds < len(TASTES), clusters, -1), generator)
            parts.append(users * n_items + items)
        codes = np.unique(np.concatenate(parts))
    return generator.permutation(codes)[:n_pairs]


class _Catalogue:
    """Items sorted by cluster with their cumulative weights, for inverse transform sampling."""

    def __init__(self, n_items: int, generator: np.random.Generator) -> None:
        weights = generator.permutation(np.arange(1, n_items + 1) ** -ZIPF_POWER)
        clusters = generator.integers(0, N_CLUSTERS, n_items)
        self._order = np.argsort(clusters, kind="stable")
        self._totals = np.cumsum(weights[self._order])
        ends = np.searchsorted(clusters[self._order], np.arange(N_CLUSTERS), side="right")
        self._ends = np.concatenate([[0.0], self._totals])[ends]

    def draw(self, clusters: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw one item from each of these clusters, or from the whole catalogue if the cluster is -1; (n,) int64."""
        starts = np.where(clusters <= 0, 0.0, self._ends[clusters - 1])
        ends = np.where(clusters < 0, self._totals[-1], self._ends[clusters])
        positions = np.searchsorted(
            self._totals, starts + generator.random(len(clusters)) * (ends - starts), side="right"
        )
        items: NDArray[np.int64] = self._order[np.minimum(positions, len(self._order) - 1)]
        return items
