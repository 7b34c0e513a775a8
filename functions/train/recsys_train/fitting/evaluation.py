"""Compute ranking metrics on held-out interactions.

Each held-out item is ranked twice, among sampled negatives (He et al., §4.1) and in the full catalogue. All metrics are
float64. NDCG follows Järvelin & Kekäläinen 2002 with binary gains. For a user with one held-out item, NDCG is
`1 / log2(rank + 1)` if the item's rank is within the cut-off, otherwise 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys_train.data.interactions import Interactions

N_NEGATIVES: Final = 99
"""Number of sampled negatives per held-out item, as in He et al., §4.1."""
SAMPLED_CUTOFF: Final = 10
FULL_CUTOFF: Final = 20
USERS_PER_BATCH: Final = 128
"""Number of users whose scores for all items are in memory at once."""
BOOTSTRAP_SAMPLES: Final = 2000
"""Number of resamples for a confidence interval; Efron & Tibshirani recommend at least 1,000."""

ScoreUsers = Callable[[NDArray[np.integer]], Floats]
"""Function that returns the scores of all items, (n, n_items), for user indices (n,). Larger scores rank first."""


@dataclass(frozen=True, slots=True)
class HeldOutTest:
    """Data on which the quality was measured, so that another model can be measured in the same way.

    Parameters
    ----------
    train
        The histories that the measured network was trained on.
    held_out
        The held-out pairs, one per user. The measured network was not trained on these pairs.
    score_users
        Function that scores the catalogue with the measured network.
    gains, popularity_gains
        NDCG@20 of each pair by the measured network and by the popularity ranking, (n_users,) each.
    """

    train: Interactions
    held_out: Interactions
    score_users: ScoreUsers
    gains: NDArray[np.float64]
    popularity_gains: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Quality:
    """Ranking metrics of the users with a held-out item. Each value is between 0 and 1.

    Parameters
    ----------
    hr_at_10, ndcg_at_10
        Means of hit rate and NDCG, for the rank of the held-out item among 99 items that are drawn uniformly from the
        items that the user never interacted with.
    recall_at_20, ndcg_at_20
        Means of recall and NDCG, for the rank of the held-out item among all items that are not in the user's training
        history.
    coverage_at_20
        Share of the catalogue that appears in the top 20 of at least one of these users.
    """

    hr_at_10: float
    ndcg_at_10: float
    recall_at_20: float
    ndcg_at_20: float
    coverage_at_20: float

    def to_json(self) -> dict[str, float]:
        """Return the metrics by name, rounded to six decimals."""
        return {name: round(value, 6) for name, value in asdict(self).items()}


@dataclass(frozen=True, slots=True)
class Ranks:
    """The ranks of held-out items, counted from 1.

    Parameters
    ----------
    full
        Rank in the full catalogue, (n_users,) int64.
    sampled
        Rank among the sampled negatives, (n_users,) int64.
    times_recommended
        For each item, the number of evaluated users whose top 20 contains the item, (n_items,) int64.
    """

    full: NDArray[np.int64]
    sampled: NDArray[np.int64]
    times_recommended: NDArray[np.int64]

    def gains(self) -> NDArray[np.float64]:
        """Return NDCG@20 per user, (n_users,)."""
        return _ndcg(self.full, FULL_CUTOFF)

    def quality(self) -> Quality:
        """Return the metrics of these ranks. Without users, all metrics are 0."""
        return Quality(
            hr_at_10=_mean(self.sampled <= SAMPLED_CUTOFF),
            ndcg_at_10=_mean(_ndcg(self.sampled, SAMPLED_CUTOFF)),
            recall_at_20=_mean(self.full <= FULL_CUTOFF),
            ndcg_at_20=_mean(self.gains()),
            coverage_at_20=_mean(self.times_recommended > 0),
        )


def evaluate(score_users: ScoreUsers, train: Interactions, held_out: Interactions, *, seed: int) -> Ranks:
    """Return the rank of each user's held-out item, and how often each item is in a top 20.

    Parameters
    ----------
    score_users
        Function that scores the whole catalogue for a batch of users. Every user is in exactly one batch.
    train
        The training histories. The items of a user's history are not ranked for this user.
    held_out
        The held-out pairs, one per user, as returned by `Interactions.split_last`.
    seed
        Seed of the sampled negatives.

    Returns
    -------
    Ranks
        Ranks in the order of `held_out`. Items whose score is NaN or equal to the score of the held-out item rank
        before the held-out item, so that ties count against the model.

    Examples
    --------
    >>> interactions = Interactions(["u"], ["a", "b", "c"], np.array([0, 0], "i4"), np.array([0, 2], "i4"))
    >>> train, held_out = interactions.split_last()
    >>> ranks = evaluate(lambda users: np.array([[0.9, 0.7, 0.2]], "f4"), train, held_out, seed=0)
    >>> ranks.full  # "b" ranks before "c", "a" is in the history
    array([2])
    """
    generator = np.random.default_rng(seed)
    starts, items = train.items_by_user()
    full, sampled = [], []
    times_recommended = np.zeros(train.n_items, dtype=np.int64)
    for start in range(0, len(held_out), USERS_PER_BATCH):
        users, targets = (column[start : start + USERS_PER_BATCH] for column in (held_out.users, held_out.items))
        for user, target, scores in zip(users.tolist(), targets.tolist(), score_users(users), strict=True):
            competitors = np.ones(train.n_items, dtype=np.bool_)
            competitors[items[starts[user] : starts[user + 1]]] = False
            times_recommended[_top_items(scores, competitors)] += 1
            competitors[target] = False
            ranked_before = ~(scores < scores[target])
            full.append(1 + np.count_nonzero(ranked_before & competitors))
            sampled.append(1 + np.count_nonzero(ranked_before[_sample_negatives(competitors, generator)]))
    return Ranks(np.array(full, dtype=np.int64), np.array(sampled, dtype=np.int64), times_recommended)


def ndcg_at_20(scores: Floats, seen: Any, held_out: Any) -> NDArray[np.float64]:
    """Return each user's NDCG@20 among the items that the user has not seen, (n,).

    Parameters
    ----------
    scores
        Scores of all items, (n, n_items).
    seen, held_out
        Sparse CSR matrices of the same shape; `held_out` has one or several items per user.

    Returns
    -------
    numpy.ndarray
        Items with equal scores rank before the held-out item, so that ties count against the model.
    """
    n, n_items = scores.shape
    rows = np.repeat(np.arange(n), np.diff(seen.indptr))
    eligible = np.fmax(scores, -np.inf)  # a copy, in which NaN ranks last
    eligible[rows, seen.indices] = -np.inf
    users = np.repeat(np.arange(n), np.diff(held_out.indptr))
    targets = eligible[users, held_out.indices]
    if len(users) > n and n_items > FULL_CUTOFF:  # many held-out items: rank only those in the top 20
        thresholds = np.partition(eligible, n_items - FULL_CUTOFF, axis=1)[:, n_items - FULL_CUTOFF]
        in_top = targets >= thresholds[users]
        users, targets = users[in_top], targets[in_top]
    ranks = np.count_nonzero(eligible[users] >= targets[:, None], axis=1)
    dcgs = np.bincount(users, weights=_ndcg(ranks, FULL_CUTOFF), minlength=n)
    ideal = np.cumsum(_ndcg(np.arange(1, FULL_CUTOFF + 1), FULL_CUTOFF))
    ndcgs: NDArray[np.float64] = dcgs / ideal[np.clip(np.diff(held_out.indptr), 1, FULL_CUTOFF) - 1]
    return ndcgs


def mean_ndcg_at_20(score_users: ScoreUsers, train: Interactions, held_out: Interactions) -> float:
    """Return the mean NDCG@20 over the users of `held_out`, or 0 without users.

    A user may have several held-out items.
    """
    seen, targets = train.to_matrix(), held_out.to_matrix()
    users = np.unique(held_out.users)
    parts = [users[begin : begin + USERS_PER_BATCH] for begin in range(0, len(users), USERS_PER_BATCH)]
    ndcgs = [ndcg_at_20(score_users(part), seen[part], targets[part]) for part in parts]
    return float(np.mean(np.concatenate(ndcgs))) if ndcgs else 0.0


def lift_interval(model: Ranks, baseline: Ranks, *, seed: int) -> tuple[float, float] | None:
    """Return the 95% confidence interval of the model's NDCG@20 divided by the baseline's.

    The interval is computed by the percentile bootstrap over users (Efron & Tibshirani 1993, chapter 13).

    Parameters
    ----------
    model, baseline
        Ranks of the same users in the same order.
    seed
        Seed of the resampling.

    Returns
    -------
    tuple of float or None
        Lower and upper end; None if there is no user or if the baseline's NDCG@20 is 0 in one of the resamples.

    Examples
    --------
    >>> model = Ranks(np.array([1, 1, 2, 5]), np.array([1, 1, 1, 2]), times_recommended=np.array([4, 0]))
    >>> lift_interval(model, model, seed=0)
    (1.0, 1.0)
    """
    generator = np.random.default_rng(seed)
    n_users = len(model.full)
    if n_users == 0:
        return None
    gains = np.stack([model.gains(), baseline.gains()])
    means = np.array([gains[:, generator.integers(0, n_users, n_users)].mean(axis=1) for _ in range(BOOTSTRAP_SAMPLES)])
    if (means[:, 1] == 0).any():
        return None
    low, high = np.quantile(means[:, 0] / means[:, 1], [0.025, 0.975]).tolist()
    return low, high


def _top_items(scores: NDArray[np.floating], eligible: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the 20 eligible items with the largest scores in any order, or all eligible items if there are fewer."""
    if len(scores) <= FULL_CUTOFF:
        return np.flatnonzero(eligible)
    top = np.argpartition(-np.where(eligible, scores, -np.inf), FULL_CUTOFF)[:FULL_CUTOFF]
    return top[eligible[top]]


def _sample_negatives(eligible: NDArray[np.bool_], generator: np.random.Generator) -> NDArray[np.int64]:
    """Draw `N_NEGATIVES` distinct eligible items uniformly, or return all eligible items if there are fewer.

    Rejection sampling is tried first, because it does not have to list all items of a large catalogue.
    """
    draws = generator.integers(0, len(eligible), 4 * N_NEGATIVES)
    _, first = np.unique(draws, return_index=True)
    distinct = draws[np.sort(first)]
    distinct = distinct[eligible[distinct]]
    if len(distinct) >= N_NEGATIVES:
        return distinct[:N_NEGATIVES]
    indices = np.flatnonzero(eligible)
    return generator.choice(indices, min(N_NEGATIVES, len(indices)), replace=False)


def _ndcg(ranks: NDArray[np.int64], cutoff: int) -> NDArray[np.float64]:
    return np.where(ranks <= cutoff, 1 / np.log2(ranks + 1.0), 0.0)


def _mean(values: NDArray[np.bool_] | NDArray[np.float64]) -> float:
    return float(np.mean(values)) if len(values) else 0.0
