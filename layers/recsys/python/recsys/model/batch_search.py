"""Find the n best items of many users at once. The results equal those of `recsys.model.top_n.best_items`.

Memory access limits the speed of a matrix-vector product. The product of the item matrix with the vectors of many users
has no such limit, and is therefore several times as fast per user. Every later step also handles the (user, item) pairs
of the whole batch at once, because a step per user would take longer than the product.

Items are scanned in chunks, in descending order of the norm of their GMF embeddings. The first chunk yields a floor for
every user, which is a lower bound on the logit of the n-th best item. By Cauchy-Schwarz, the GMF part of a logit is at
most |user| |item|. Once this bound is too small, no later item can reach the floor. The scan for this user therefore
stops before the end of the catalogue. The bounds of `recsys.model.pruned_search` apply within each chunk.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats, ItemIndices, Network, User
from recsys.model.pruned_search import Bounds, gamma, mlp_parts, round_down
from recsys.model.selection import nth_largest_bound
from recsys.model.top_n import best_items

MAX_USERS: Final = 2048
"""Largest number of users per batch. In larger batches the item matrix is read less often, but the GMF parts need more
memory."""
_FIRST_CHUNK: Final = 8192
"""Items in the first chunk, which yields the floors. In a full batch, the GMF parts of this chunk take 64 MiB."""
_CHUNK: Final = 2048
"""Items in each later chunk. In a full batch, the GMF parts of such a chunk take 16 MiB."""
_MAX_CANDIDATES: Final = 2048
"""Largest number of items that may remain per user. To limit memory, a user with more items is searched alone. Not
tuned."""


@dataclass(frozen=True, slots=True, eq=False)
class NormSortedItems:
    """The items of a network in descending order of the norm of their GMF embeddings.

    Use `NormSortedItems.of` to sort the items. The sorting takes about as long as the searches for a few single users.

    Parameters
    ----------
    network, bounds
        The model, and `Bounds.of(network)`.
    order
        Index of the item at each position, (n_items,) int64.
    positions
        Position of each item, (n_items,) int64.
    norms
        Norm of the GMF embedding of the item at each position, rounded up, (n_items,) float32.
    """

    network: Network
    bounds: Bounds
    order: ItemIndices
    positions: NDArray[np.int64]
    norms: Floats

    @classmethod
    def of(cls, network: Network, bounds: Bounds) -> Self:
        """Sort the items of a network by the norm of their GMF embeddings, largest first."""
        norms = _norms(network.item_gmf)
        order = np.argsort(-norms)
        return cls(network, bounds, order, _inverse_permutation(order), norms[order])


def best_items_of_each(
    items: NormSortedItems, users: Sequence[User], n: int, *, excluded: Sequence[ItemIndices]
) -> list[tuple[ItemIndices, Floats]]:
    """Return the `n` best items and their exact logits for each user.

    `excluded` contains one array per user with the indices of the items that are never returned. The results have the
    order of `users`.
    """
    if not users or n == 0:
        return [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)) for _ in users]
    network, bounds = items.network, items.bounds
    batch = _BatchUsers.of(users, items, excluded)
    margins = 2 * bounds.errors(batch.users)
    pairs, gave_up = _prune(items, batch, n, margins)
    logits = pairs.gmf + mlp_parts(network, batch.users.mlp[pairs.users], pairs.items)
    nth_logits, _ = _nth_largest(logits, pairs.users, n, len(users))
    pairs = pairs.where(logits >= (nth_logits - margins)[pairs.users])
    exact = network.exact_pair_logits(batch.users, pairs.users, pairs.items)
    order = np.lexsort((pairs.items, -exact, pairs.users))
    starts = np.searchsorted(pairs.users, np.arange(len(users) + 1))

    def best_of(row: int) -> tuple[ItemIndices, Floats]:
        if gave_up[row]:
            return best_items(network, bounds, users[row], n, excluded=excluded[row])
        best = order[starts[row] : starts[row + 1]][:n]
        return pairs.items[best], exact[best]

    return [best_of(row) for row in range(len(users))]


@dataclass(frozen=True, slots=True, eq=False)
class _BatchUsers:
    """The users of a batch and the items excluded for them.

    `users` holds one user per row. The user in row `excluded_users[k]` does not get the item at the position
    `excluded_positions[k]` of `NormSortedItems`. Both arrays have the shape (n_excluded,), and the positions ascend.
    """

    users: User
    excluded_users: NDArray[np.int64]
    excluded_positions: NDArray[np.int64]

    @classmethod
    def of(cls, users: Sequence[User], items: NormSortedItems, excluded: Sequence[ItemIndices]) -> Self:
        """Build a batch, in which the excluded items of all users are sorted by position.

        `excluded` contains one array of item indices per user.
        """
        stacked = User(np.array([user.gmf for user in users]), np.array([user.mlp for user in users]))
        owners = np.repeat(np.arange(len(users)), [len(each) for each in excluded])
        positions = items.positions[np.concatenate(excluded)]
        order = np.argsort(positions)
        return cls(stacked, owners[order], positions[order])

    def reordered(self, order: NDArray[np.int64]) -> Self:
        """Return the batch with its rows in another order. Row k is the previous row `order[k]`."""
        users = User(self.users.gmf[order], self.users.mlp[order])
        return replace(self, users=users, excluded_users=_inverse_permutation(order)[self.excluded_users])

    def gmf_parts(self, items: NormSortedItems, n_users: int, begin: int, end: int, buffer: Floats) -> Floats:
        """Compute the GMF parts of logits for the first `n_users` users of the batch, (n_users, end - begin) float32.

        The columns are the items at the positions `begin` to `end - 1` of `NormSortedItems`. The entries of excluded
        items are -inf. The result is a view of `buffer`.
        """
        gmf = buffer[: n_users * (end - begin)].reshape(n_users, end - begin)
        np.matmul(self.users.gmf[:n_users], items.network.item_gmf[items.order[begin:end]].T, out=gmf)
        in_chunk = slice(*np.searchsorted(self.excluded_positions, (begin, end)))
        rows, columns = self.excluded_users[in_chunk], self.excluded_positions[in_chunk] - begin
        gmf[rows[rows < n_users], columns[rows < n_users]] = -np.inf
        return gmf


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pairs of a user (row of the batch) and an item, with the GMF parts of their logits, (n_pairs,) each."""

    users: NDArray[np.int64]
    items: ItemIndices
    gmf: Floats

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Concatenate the (user, item) pairs from several chunks of items, and sort the result by user."""
        users = np.concatenate([part.users for part in parts])
        items, gmf = np.concatenate([part.items for part in parts]), np.concatenate([part.gmf for part in parts])
        order = np.argsort(users, kind="stable")
        return cls(users[order], items[order], gmf[order])

    def where(self, kept: NDArray[np.bool_]) -> Self:
        """Return the pairs for which the mask (n_pairs,) is true."""
        return replace(self, users=self.users[kept], items=self.items[kept], gmf=self.gmf[kept])


def _prune(
    items: NormSortedItems, batch: _BatchUsers, n: int, margins: NDArray[np.float64]
) -> tuple[_Pairs, NDArray[np.bool_]]:
    """Return the pairs in which the item can be among the user's `n` best, sorted by user, and a mask of skipped users.

    A user is skipped, and must be searched alone, if too many items remain for the user, or if the first chunk of items
    yields no lower bound on the user's n-th best logit.
    """
    network, bounds = items.network, items.bounds
    n_users, n_first = len(margins), min(_FIRST_CHUNK, network.n_items)
    buffer = np.empty(n_users * max(n_first, _CHUNK), dtype=np.float32)
    gmf = batch.gmf_parts(items, n_users, 0, n_first, buffer)
    nth_logits, has_floor = _floors(items, batch, n, gmf)
    floors = np.where(has_floor, nth_logits - margins, np.inf)  # no pair of a user without a floor is kept
    tops = np.array([network.mlp_outputs(half + bounds.centres) for half in batch.users.mlp])
    lowest_gmf = floors - (tops + bounds.reach).max(axis=1)  # (2) of recsys.model.pruned_search
    min_norms = _min_item_norms(lowest_gmf, batch.users.gmf)
    order = np.argsort(min_norms)  # longest scan first, so that each chunk is needed by the first users only
    sorted_batch = batch.reordered(order)
    gave_up, n_candidates = ~has_floor, np.zeros(n_users, dtype=np.int64)
    users, parts = np.arange(n_users), []
    for begin, end in pairwise([0, *range(n_first, network.n_items, _CHUNK), network.n_items]):
        if begin > 0:
            users = order[: np.count_nonzero(min_norms <= items.norms[begin])]
            if len(users) == 0:
                break
            gmf = sorted_batch.gmf_parts(items, len(users), begin, end, buffer)
        thresholds = np.where(gave_up, np.inf, lowest_gmf)[users]
        rows, columns, has_too_many = _indices_above(gmf, thresholds)
        pairs = _Pairs(users[rows], items.order[begin + columns], gmf[rows, columns])
        uppers = pairs.gmf + tops[pairs.users, bounds.cluster[pairs.items]] + bounds.slack[pairs.items]
        parts.append(pairs.where(uppers >= floors[pairs.users]))  # (1)
        n_candidates += np.bincount(parts[-1].users, minlength=n_users)
        gave_up |= n_candidates > _MAX_CANDIDATES
        gave_up[users[has_too_many]] = True
    pairs = _Pairs.joined(parts)
    return pairs.where(~gave_up[pairs.users]), gave_up


def _floors(
    items: NormSortedItems, batch: _BatchUsers, n: int, gmf: Floats
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return a lower bound on each user's n-th best logit, and a mask of the users with such a bound, (n_users,) each.

    The bounds are computed from the best items of the first chunk. `gmf` holds the GMF parts of this chunk.
    """
    nth_gmf = nth_largest_bound(gmf, n)
    thresholds = np.where(nth_gmf == -np.inf, np.inf, nth_gmf)  # select nothing where there is no bound
    users, columns, _ = _indices_above(gmf, thresholds)
    logits = gmf[users, columns] + mlp_parts(items.network, batch.users.mlp[users], items.order[columns])
    return _nth_largest(logits, users, n, len(gmf))


def _min_item_norms(lowest_gmf: NDArray[np.float64], users: Floats) -> NDArray[np.float64]:
    """Return the smallest norm of an item's GMF embedding that lets the user's GMF part reach `lowest_gmf`.

    `lowest_gmf` and the result have one entry per user, (n_users,). `users` holds the users' GMF embeddings.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # a user without history has a zero embedding
        return np.nan_to_num(lowest_gmf / _norms(users), nan=-np.inf, posinf=np.inf, neginf=-np.inf)


def _norms(rows: Floats) -> Floats:
    """Return the Euclidean norm of each row, rounded up, (n_rows,)."""
    norms: Floats = np.sqrt(np.einsum("ij,ij->i", rows, rows))
    return norms * np.float32(1 + gamma(rows.shape[1] + 8))


def _inverse_permutation(order: NDArray[np.int64]) -> NDArray[np.int64]:
    positions = np.empty_like(order)
    positions[order] = np.arange(len(order))
    return positions


def _indices_above(
    values: Floats, thresholds: NDArray[np.floating]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Return the row and column indices of all entries that reach the threshold of their row, in row-major order.

    The third result is a mask of the rows with more than `_MAX_CANDIDATES` such entries, (n_rows,). The entries of
    these rows are left out.
    """
    n_rows, n_columns = values.shape
    flat = np.flatnonzero(values >= round_down(thresholds)[:, None])
    counts = np.diff(np.searchsorted(flat, np.arange(n_rows + 1) * n_columns))
    rows = np.repeat(np.arange(n_rows), counts)
    has_too_many = counts > _MAX_CANDIDATES
    kept = ~has_too_many[rows]
    rows = rows[kept]
    return rows, flat[kept] - rows * n_columns, has_too_many


def _nth_largest(
    values: Floats, groups: NDArray[np.int64], n: int, n_groups: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Return the n-th largest value of each group, and a mask of the groups with at least n values, (n_groups,) each.

    `groups` (n_values,) holds the group of each value in ascending order. The result of a group with fewer than `n`
    values is -inf.
    """
    nth = np.full(n_groups, -np.inf)
    order = np.lexsort((-values, groups))
    starts = np.searchsorted(groups, np.arange(n_groups + 1))
    has_nth = np.diff(starts) >= n
    nth[has_nth] = values[order[starts[:-1][has_nth] + n - 1]]
    return nth, has_nth
