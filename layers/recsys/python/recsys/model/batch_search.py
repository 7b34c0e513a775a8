"""Find the top-n items of many users at once, with the bounds of `recsys.model.pruned_search` and matrix products.

A matrix-vector product waits for memory; the product with many users' vectors does not. All that follows it is done for
the pairs of a whole block of users, since a step for each user alone would cost more than the product.

Items come in chunks, those with the longest GMF rows first. What the first chunk holds says how good the n-th best item
is at least; and since gmf <= |user| |item|, a user is done where no row that follows is long enough for that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats, Network, User
from recsys.model.pruned_search import Bounds, ItemIndices, best_items, gamma, mlp_parts

MAX_USERS: Final = 2048
"""Users at a time: the more there are, the less often items are read, and the more GMF parts are in memory."""
_FIRST_CHUNK: Final = 8192
_CHUNK: Final = 2048
"""Items at a time; with that many users, 64 and 16 MiB of GMF parts."""
_MAX_LEFT: Final = 2048
"""Of items that are left for a user; whoever has more is asked for alone."""
_GROUPS: Final = 256


@dataclass(frozen=True, slots=True, eq=False)
class NormSortedItems:
    """The items of a network, those with the longest GMF rows first.

    order (n_items,) int64 is the item at each place, places (n_items,) int64 the place of each item, norms (n_items,)
    float32 the norm of the row at each place, rounded up.
    """

    network: Network
    bounds: Bounds
    order: ItemIndices
    places: ItemIndices
    norms: Floats

    @classmethod
    def of(cls, network: Network, bounds: Bounds) -> Self:
        """Takes about as long as some users alone."""
        norms = _norms(network.item_gmf)
        order = np.argsort(-norms)
        places = np.empty_like(order)
        places[order] = np.arange(len(order))
        return cls(network, bounds, order, places, norms[order])


def _norms(rows: Floats) -> Floats:
    """The norm of each row, rounded up; (n_rows,) float32."""
    norms: Floats = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms * np.float32(1 + gamma(rows.shape[1] + 8))


def best_items_of_each(
    catalogue: NormSortedItems, users: Sequence[User], n: int, *, excluded: Sequence[ItemIndices]
) -> list[tuple[ItemIndices, Floats]]:
    """What `recsys.model.pruned_search.best_items` gives for each user and what is excluded there."""
    if not users or n == 0:
        return [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)) for _ in users]
    network, bounds = catalogue.network, catalogue.bounds
    block = _Block.of(users, catalogue, excluded)
    margins = 2 * bounds.error(block.users)
    pairs, is_left_out = _prune(catalogue, block, n, margins)
    logits = pairs.gmf + mlp_parts(network, block.users.mlp[pairs.users], pairs.items)
    pairs = pairs.where(logits >= (_nth_largest(logits, pairs.users, n, len(users)) - margins)[pairs.users])
    exact = network.exact_pair_logits(block.users, pairs.users, pairs.items)
    order = np.lexsort((pairs.items, -exact, pairs.users))
    starts = np.searchsorted(pairs.users, np.arange(len(users) + 1))
    chosen = [order[starts[place] : starts[place + 1]][:n] for place in range(len(users))]
    return [
        best_items(network, bounds, user, n, excluded=excluded[place])
        if is_left_out[place]
        else (pairs.items[chosen[place]], exact[chosen[place]])
        for place, user in enumerate(users)
    ]


@dataclass(frozen=True, slots=True, eq=False)
class _Block:
    """Users together: `users` holds one per row.

    What they do not get are pairs of a user and an item's place, (n_excluded,) both; places rise.
    """

    users: User
    excluded_users: NDArray[np.int64]
    excluded_places: ItemIndices

    @classmethod
    def of(cls, users: Sequence[User], catalogue: NormSortedItems, excluded: Sequence[ItemIndices]) -> Self:
        """Of the users and the items excluded for each."""
        together = User(np.array([user.gmf for user in users]), np.array([user.mlp for user in users]))
        owners = np.repeat(np.arange(len(users)), [len(rows) for rows in excluded])
        places = catalogue.places[np.concatenate(excluded)]
        order = np.argsort(places)
        return cls(together, owners[order], places[order])

    def in_order(self, order: NDArray[np.int64]) -> Self:
        """The same users, each at another row."""
        row_of = np.empty_like(order)
        row_of[order] = np.arange(len(order))
        users = User(self.users.gmf[order], self.users.mlp[order])
        return replace(self, users=users, excluded_users=row_of[self.excluded_users])

    def gmf_parts(self, catalogue: NormSortedItems, n_users: int, begin: int, end: int, memory: Floats) -> Floats:
        """GMF parts of the first users' logits for a chunk's items, in `memory`; -inf where an item is excluded."""
        gmf = memory[: n_users * (end - begin)].reshape(n_users, end - begin)
        np.matmul(self.users.gmf[:n_users], catalogue.network.item_gmf[catalogue.order[begin:end]].T, out=gmf)
        here = slice(*np.searchsorted(self.excluded_places, (begin, end)))
        rows, columns = self.excluded_users[here], self.excluded_places[here] - begin
        gmf[rows[rows < n_users], columns[rows < n_users]] = -np.inf
        return gmf


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Users (rows of their block) and items, and the GMF parts of their logits; all (n_pairs,)."""

    users: NDArray[np.int64]
    items: ItemIndices
    gmf: Floats

    @classmethod
    def of(cls, parts: Sequence[Self]) -> Self:
        """All parts together, users rising."""
        users = np.concatenate([part.users for part in parts])
        items, gmf = np.concatenate([part.items for part in parts]), np.concatenate([part.gmf for part in parts])
        order = np.argsort(users, kind="stable")
        return cls(users[order], items[order], gmf[order])

    def where(self, kept: NDArray[np.bool_]) -> Self:
        """Some of them."""
        return replace(self, users=self.users[kept], items=self.items[kept], gmf=self.gmf[kept])


def _prune(
    catalogue: NormSortedItems, block: _Block, n: int, margins: NDArray[np.float64]
) -> tuple[_Pairs, NDArray[np.bool_]]:
    """Pairs whose item can still be among the user's `n` best, and which users were left out."""
    network, bounds = catalogue.network, catalogue.bounds
    n_users, n_first = len(margins), min(_FIRST_CHUNK, network.n_items)
    memory = np.empty(n_users * max(n_first, _CHUNK), dtype=np.float32)
    gmf = block.gmf_parts(catalogue, n_users, 0, n_first, memory)
    floors = _floors(catalogue, block, n, gmf) - margins
    tops = np.array([network.mlp_outputs(half + bounds.centres) for half in block.users.mlp])
    lowest = floors - (tops + bounds.reach).max(axis=1)
    shortest = _shortest_rows(lowest, block.users.gmf)
    # Users who are done later come first: each chunk is for the first ones.
    order = np.argsort(shortest)
    ordered = block.in_order(order)
    users = np.arange(n_users)
    n_left = np.where(floors == np.inf, _MAX_LEFT + 1, 0)
    parts = []
    for begin, end in pairwise([0, *range(n_first, network.n_items, _CHUNK), network.n_items]):
        if begin > 0:
            users = order[: np.count_nonzero(shortest <= catalogue.norms[begin])]
            if len(users) == 0:
                break
            gmf = ordered.gmf_parts(catalogue, len(users), begin, end, memory)
        rows, columns, n_reached = _indices_above(gmf, np.where(n_left > _MAX_LEFT, np.inf, lowest)[users])
        pairs = _Pairs(users[rows], catalogue.order[begin + columns], gmf[rows, columns])
        uppers = pairs.gmf + tops[pairs.users, bounds.cluster[pairs.items]] + bounds.slack[pairs.items]
        parts.append(pairs.where(uppers >= floors[pairs.users]))
        n_left += np.bincount(parts[-1].users, minlength=len(n_left))
        n_left[users[n_reached > _MAX_LEFT]] = _MAX_LEFT + 1
    is_left_out = n_left > _MAX_LEFT
    pairs = _Pairs.of(parts)
    return pairs.where(~is_left_out[pairs.users]), is_left_out


def _shortest_rows(lowest: NDArray[np.float64], users: Floats) -> NDArray[np.float64]:
    """The norm that a row needs at least to have a product of `lowest` with each user, (n_users,)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.nan_to_num(lowest / _norms(users), nan=-np.inf, posinf=np.inf, neginf=-np.inf)


def _floors(catalogue: NormSortedItems, block: _Block, n: int, gmf: Floats) -> NDArray[np.float64]:
    """At most the n-th best logit of each user, (n_users,), by the first chunk; inf where it holds too few."""
    firsts = _at_most_nth_largest(gmf, n)
    users, columns, _ = _indices_above(gmf, np.where(firsts == -np.inf, np.inf, firsts))
    logits = gmf[users, columns] + mlp_parts(catalogue.network, block.users.mlp[users], catalogue.order[columns])
    return _nth_largest(logits, users, n, len(gmf))


def _at_most_nth_largest(values: Floats, n: int) -> Floats:
    """A lower bound of each row's n-th largest value, (n_rows,); -inf where there may be none.

    It is the n-th largest of the maxima of groups of columns, which are values of n different columns.
    """
    n_groups = min(values.shape[1], max(_GROUPS, 4 * n))
    if n_groups < n:
        return np.full(len(values), -np.inf, dtype=np.float32)
    per_group = values.shape[1] // n_groups
    maxima = values[:, : per_group * n_groups].reshape(len(values), per_group, n_groups).max(axis=1)
    largest: Floats = np.partition(maxima, n_groups - n, axis=1)[:, n_groups - n]
    return largest


def _indices_above(
    values: Floats, thresholds: NDArray[np.floating]
) -> tuple[NDArray[np.int64], ItemIndices, NDArray[np.int64]]:
    """Return (rows, columns, counts) of entries ≥ the row's threshold; rows with too many hits are dropped."""
    n_rows, n_columns = values.shape
    # Compared with float32 numbers, float64 ones would cost several times as much.
    rounded_down = np.nextafter(thresholds.astype(np.float32), np.float32(-np.inf))
    places = np.flatnonzero(values >= rounded_down[:, None])
    n_reached = np.diff(np.searchsorted(places, np.arange(n_rows + 1) * n_columns))
    rows = np.repeat(np.arange(n_rows), n_reached)
    is_kept = (n_reached <= _MAX_LEFT)[rows]
    rows = rows[is_kept]
    return rows, places[is_kept] - rows * n_columns, n_reached


def _nth_largest(values: Floats, groups: NDArray[np.int64], n: int, n_groups: int) -> NDArray[np.float64]:
    """Each group's n-th largest value, (n_groups,); inf for a group of fewer. `groups` rise."""
    nth = np.full(n_groups, np.inf)
    order = np.lexsort((-values, groups))
    starts = np.searchsorted(groups, np.arange(n_groups + 1))
    is_large = np.diff(starts) >= n
    nth[is_large] = values[order[starts[:-1][is_large] + n - 1]]
    return nth
