"""Choose the items of a list from a ranking, with limits per group and a preference for diversity.

Without limits and diversity, the list is the beginning of the ranking of the eligible items. A group consists of items
with a common attribute, such as the same category.

**Limits** are exact and greedy. The ranking is read from its beginning, and an item is left out if its group is full,
that is, if the list already contains the permitted number of items of the group. The ranking is computed in parts.
Items of full groups are not eligible for the next part. Therefore every part adds items until the ranking ends.

**Diversity** is maximal marginal relevance (Carbonell & Goldstein, "The use of MMR, diversity-based reranking for
reordering documents and producing summaries", SIGIR 1998). The next item maximises

    (1 - diversity) * relevance  -  diversity * largest cosine similarity to an item of the list

over the best items of the ranking, 5 n but at least 100, where n is the length of the list. Relevance is the score,
divided by the score of the best item. Similarity is computed from the items' GMF embeddings.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats, ItemIndices
from recsys.model.new_items import StackedRows

_POOL_FACTOR: Final = 5
_MIN_POOL: Final = 100
"""The pool has `_POOL_FACTOR * n` items, and at least `_MIN_POOL`. Items after the best `5 * n` are rarely relevant
enough to be chosen for their diversity. Not tuned."""
_MASKED: Final = -np.inf

Ranking = tuple[ItemIndices, Floats]
"""Item indices, best first, and the values by which the items are ranked, (n,) each."""
Rank = Callable[[int, NDArray[np.bool_] | None], Ranking]
"""Function that takes a number n of items and a mask of the eligible items, (n_items,) bool, and returns the n best
eligible items. The mask is None if all items are eligible."""


class GroupLimit(NamedTuple):
    """A rule that a list contains at most `most` items of each group, such as of each category.

    `groups` (n_items,) int32 holds the group of each item, or -1 for an item without a group.
    """

    groups: NDArray[np.int32]
    most: int


class Constraints(NamedTuple):
    """Constraints on a list of recommendations.

    Parameters
    ----------
    eligible
        Mask of the items that the list may contain, (n_items,) bool. None means all items.
    limits
        Limits per group.
    diversity
        Weight of diversity compared with relevance, in [0, 1]. 0 keeps the order of the ranking.
    exploration
        Largest share of new items in the list, in [0, 1]; see `recsys.model.history_ranking`.
    """

    eligible: NDArray[np.bool_] | None = None
    limits: tuple[GroupLimit, ...] = ()
    diversity: float = 0.0
    exploration: float = 0.0


UNCONSTRAINED: Final = Constraints()


class _Chosen:
    """The items chosen so far, and the number of chosen items per group."""

    def __init__(self, limits: tuple[GroupLimit, ...]) -> None:
        self.limits = limits
        self.items: list[int] = []
        self.values: list[float] = []
        self.counts: list[dict[int, int]] = [{} for _ in limits]

    def fits(self, item: int) -> bool:
        """Return whether the item can be added because none of its groups has reached its limit."""
        return all(
            (group := int(limit.groups[item])) < 0 or counts.get(group, 0) < limit.most
            for limit, counts in zip(self.limits, self.counts, strict=True)
        )

    def add(self, item: int, value: float) -> None:
        """Append an item and the value by which the item is ranked."""
        self.items.append(item)
        self.values.append(value)
        for limit, counts in zip(self.limits, self.counts, strict=True):
            group = int(limit.groups[item])
            counts[group] = counts.get(group, 0) + 1

    def remaining(self, eligible: NDArray[np.bool_] | None, n_items: int) -> NDArray[np.bool_]:
        """Return a mask of the eligible items that can still be added, (n_items,).

        Chosen items and items of full groups are left out.
        """
        mask = np.ones(n_items, dtype=np.bool_) if eligible is None else eligible.copy()
        mask[self.items] = False
        for limit, counts in zip(self.limits, self.counts, strict=True):
            full = [group for group, count in counts.items() if group >= 0 and count >= limit.most]
            if full:
                is_full = np.zeros(int(limit.groups.max()) + 2, dtype=np.bool_)
                is_full[full] = True  # the last entry belongs to the group -1, which is never full
                mask &= ~is_full[limit.groups]
        return mask


def choose(
    rank: Rank,
    n: int,
    constraints: Constraints,
    embeddings: StackedRows,
    *,
    to_relevance: Callable[[Floats], Floats],
) -> Ranking:
    """Choose `n` items under constraints.

    Parameters
    ----------
    rank
        Function that takes a number n of items and a mask of the eligible items, (n_items,) bool, and returns the
        indices and the values of the n best eligible items, (n,) each. The mask is None if all items are eligible.
    n
        Length of the list, at least 0. It is shorter if fewer items fulfil the constraints.
    constraints
        The constraints.
    embeddings
        Embedding of each item. The similarity of two items is computed from their embeddings.
    to_relevance
        Function that takes values of the ranking, (n,) float32, and returns the scores of the items, (n,) in [0, 1].

    Returns
    -------
    Ranking
        The chosen items in the order of the list, and the values by which they are ranked.
    """
    if n == 0 or (not constraints.limits and not constraints.diversity):
        return rank(n, constraints.eligible)
    n_pool = max(_MIN_POOL, _POOL_FACTOR * n)
    chosen = _Chosen(constraints.limits)
    eligible, best_score = constraints.eligible, 0.0
    while len(chosen.items) < n:
        pool, values = rank(n_pool, eligible)
        n_before = len(chosen.items)
        if constraints.diversity and len(pool):
            scores = to_relevance(values).astype(np.float64)
            best_score = best_score or float(scores.max()) or 1.0
            _add_diverse(chosen, n, pool, values, scores / best_score, embeddings, constraints.diversity)
        else:
            _add_best(chosen, n, pool, values)
        if len(pool) < n_pool or len(chosen.items) == n_before:
            break
        eligible = chosen.remaining(constraints.eligible, embeddings.n_rows)
    return np.array(chosen.items, dtype=np.int64), np.array(chosen.values, dtype=np.float32)


def _add_best(chosen: _Chosen, n: int, pool: ItemIndices, values: Floats) -> None:
    for item, value in zip(pool.tolist(), values.tolist(), strict=True):
        if len(chosen.items) == n:
            return
        if chosen.fits(item):
            chosen.add(item, value)


def _add_diverse(
    chosen: _Chosen,
    n: int,
    pool: ItemIndices,
    values: Floats,
    relevance: NDArray[np.float64],
    embeddings: StackedRows,
    diversity: float,
) -> None:
    """Add items of the pool by maximal marginal relevance, until `n` items are chosen or no item fits."""
    unit = _unit_rows(embeddings.take(pool))
    similarity = np.zeros(len(pool))
    if chosen.items:
        similarity = np.maximum((unit @ _unit_rows(embeddings.take(chosen.items)).T).max(axis=1), 0)
    gain = (1 - diversity) * relevance
    is_left = np.ones(len(pool), dtype=np.bool_)
    while len(chosen.items) < n and is_left.any():
        best = int(np.argmax(np.where(is_left, gain - diversity * similarity, _MASKED)))
        is_left[best] = False
        item = int(pool[best])
        if chosen.fits(item):
            chosen.add(item, float(values[best]))
            similarity = np.maximum(similarity, unit @ unit[best])


def _unit_rows(rows: Floats) -> NDArray[np.float64]:
    """Return the rows scaled to norm 1. A row of zeros is unchanged."""
    exact = rows.astype(np.float64)
    norms = np.sqrt(np.square(exact).sum(axis=1, keepdims=True))
    return exact / np.where(norms > 0, norms, 1.0)
