"""Generate a data set of any size, with a long tail of items, and with or without tastes of the users.

Items belong to clusters, and their popularity follows Zipf's law. Users prefer three clusters, differ in activity, and
sometimes choose from the whole catalogue. A model that finds the clusters beats popularity; the best possible quality
is not known. Without tastes, all choices are from the whole catalogue, and no ranking is better than popularity.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

N_CLUSTERS: Final = 50
ZIPF_POWER: Final = 0.9
TASTES: Final = (0.5, 0.2, 0.1)
"""Shares of a user's choices from the first, second and third cluster; the others are from the whole catalogue."""
NO_TASTES: Final = (0.0, 0.0, 0.0)
ACTIVITY_SIGMA: Final = 0.8
"""Standard deviation of log(activity): the most active tenth of the users has about three tenths of the pairs."""
PAIRS_PER_BATCH: Final = 1_000_000
YEAR_S: Final = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class GeneratedSet:
    """The size and structure of a generated data set.

    Parameters
    ----------
    n_pairs, n_users, n_items
        Distinct pairs, and the users and items they are drawn from.
    tastes
        `TASTES` or `NO_TASTES`.
    is_even
        Whether all users have equally many pairs. Otherwise their activity is log-normal.
    """

    n_pairs: int
    n_users: int = 200_000
    n_items: int = 50_000
    tastes: tuple[float, ...] = TASTES
    is_even: bool = False


GENERATED_SETS: Final = {
    "1m": GeneratedSet(1_000_000),
    "5m": GeneratedSet(5_000_000),
    "20m": GeneratedSet(20_000_000),
    "100k-random": GeneratedSet(100_000, n_users=20_000, n_items=5_000, tastes=NO_TASTES),
    "2m-random": GeneratedSet(2_000_000, n_users=1_000_000, tastes=NO_TASTES, is_even=True),
    "3m-random": GeneratedSet(3_000_000, n_users=300_000, n_items=1_000_000, tastes=NO_TASTES),
    "two-each": GeneratedSet(400_000, is_even=True),
}


def write_generated_set(path: Path, generated: GeneratedSet, *, seed: int = 0) -> None:
    """Write distinct pairs as CSV with the columns user_id, item_id and timestamp, in random order."""
    generator = np.random.default_rng(seed)
    codes = generate_pairs(generated, generator)
    times = 1_700_000_000 + generator.integers(0, YEAR_S, len(codes))
    columns = {"user_id": codes // generated.n_items, "item_id": codes % generated.n_items, "timestamp": times}
    pyarrow.csv.write_csv(pa.table({name: pa.array(values) for name, values in columns.items()}), path)


def generate_pairs(generated: GeneratedSet, generator: np.random.Generator) -> NDArray[np.int64]:
    """Return distinct pairs as numbers `user * n_items + item`, in random order, (n_pairs,) int64."""
    shoppers = _Shoppers(generated, generator)
    codes = np.empty(0, dtype=np.int64)
    while (n_missing := generated.n_pairs - len(codes)) > 0:
        parts = [codes]
        if generated.is_even:
            counts = np.bincount(codes // generated.n_items, minlength=generated.n_users)
            users = np.repeat(np.arange(generated.n_users), generated.n_pairs // generated.n_users - counts)
            parts.append(shoppers.choose(users, generator))
        else:
            n_drawn = n_missing + n_missing // 4
            for _ in range(0, n_drawn, PAIRS_PER_BATCH):
                users = shoppers.draw(min(n_drawn, PAIRS_PER_BATCH), generator)
                parts.append(shoppers.choose(users, generator))
        codes = np.unique(np.concatenate(parts))
    return generator.permutation(codes)[: generated.n_pairs]


class _Shoppers:
    """Users with their activity and tastes, and the catalogue that they choose from."""

    def __init__(self, generated: GeneratedSet, generator: np.random.Generator) -> None:
        self._generated = generated
        self._catalogue = _Catalogue(generated.n_items, generator)
        activity = generator.lognormal(0.0, ACTIVITY_SIGMA, generated.n_users)
        self._clusters = generator.integers(0, N_CLUSTERS, (generated.n_users, len(generated.tastes)))
        self._bounds = np.cumsum(activity) / activity.sum()

    def draw(self, n: int, generator: np.random.Generator) -> NDArray[np.int64]:
        """Draw n users in proportion to their activity."""
        users: NDArray[np.int64] = np.searchsorted(self._bounds, generator.random(n))
        return users

    def choose(self, users: NDArray[np.int64], generator: np.random.Generator) -> NDArray[np.int64]:
        """Let each of the users choose an item; pairs can repeat."""
        tastes = self._generated.tastes
        kinds = np.searchsorted(np.cumsum(tastes), generator.random(len(users)), side="right")
        clusters = self._clusters[users, np.minimum(kinds, len(tastes) - 1)]
        items = self._catalogue.draw(np.where(kinds < len(tastes), clusters, -1), generator)
        return users * self._generated.n_items + items


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
