"""Compute the quality per length of the user's history and per popularity of the held-out item.

A mean over all users hides for which users a model ranks well. Users with long histories are easier to rank for than
new users, and a model that recommends only popular items never finds a rare item.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys_train.data.interactions import Interactions
from recsys_train.fitting.evaluation import FULL_CUTOFF, Ranks

HISTORY_LENGTHS: Final = (1, 2, 3, 5, 10, 20, 50, 100, 200)
"""Shortest history length of each row of the table. The lengths are fixed, so that versions can be compared. They are
about evenly spaced on a logarithmic scale, because most histories are short and a few are long."""
POPULARITY_GROUPS: Final = 5
"""Number of groups of items. All groups have about the same number of interactions, as in the partition of a long tail
into head and tail items (Park & Tuzhilin, "The Long Tail of Recommender Systems", 2008)."""


@dataclass(frozen=True, slots=True)
class HistoryRow:
    """Quality for users whose training history has between `shortest` and `longest` items.

    `longest` is None in the row that has no upper limit.

    Parameters
    ----------
    users
        Number of measured users.
    recall_at_20, ndcg_at_20
        Means over these users, see `evaluation.Quality`.
    popularity_recall_at_20, popularity_ndcg_at_20
        Means over these users for the popularity ranking.
    """

    shortest: int
    longest: int | None
    users: int
    recall_at_20: float
    ndcg_at_20: float
    popularity_recall_at_20: float
    popularity_ndcg_at_20: float


@dataclass(frozen=True, slots=True)
class PopularityRow:
    """Quality for the held-out items of one popularity group. The first group has the most popular items.

    Parameters
    ----------
    items, most_users, fewest_users
        Number of items in the group, and the largest and the smallest number of users per item.
    held_out
        Number of users whose held-out item is in the group.
    recall_at_20, ndcg_at_20, popularity_recall_at_20, popularity_ndcg_at_20
        Means over these users for the model and for the popularity ranking; 0 if there are no such users.
    share_of_interactions, share_of_recommendations
        Share of the training interactions, and of the top-20 recommendations to all measured users, that belong to
        items of the group.
    coverage_at_20
        Share of the items of the group that are in the top 20 of at least one measured user.
    """

    items: int
    most_users: int
    fewest_users: int
    held_out: int
    recall_at_20: float
    ndcg_at_20: float
    popularity_recall_at_20: float
    popularity_ndcg_at_20: float
    share_of_interactions: float
    share_of_recommendations: float
    coverage_at_20: float


@dataclass(frozen=True, slots=True)
class Breakdowns:
    """Tables of the quality by history length and by item popularity.

    Ranges of history lengths without users and popularity groups without items have no row.
    """

    history_length: tuple[HistoryRow, ...]
    item_popularity: tuple[PopularityRow, ...]

    def to_json(self) -> dict[str, list[dict[str, Any]]]:
        """Return the tables by name, with shares and metrics rounded to six decimals."""
        return {
            "history_length": [_rounded(asdict(row)) for row in self.history_length],
            "item_popularity": [_rounded(asdict(row)) for row in self.item_popularity],
        }


def break_down(model: Ranks, popularity: Ranks, train: Interactions, held_out: Interactions) -> Breakdowns:
    """Compute the quality of the model and of the popularity ranking for each group of users and of items.

    Parameters
    ----------
    model, popularity
        Ranks of the held-out items by the model and by popularity, in the order of `held_out`.
    train
        The training histories, which determine the groups of users and of items.
    held_out
        The held-out pairs, one per user.

    Examples
    --------
    >>> users, items = np.array([0, 1, 1, 0], "i4"), np.array([0, 0, 1, 1], "i4")
    >>> train, held_out = Interactions(["u", "v"], ["a", "b"], users, items).split_last()
    >>> ranks = Ranks(np.array([1, 1]), np.array([1, 1]), times_recommended=np.array([1, 1]))
    >>> [(row.shortest, row.users) for row in break_down(ranks, ranks, train, held_out).history_length]
    [(1, 2)]
    """
    return Breakdowns(
        _by_history_length(model, popularity, train, held_out), _by_item_popularity(model, popularity, train, held_out)
    )


def _by_history_length(
    model: Ranks, popularity: Ranks, train: Interactions, held_out: Interactions
) -> tuple[HistoryRow, ...]:
    lengths = np.bincount(train.users, minlength=train.n_users)[held_out.users]
    rows = []
    longest_in_rows: list[int | None] = [shortest - 1 for shortest in HISTORY_LENGTHS[1:]]
    for shortest, longest in zip(HISTORY_LENGTHS, [*longest_in_rows, None], strict=True):
        is_inside = lengths >= shortest
        if longest is not None:
            is_inside &= lengths <= longest
        if is_inside.any():
            rows.append(HistoryRow(shortest, longest, int(is_inside.sum()), **_quality(model, popularity, is_inside)))
    return tuple(rows)


def _by_item_popularity(
    model: Ranks, popularity: Ranks, train: Interactions, held_out: Interactions
) -> tuple[PopularityRow, ...]:
    counts = train.users_per_item()
    groups = _popularity_groups(counts)
    n_recommended = max(1, int(model.times_recommended.sum()))
    rows = []
    for group in range(POPULARITY_GROUPS):
        is_member = groups == group
        if not is_member.any():
            continue
        is_inside = is_member[held_out.items]
        rows.append(
            PopularityRow(
                items=int(is_member.sum()),
                most_users=int(counts[is_member].max()),
                fewest_users=int(counts[is_member].min()),
                held_out=int(is_inside.sum()),
                **_quality(model, popularity, is_inside),
                share_of_interactions=float(counts[is_member].sum() / max(1, counts.sum())),
                share_of_recommendations=float(model.times_recommended[is_member].sum() / n_recommended),
                coverage_at_20=float((model.times_recommended[is_member] > 0).mean()),
            )
        )
    return tuple(rows)


def _popularity_groups(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the popularity group of each item, (n_items,).

    Items are sorted by `counts`, the number of users per item, in descending order. The interactions in this order are
    divided into groups of equal size, and an item belongs to the group that contains the middle one of its
    interactions.
    """
    order = np.argsort(-counts, kind="stable")
    middles = np.cumsum(counts[order]) - counts[order] / 2
    groups = np.empty(len(counts), dtype=np.int64)
    groups[order] = np.minimum(POPULARITY_GROUPS * middles // max(1, counts.sum()), POPULARITY_GROUPS - 1)
    return groups


def _quality(model: Ranks, popularity: Ranks, is_inside: NDArray[np.bool_]) -> dict[str, float]:
    """Return the mean metrics of both rankings over the selected users, keyed by the field names of a row."""
    return {
        f"{prefix}{name}": float(values[is_inside].mean()) if is_inside.any() else 0.0
        for prefix, ranks in (("", model), ("popularity_", popularity))
        for name, values in (("recall_at_20", ranks.full <= FULL_CUTOFF), ("ndcg_at_20", ranks.gains()))
    }


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in row.items()}
