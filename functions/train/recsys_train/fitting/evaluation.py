"""How well a network ranks what was held out: the protocol of He et al., and the whole catalogue.

Metrics are float64. NDCG follows Järvelin & Kekäläinen 2002 with binary gains; with one held-out item per user it is
`1 / log2(rank + 1)` where the item's rank is within the cut, else 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys_train.data.interactions import Interactions

N_NEGATIVES: Final = 99

USERS_AT_ONCE: Final = 128
RESAMPLES: Final = 2000

ScoreUsers = Callable[[NDArray[np.integer]], Floats]
"""From users' indices (n,) to values of all items, (n, n_items); larger is better."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the users with a held-out item.

    `hr_at_10` and `ndcg_at_10` rank it among 99 items drawn uniformly from those the user never touched (He et al.,
    §4.1); `recall_at_20` and `ndcg_at_20` among every item the user did not have in training. Ties count against us.
    `coverage_at_20` is the share of the catalogue that is among the first 20 of at least one of these users.
    """

    hr_at_10: float
    ndcg_at_10: float
    recall_at_20: float
    ndcg_at_20: float
    coverage_at_20: float

    def to_json(self) -> dict[str, float]:
        """Rounded to six decimals."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Ranks:
    """Ranks of held-out items, from 1, (n_users,) int64, and what stands around them.

    `full` is among the whole catalogue, `sampled` among the item and the sampled negatives; `coverage` as in `Quality`.
    """

    full: NDArray[np.int64]
    sampled: NDArray[np.int64]
    coverage: float

    def quality(self) -> Quality:
        """The means over the users; zeros where nothing is held out."""
        return Quality(
            hr_at_10=_mean(self.sampled <= 10),
            ndcg_at_10=_mean(_ndcg(self.sampled, 10)),
            recall_at_20=_mean(self.full <= 20),
            ndcg_at_20=_mean(_ndcg(self.full, 20)),
            coverage_at_20=self.coverage,
        )


def evaluate(score_users: ScoreUsers, train: Interactions, held_out: Interactions, *, seed: int) -> Ranks:
    """Rank each user's held-out item.

    Parameters
    ----------
    held_out
        One pair per user, as `Interactions.split_last` cuts it.
    seed
        Of the sampled negatives.
    """
    generator = np.random.default_rng(seed)
    starts, items = train.items_by_user()
    full = np.empty(len(held_out), dtype=np.int64)
    sampled = np.empty(len(held_out), dtype=np.int64)
    recommended = np.zeros(train.n_items, dtype=np.bool_)
    for place, (user, target) in enumerate(zip(held_out.users.tolist(), held_out.items.tolist(), strict=True)):
        if place % USERS_AT_ONCE == 0:
            block = score_users(held_out.users[place : place + USERS_AT_ONCE])
        values = block[place % USERS_AT_ONCE]
        rivals = np.ones(train.n_items, dtype=np.bool_)
        rivals[items[starts[user] : starts[user + 1]]] = False
        eligible = np.where(rivals, values, -np.inf)
        first = np.argpartition(-eligible, 20)[:20] if train.n_items > 20 else np.flatnonzero(rivals)
        recommended[first[rivals[first]]] = True
        rivals[target] = False
        at_least = ~(values < values[target])  # what is not a number counts against us too
        full[place] = 1 + np.count_nonzero(at_least & rivals)
        sampled[place] = 1 + np.count_nonzero(at_least[_draw(rivals, generator)])
    return Ranks(full, sampled, _mean(recommended) if len(held_out) else 0.0)


def lift_interval(ours: Ranks, baseline: Ranks, *, seed: int) -> tuple[float, float] | None:
    """The 95% interval of our NDCG@20 over the baseline's: percentile bootstrap over users (Efron & Tibshirani 1993).

    None where the baseline finds too little to divide by.
    """
    generator = np.random.default_rng(seed)
    n_users = len(ours.full)
    if n_users == 0:
        return None
    gains = np.stack([_ndcg(ours.full, 20), _ndcg(baseline.full, 20)])
    means = np.array([gains[:, generator.integers(0, n_users, n_users)].mean(axis=1) for _ in range(RESAMPLES)])
    if (means[:, 1] == 0).any():
        return None
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975]).tolist()
    return low, high


def _draw(eligible: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.int64]:
    """`N_NEGATIVES` distinct indices where `eligible` is true, uniformly; all of them where there are fewer."""
    draws = generator.integers(0, len(eligible), 4 * N_NEGATIVES)
    _, first = np.unique(draws, return_index=True)
    distinct = draws[np.sort(first)]
    distinct = distinct[eligible[distinct]]
    if len(distinct) >= N_NEGATIVES:
        return distinct[:N_NEGATIVES]
    indices = np.flatnonzero(eligible)
    return generator.choice(indices, min(N_NEGATIVES, len(indices)), replace=False)


def _ndcg(ranks: NDArray[np.int64], cut: int) -> NDArray[np.float64]:
    return np.where(ranks <= cut, 1 / np.log2(ranks + 1.0), 0.0)


def _mean(values: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
