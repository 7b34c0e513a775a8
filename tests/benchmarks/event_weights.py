"""Purchases alone, all events alike, or views with a weight: NDCG@20 of the next purchase on made shops.

python -m tests.benchmarks.event_weights [--seeds 0 1 2] [--purchases 4 8] [--interest 0.8 0.5 0.2]

Each of 2,000 users prefers three of 20 clusters of 1,000 items, purchases `--purchases` items on average and views five
times as many. A share `--interest` of the views follows the user's tastes, the others follow popularity alone. The last
purchase of each user is held out; it is not among the views, and purchased items are not recommended. All models are
linear autoencoders of the product on matrices of weights: 1 for a purchase, and the weight of views for an item that
was only viewed. Ridge and exponents are selected on one half of the users, and the other half is measured.
"""

from __future__ import annotations

import argparse
import itertools
from dataclasses import dataclass, replace
from typing import Any, Final, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_train.data.interactions import Interactions
from recsys_train.fitting.evaluation import ScoreUsers, evaluate
from recsys_train.fitting.recipe import SEARCH_SPACE
from recsys_train.model.autoencoder import LinearSettings, invert_gram
from tests.benchmarks.tables import Table

N_USERS: Final = 2_000
N_ITEMS: Final = 1_000
N_CLUSTERS: Final = 20
ZIPF_POWER: Final = 0.9
TASTES: Final = (0.55, 0.2, 0.1, 0.15)
"""Shares of a user's choices from the three clusters and from the whole catalogue."""
VIEWS_PER_PURCHASE: Final = 5
VIEW_WEIGHTS: Final = (0.1, 0.3, 0.6, 1.0)
CANDIDATES: Final = [
    replace(SEARCH_SPACE.start, ridge=ridge, score_exponent=score_exponent, user_exponent=user_exponent)
    for ridge, score_exponent, user_exponent in itertools.product(
        (0.5, 2.0, 8.0, 32.0, 128.0), (-0.2, 0.0, 0.2), (0.0, 0.25)
    )
]


@dataclass(frozen=True, slots=True)
class Shop:
    """Purchases and views as sparse matrices of ones, (n_users, n_items), and the held-out purchases by user parity."""

    purchases: Interactions
    views: Any
    validation: Interactions
    test: Interactions

    @classmethod
    def make(cls, seed: int, interest: float, mean_purchases: int) -> Self:
        """Make a shop in which a share `interest` of the views follows the users' tastes."""
        generator = np.random.default_rng(seed)
        popularity = np.arange(1, N_ITEMS + 1) ** -ZIPF_POWER
        generator.shuffle(popularity)
        popularity /= popularity.sum()
        cluster_of = generator.integers(0, N_CLUSTERS, N_ITEMS)
        clusters = [popularity * (cluster_of == cluster) for cluster in range(N_CLUSTERS)]
        choices = np.array([*(cluster / cluster.sum() for cluster in clusters), popularity])
        purchases, views, held_out = [], [], []
        for user in range(N_USERS):
            tastes = np.array(TASTES) @ choices[[*generator.choice(N_CLUSTERS, 3, replace=False), -1]]
            n_purchases = 2 + generator.poisson(mean_purchases - 2)
            *earlier, last = generator.choice(N_ITEMS, n_purchases, replace=False, p=tastes)
            n_views = generator.poisson(VIEWS_PER_PURCHASE * (n_purchases - 1))
            is_interest = generator.random(n_views) < interest
            by_taste, by_popularity = (generator.choice(N_ITEMS, n_views, p=p) for p in (tastes, popularity))
            viewed = np.where(is_interest, by_taste, by_popularity)
            purchases += [(user, item) for item in earlier]
            views += [(user, item) for item in viewed if item != last]
            held_out.append((user, last))
        held = np.array(held_out)
        return cls(
            _interactions(np.array(purchases)),
            _ones(np.array(views)),
            _interactions(held[held[:, 0] % 2 == 0]),
            _interactions(held[held[:, 0] % 2 == 1]),
        )

    def weighted(self, view_weight: float) -> Any:
        """Return the matrix with 1 for a purchase and `view_weight` for an item that was only viewed."""
        matrix = self.purchases.to_matrix()
        return sp.csr_matrix(matrix.maximum(self.views * np.float32(view_weight)), dtype=np.float32)

    def ndcg(self, scores: ScoreUsers, held_out: Interactions) -> float:
        """Return NDCG@20 of the held-out purchases."""
        return float(evaluate(scores, self.purchases, held_out, seed=0).gains().mean())

    def quality(self, matrix: Any) -> float:
        """Select the settings on the validation users, and return NDCG@20 of the test users."""

        def ndcg(settings: LinearSettings, held_out: Interactions) -> float:
            model = invert_gram(matrix, settings).model(settings)
            return self.ndcg(lambda users: model.scores(matrix[users]), held_out)

        best = max(CANDIDATES, key=lambda settings: ndcg(settings, self.validation))
        return ndcg(best, self.test)


def _interactions(pairs: NDArray[np.int64]) -> Interactions:
    ids = [[str(number) for number in range(n)] for n in (N_USERS, N_ITEMS)]
    return Interactions(*ids, *pairs.T.astype(np.int32))


def _ones(pairs: NDArray[np.int64]) -> Any:
    matrix = _interactions(pairs).to_matrix()
    matrix.data[:] = 1  # repeated views count once
    return matrix


def measure(seed: int, interest: float, mean_purchases: int) -> list[float]:
    """Return NDCG@20 of popularity, of purchases alone and of each weight of views."""
    shop = Shop.make(seed, interest, mean_purchases)
    counts = shop.purchases.users_per_item().astype(np.float32)
    popularity = shop.ndcg(lambda users: np.tile(counts, (len(users), 1)), shop.test)
    return [popularity, *(shop.quality(shop.weighted(weight)) for weight in (0.0, *VIEW_WEIGHTS))]


def main() -> None:
    """Print the means over the seeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--purchases", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--interest", type=float, nargs="+", default=[0.8, 0.5, 0.2])
    arguments = parser.parse_args()
    names = ["popularity", "purchases alone", *(f"views × {weight}" for weight in VIEW_WEIGHTS)]
    columns = {"purchases": "d", "interest": ".1f"} | dict.fromkeys(names, ".4f")
    rows = []
    for mean_purchases, interest in itertools.product(arguments.purchases, arguments.interest):
        results = [measure(seed, interest, mean_purchases) for seed in arguments.seeds]
        rows.append([mean_purchases, interest, *np.mean(results, axis=0)])
    print(Table("NDCG@20 of the next purchase", columns, rows).text())


if __name__ == "__main__":
    main()
