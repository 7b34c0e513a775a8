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

from recsys.neumf import Floats
from recsys_train.interactions import Interactions

N_NEGATIVES: Final = 99

ScoreItems = Callable[[int], Floats]
"""From a user's index to values of all items, (n_items,); larger is better."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the users with a held-out item.

    `hr_at_10` and `ndcg_at_10` rank it among 99 items drawn uniformly from those the user never touched (He et al.,
    §4.1); `recall_at_20` and `ndcg_at_20` among every item the user did not have in training. Ties count against us.
    """

    hr_at_10: float
    ndcg_at_10: float
    recall_at_20: float
    ndcg_at_20: float

    def to_json(self) -> dict[str, float]:
        """Rounded to six decimals."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


def evaluate(score_items: ScoreItems, train: Interactions, held_out: Interactions, *, seed: int) -> Quality:
    """Rank each user's held-out item.

    Parameters
    ----------
    held_out
        One pair per user, as `Interactions.split_last` cuts it.
    seed
        Of the sampled negatives.

    Returns
    -------
    Zeros where nothing is held out.
    """
    generator = np.random.default_rng(seed)
    n_users = len(held_out)
    starts, items = train.items_by_user()
    sampled_ranks = np.empty(n_users, dtype=np.int64)
    full_ranks = np.empty(n_users, dtype=np.int64)
    for place, (user, target) in enumerate(zip(held_out.users.tolist(), held_out.items.tolist(), strict=True)):
        values = score_items(user)
        rivals = np.ones(train.n_items, dtype=np.bool_)
        rivals[items[starts[user] : starts[user + 1]]] = False
        rivals[target] = False
        at_least = ~(values < values[target])  # what is not a number counts against us too
        full_ranks[place] = 1 + np.count_nonzero(at_least & rivals)
        sampled_ranks[place] = 1 + np.count_nonzero(at_least[_draw(rivals, generator)])
    return Quality(
        hr_at_10=_mean(sampled_ranks <= 10),
        ndcg_at_10=_mean(_ndcg(sampled_ranks, 10)),
        recall_at_20=_mean(full_ranks <= 20),
        ndcg_at_20=_mean(_ndcg(full_ranks, 20)),
    )


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
