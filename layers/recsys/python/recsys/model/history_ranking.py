"""Rank the items of a model together with new items for one user, and limit the share of new items in the list.

New items are items without interactions. All items are ranked by their logits. A list of n items contains at most
`exploration * n` new items, rounded down. If too few other items are eligible, further new items fill the list.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.model.choosing import Constraints, GroupLimit, Ranking, choose
from recsys.model.neumf import ItemIndices, Network, User, sigmoid
from recsys.model.new_items import NewItems, StackedRows, merged
from recsys.model.pruned_search import Bounds
from recsys.model.top_n import best_items


class HistoryRanking(NamedTuple):
    """A user and the items to rank for the user. `best` computes the ranking.

    Parameters
    ----------
    network, bounds, new_items
        The same as in `ServingModel`.
    user
        The user's part of every logit, as returned by `network.user`.
    excluded
        Indices of items that are never returned, (n_excluded,); they may repeat.
    candidates
        Indices of the only items to rank, (n_candidates,). None means all items.
    """

    network: Network
    bounds: Bounds
    new_items: NewItems | None
    user: User
    excluded: ItemIndices
    candidates: ItemIndices | None

    def best(self, n: int, constraints: Constraints) -> Ranking:
        """Return the `n` best items under constraints, and their logits.

        Parameters
        ----------
        n
            Length of the list, at least 0. It is shorter if fewer items are left.
        constraints
            The constraints. In masks and arrays of groups, one entry per item of the model is followed by one entry per
            new item.
        """
        most = 0 if self.new_items is None else int(constraints.exploration * n)
        items, logits = self._with_at_most(most, n, constraints)
        if len(items) < n and self.new_items is not None and constraints.exploration > 0:
            most = n - int(np.count_nonzero(items < self.network.n_items))
            items, logits = self._with_at_most(most, n, constraints)
        return items, logits

    def _with_at_most(self, n_new: int, n: int, constraints: Constraints) -> Ranking:
        """Return the `n` best items, of which at most `n_new` are new."""
        table = embeddings_of(self.network, self.new_items)
        if n_new == 0:
            return choose(self._rank_known, n, constraints, table, to_relevance=sigmoid)
        if not constraints.limits and not constraints.diversity:
            return self._rank_all(n, constraints.eligible, n_new=n_new)
        if n_new < n:
            groups = np.full(table.n_rows, -1, dtype=np.int32)
            groups[self.network.n_items :] = 0
            constraints = constraints._replace(limits=(*constraints.limits, GroupLimit(groups, n_new)))
        return choose(self._rank_all, n, constraints, table, to_relevance=sigmoid)

    def _rank_known(self, n: int, eligible: NDArray[np.bool_] | None) -> Ranking:
        """Return the `n` best items of the model, without new items."""
        if self.new_items is None:
            excluded, candidates = self.excluded, self.candidates
        else:
            excluded, candidates = self._within(0, self.network.n_items)
            eligible = None if eligible is None else eligible[: self.network.n_items]
        return best_items(
            self.network, self.bounds, self.user, n, excluded=excluded, candidates=candidates, eligible=eligible
        )

    def _rank_all(self, n: int, eligible: NDArray[np.bool_] | None, n_new: int | None = None) -> Ranking:
        """Return the `n` best of the model's items and the `n_new` best new items together.

        `n_new` defaults to `n`.
        """
        known = self._rank_known(n, eligible)
        if self.new_items is None:
            return known
        n_known = self.network.n_items
        excluded, candidates = self._within(n_known, n_known + len(self.new_items.items))
        new = best_items(
            self.new_items.network,
            self.new_items.bounds,
            self.user,
            n if n_new is None else n_new,
            excluded=excluded,
            candidates=candidates,
            eligible=None if eligible is None else eligible[n_known:],
        )
        return merged(known, new, n, n_known=n_known)

    def _within(self, begin: int, end: int) -> tuple[ItemIndices, ItemIndices | None]:
        """Apply `items_within` to the excluded items and to the candidates. Candidates of None remain None."""
        return items_within(self.excluded, begin, end), (
            None if self.candidates is None else items_within(self.candidates, begin, end)
        )


def items_within(indices: ItemIndices, begin: int, end: int) -> ItemIndices:
    """Select the item indices from `begin` to `end - 1`, and subtract `begin` from each selected index."""
    within: ItemIndices = indices[(indices >= begin) & (indices < end)] - begin
    return within


def embeddings_of(network: Network, new_items: NewItems | None) -> StackedRows:
    """Return the GMF embeddings of the model's items, followed by those of the new items."""
    known = network.item_gmf
    return StackedRows(known, known[:0] if new_items is None else new_items.network.item_gmf)
