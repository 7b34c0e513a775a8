"""Compare a new version with the current one, to prevent a bad file from replacing a good model.

A version that is clearly worse is held, which means that it is stored but does not serve. Noise is tolerated, so that a
regular retraining on newer data is not held.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from itertools import compress, pairwise
from typing import Any, Final, NamedTuple

import numpy as np
import scipy.special
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys.model.recommender import ServingModel
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.evaluation import HeldOutTest, ScoreUsers, evaluate
from recsys_train.fitting.scoring import score_histories

MAX_LOST_SHARE: Final = 0.5
"""Share of the current version's users, or items, that a new version may lose."""
MIN_COMPARED_USERS: Final = 20
"""With fewer users, rankings are not compared, neither with the current version nor with popularity."""
TOLERATED_DROP: Final = 0.1
"""Relative drop of NDCG@20 for which a version is never held. The margin compensates for an advantage of the current
network, which was also trained on the last interactions of users who are not compared. The measured network of the new
version was not trained on those interactions. Not tuned.
"""
SIGNIFICANCE: Final = 0.005
"""Probability that an equally good version is held because of noise. It amounts to one in 200 retrainings."""

Reason = dict[str, str]
"""Reason why a version is held, with the members `code` and `text`."""


class SameUsers(NamedTuple):
    """NDCG@20 per user of both versions on the same held-out pairs, (n_users,) each."""

    new: NDArray[np.float64]
    current: NDArray[np.float64]


def compare(
    interactions: Interactions,
    test: HeldOutTest,
    metrics: dict[str, Any],
    current: ServingModel,
    current_metrics: dict[str, Any],
    *,
    erased_users: Container[str] | None = None,
) -> tuple[dict[str, Any], list[Reason]]:
    """Compare a new version with the current one of its key.

    Parameters
    ----------
    interactions
        The data of the new version.
    test, metrics
        Data on which the new version was measured, and the contents of the new version's `metrics.json`.
    current, current_metrics
        The current version, and the metrics that the registry stores for it.
    erased_users
        Users whom the new version must not contain. These users, and items with which only these users interacted, do
        not count as lost.

    Returns
    -------
    figures : dict
        Counts and metrics of the versions, under `current` and `new`. They are stored with the job.
    reasons : list of Reason
        Reasons to hold the new version. Empty if the new version may become current.
    """
    same_users = rank_same_users(interactions, test, current)
    users, items = _without_erased(current, erased_users)
    figures = {
        "current": _figures(users, items, current_metrics) | {"version": current.version},
        "new": _figures(interactions.user_ids, interactions.item_ids, metrics)
        | {
            "users_kept": _n_kept(users, interactions.user_ids),
            "items_kept": _n_kept(items, interactions.item_ids),
        },
    }
    for name, gains in (("current", same_users.current), ("new", same_users.new)):
        mean = round(float(gains.mean()), 6) if len(gains) else None
        figures[name] |= {"compared_users": len(gains), "compared_ndcg_at_20": mean}
    return figures, [*_losses(figures), *_quality(test, metrics, current_metrics), *_ranking(same_users)]


def rank_same_users(interactions: Interactions, test: HeldOutTest, current: ServingModel) -> SameUsers:
    """Measure the new and the current network on the same held-out items.

    The held-out items are ranked among the items that both versions contain. Both networks get the same history of each
    user, taken from the new data. A user is left out if the current version was trained on the held-out pair, does not
    contain the held-out item, or contains no item of the history. Otherwise the comparison would favour one version.
    """
    current_index = {item_id: index for index, item_id in enumerate(current.items)}
    index = np.array([current_index.get(item_id, -1) for item_id in interactions.item_ids], dtype=np.int64)
    starts, items = test.train.items_by_user()
    histories = [index[items[begin:end]] for begin, end in pairwise(starts.tolist())]
    held_out = test.held_out
    is_compared = np.array(
        [
            index[item] >= 0
            and bool((histories[user] >= 0).any())
            and not _was_seen(current, interactions.user_ids[user], int(index[item]))
            for user, item in zip(held_out.users.tolist(), held_out.items.tolist(), strict=True)
        ],
        dtype=np.bool_,
    )
    compared = held_out[is_compared]
    new = evaluate(_among_common(test.score_users, index), test.train, compared, seed=0)
    old = evaluate(_current_scores(current, histories, index), test.train, compared, seed=0)
    return SameUsers(new.gains(), old.gains())


def ranks_significantly_worse(new: NDArray[np.float64], baseline: NDArray[np.float64]) -> bool:
    """Return whether the new version ranks significantly worse, by a one-sided paired t-test.

    The test tolerates a relative drop of the mean NDCG@20 by `TOLERATED_DROP`.

    Parameters
    ----------
    new, baseline
        NDCG@20 per user, (n_users,) float64 each. `new` belongs to the new version, `baseline` to the current version
        or to popularity.

    Returns
    -------
    bool
        Whether the new version is significantly worse. False if there are fewer than `MIN_COMPARED_USERS` users.

    Examples
    --------
    >>> good, bad = np.tile([1.0, 0.5, 0.0, 0.6], 10), np.tile([0.3, 0.0, 0.0, 0.1], 10)
    >>> ranks_significantly_worse(bad, good), ranks_significantly_worse(0.95 * good, good)
    (True, False)
    """
    n_users = len(new)
    if n_users < MIN_COMPARED_USERS:
        return False
    differences = new - (1 - TOLERATED_DROP) * baseline
    error = differences.std(ddof=1) / np.sqrt(n_users)
    if error == 0:
        return bool(differences.mean() < 0)
    return bool(scipy.special.stdtr(n_users - 1, differences.mean() / error) < SIGNIFICANCE)


def _losses(figures: dict[str, Any]) -> list[Reason]:
    reasons = []
    for noun in ("users", "items"):
        before, kept = figures["current"][noun], figures["new"][f"{noun}_kept"]
        if kept < (1 - MAX_LOST_SHARE) * before:
            reasons.append(
                _reason(
                    f"loses-{noun}",
                    f"The file has {kept:,} of the {before:,} {noun} of the current version. Send the complete "
                    f"history, and check that the {noun[:-1]} ids have the same form as in earlier files.",
                )
            )
    return reasons


def _quality(test: HeldOutTest, metrics: dict[str, Any], current_metrics: dict[str, Any]) -> list[Reason]:
    """Return the reasons that result from comparing the new version with popularity.

    With few users, the 95% interval of the lift over popularity is too narrow, and is not used. For example, if most of
    five users have an NDCG@20 above 0, the interval lies below 1 for one in ten versions that are as good as
    popularity.
    """
    new, current = _lift(metrics), _lift(current_metrics)
    if ranks_significantly_worse(test.gains, test.popularity_gains) and not (current and current[1] < 1):
        return [
            _reason(
                "worse-than-popularity",
                f"For {len(test.gains):,} users, the version reaches an NDCG@20 of {test.gains.mean():.4f}, and plain "
                f"popularity reaches {test.popularity_gains.mean():.4f}. "
                "Check that each row has the user and the item of one interaction.",
            )
        ]
    if new is None or len(test.gains) < MIN_COMPARED_USERS:
        return []
    if current and current[0] > 1 and new[0] <= 1 and new[1] < (1 - TOLERATED_DROP) * current[0]:
        return [
            _reason(
                "no-better-than-popularity",
                f"The version ranks no better than plain popularity. Its lift is between {new[0]} and {new[1]}, and "
                f"the lift of the current version is between {current[0]} and {current[1]}. Check that each row has "
                "the user and the item of one interaction.",
            )
        ]
    return []


def _lift(metrics: dict[str, Any]) -> tuple[float, float] | None:
    """Return the 95% interval of the lift over popularity, or None if it is unknown."""
    interval = metrics.get("lift_interval_95")
    return (interval[0], interval[1]) if interval else None


def _ranking(same_users: SameUsers) -> list[Reason]:
    if not ranks_significantly_worse(same_users.new, same_users.current):
        return []
    new, current = same_users.new.mean(), same_users.current.mean()
    return [
        _reason(
            "worse-than-current",
            f"On the same {len(same_users.new):,} held-out interactions, the version reaches an NDCG@20 of {new:.4f}, "
            f"and the current version reaches {current:.4f}. Check that the file is complete.",
        )
    ]


def _reason(code: str, text: str) -> Reason:
    return {"code": code, "text": text}


def _figures(users: Sequence[str], items: Sequence[str], metrics: dict[str, Any]) -> dict[str, Any]:
    return {
        "users": len(users),
        "items": len(items),
        "ndcg_at_20": metrics.get("quality", {}).get("ndcg_at_20"),
        "lift_over_popularity": metrics.get("lift_over_popularity"),
        "lift_interval_95": metrics.get("lift_interval_95"),
    }


def _without_erased(current: ServingModel, erased_users: Container[str] | None) -> tuple[Sequence[str], Sequence[str]]:
    """Return the users and items of the current version, without the data of erased users.

    An item with which only erased users interacted is left out.
    """
    if erased_users is None:
        return current.users, current.items
    users = list(current.users)
    kept = np.array([user not in erased_users for user in users], dtype=np.bool_)
    items = np.unique(current.seen_items[np.repeat(kept, np.diff(current.seen_starts))])
    return list(compress(users, kept.tolist())), current.items.at(items)


def _n_kept(current: Sequence[str], new: Sequence[str]) -> int:
    known = set(new)
    return sum(each in known for each in current)


def _was_seen(current: ServingModel, user_id: str, item_index: int) -> bool:
    row = current.users.find(user_id)
    return row is not None and bool((current.seen(row) == item_index).any())


def _among_common(score_users: ScoreUsers, index: NDArray[np.int64]) -> ScoreUsers:
    """Return a scoring function that ranks an item last if the current version does not contain the item."""
    return lambda users: np.where(index >= 0, score_users(users), np.float32(-np.inf))


def _current_scores(current: ServingModel, histories: list[NDArray[np.int64]], index: NDArray[np.int64]) -> ScoreUsers:
    """Return a function that scores the items of the new data with the current network.

    The function ranks an item last if the current version does not contain the item.
    """

    def score_users(users: NDArray[np.integer]) -> Floats:
        known = [histories[user][histories[user] >= 0].astype(np.int32) for user in users.tolist()]
        logits = score_histories(current.network, known)
        scores = np.full((len(users), len(index)), -np.inf, dtype=np.float32)
        scores[:, index >= 0] = logits[:, index[index >= 0]]
        return scores

    return score_users
