"""User-item interactions as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_train.data.row_blocks import row_blocks
from recsys_train.data.stable_order import order_of_times, sorted_by_code, taken

Int32s = NDArray[np.int32]
_PAIRS_PER_SAMPLE: Final = 64
_HASH_FACTORS: Final = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)
"""Factors for multiplicative hashing (Knuth, The Art of Computer Programming, volume 3, section 6.4). Both are prime
numbers of the hash function XXH32. The first is close to 2**32 divided by the golden ratio.
"""
_MAX_HASH: Final = np.uint32(2**32 // _PAIRS_PER_SAMPLE)


@dataclass(frozen=True, slots=True)
class Interactions:
    """Distinct (user, item) pairs, oldest first. Pairs with the same time are in file order.

    Parameters
    ----------
    user_ids, item_ids
        Ids of the users and of the items, in order of first appearance.
    users, items
        The pairs as indices into `user_ids` and `item_ids`, (n_pairs,) int32.
    times
        Earliest time of each pair, (n_pairs,) int64, in microseconds since 1970 (UTC). None if the data has no times,
        or if the pairs were selected from other interactions.
    file_rows
        Smallest row number of each pair at its earliest time, (n_pairs,) int64. Rows are numbered separately in each
        file. None if all pairs come from one file and are in the order of this file.

    Examples
    --------
    >>> ids = ["anna", "ben"], ["tea", "milk"]
    >>> interactions = Interactions(*ids, np.array([0, 1, 0], "i4"), np.array([0, 0, 1], "i4"))
    >>> len(interactions), interactions.n_users, interactions.n_items
    (3, 2, 2)
    """

    user_ids: list[str]
    item_ids: list[str]
    users: Int32s
    items: Int32s
    times: NDArray[np.int64] | None = None
    file_rows: NDArray[np.int64] | None = None

    @property
    def n_users(self) -> int:
        """Number of users, including users who have no pair after a split."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """Number of items, including items that have no pair after a split."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Self:
        """Return the pairs that a mask or indices select, without times. Users and items keep their indices."""
        return type(self)(self.user_ids, self.item_ids, self.users[rows], self.items[rows])

    def items_by_user(self) -> tuple[NDArray[np.int64], Int32s]:
        """Group the items by user.

        Returns
        -------
        starts : ndarray
            Position of the first item of each user, (n_users + 1,) int64.
        items : ndarray
            Item indices, (n_pairs,) int32. The history of user u is `items[starts[u] : starts[u + 1]]`, oldest first.

        Examples
        --------
        >>> users, items = np.array([1, 0, 1], "i4"), np.array([2, 2, 0], "i4")
        >>> Interactions(["u", "v"], ["a", "b", "c"], users, items).items_by_user()
        (array([0, 1, 3]), array([2, 2, 0], dtype=int32))
        """
        starts = np.zeros(self.n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.users, minlength=self.n_users), out=starts[1:])
        return starts, self.items[np.argsort(self.users, kind="stable")]

    def users_per_item(self) -> NDArray[np.int64]:
        """Return the number of users who interacted with each item, (n_items,) int64."""
        return np.bincount(self.items, minlength=self.n_items)

    def to_matrix(self) -> Any:
        """Return the pairs as a sparse CSR matrix, (n_users, n_items) float32, with a 1 for each pair."""
        ones = np.ones(len(self), dtype=np.float32)
        return sp.csr_matrix((ones, (self.users, self.items)), shape=(self.n_users, self.n_items))

    def split_last(self) -> tuple[Self, Self]:
        """Hold out the last pair of each user who has at least two pairs (leave-one-out).

        Returns
        -------
        earlier, last : Interactions
            The other pairs and the held-out pairs. Both keep all users and items.

        Examples
        --------
        >>> users, items = np.array([0, 1, 0], "i4"), np.array([0, 0, 1], "i4")
        >>> earlier, last = Interactions(["u", "v"], ["a", "b"], users, items).split_last()
        >>> last.users, last.items
        (array([0], dtype=int32), array([1], dtype=int32))
        """
        rows = np.arange(len(self))
        last_row = np.full(self.n_users, -1)
        last_row[self.users] = rows  # rows are ascending, and the last assignment of a user counts
        counts = np.bincount(self.users, minlength=self.n_users)
        is_held_out = (last_row[self.users] == rows) & (counts[self.users] >= 2)
        return self[~is_held_out], self[is_held_out]

    def split_random(self, generator: np.random.Generator) -> tuple[Self, Self]:
        """Hold out a random pair of each user who has at least two. Return the other pairs and the held-out pairs.

        Use this instead of `split_last` if the pairs are not in chronological order.
        """
        order = generator.permutation(len(self))
        _, last = self[order].split_last()
        is_held_out = np.isin(self._pair_codes(), last._pair_codes())
        return self[~is_held_out], self[is_held_out]

    def split_share(self, share: float, generator: np.random.Generator) -> tuple[Self, Self]:
        """Hold out a random share of each user's pairs. Return the other pairs and the held-out pairs.

        Of a user's n pairs, `round(share * n)` are held out, but at least one and at most n - 1. A user with one pair
        keeps this pair.
        """
        order = generator.permutation(len(self))
        order = order[np.argsort(self.users[order], kind="stable")]  # by user, each user's pairs at random
        counts = np.bincount(self.users, minlength=self.n_users)
        position = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
        n_held_out = np.where(counts >= 2, np.clip(np.rint(share * counts), 1, counts - 1), 0)
        is_held_out = np.zeros(len(order), dtype=np.bool_)
        is_held_out[order] = position < np.repeat(n_held_out, counts)
        return self[~is_held_out], self[is_held_out]

    def without(self, pairs: Self) -> Self:
        """Return the interactions without the (user, item) pairs in `pairs`."""
        return self[~np.isin(self._pair_codes(), pairs._pair_codes())]

    def _pair_codes(self) -> NDArray[np.int64]:
        """Encode each (user, item) pair as one integer, (n_pairs,) int64, so that equal pairs have equal codes."""
        return self.users.astype(np.int64) * self.n_items + self.items


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """Rows of one or more files, in which (user, item) pairs can repeat.

    `users` and `items`, (n,) int32, are indices into the ids. `times`, (n,) int64, are microseconds since 1970 (UTC).
    `file_rows`, (n,) int64, are the row numbers in the files, or None if the rows come from one file and are in the
    order of this file.
    """

    users: Int32s
    items: Int32s
    times: NDArray[np.int64]
    file_rows: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """Concatenate the rows of one or more `parts`. Either every part has `file_rows`, or none has."""
        columns = zip(*((part.users, part.items, part.times) for part in parts), strict=True)
        file_rows = [part.file_rows for part in parts if part.file_rows is not None]
        users, items, times = map(np.concatenate, columns)
        return cls(users, items, times, np.concatenate(file_rows) if file_rows else None)


def distinct_rows(parts: list[ParsedRows]) -> ParsedRows:
    """Return the earliest row of each pair, sorted by time. Rows with the same time keep their order in the file.

    The function can be applied incrementally. Removing the repetitions before further rows are added does not change
    the final result.

    Parameters
    ----------
    parts
        The rows. The list is emptied, so that each column of the parts is released as soon as it is joined.
    """
    parts_of_users, parts_of_items = [part.users for part in parts], [part.items for part in parts]
    parts_of_times = [part.times for part in parts]
    parts_of_file_rows = [part.file_rows for part in parts if part.file_rows is not None]
    parts.clear()
    times = _joined(parts_of_times)
    file_rows = _joined(parts_of_file_rows) if parts_of_file_rows else None
    order = _oldest_first(times, file_rows)
    users, items = _in_order(_joined(parts_of_users), order), _in_order(_joined(parts_of_items), order)
    kept = _first_of_pairs(users, items)
    if kept is not None:
        users, items = taken(users, kept), taken(items, kept)
        order = kept if order is None else taken(order, kept)
    return ParsedRows(users, items, _in_order(times, order), None if file_rows is None else _in_order(file_rows, order))


def _joined(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    """Concatenate arrays, and empty the list."""
    joined = np.concatenate(arrays)
    arrays.clear()
    return joined


def _oldest_first(times: NDArray[np.int64], file_rows: NDArray[np.int64] | None) -> NDArray[np.integer] | None:
    """Return the indices that sort the rows by time and row number, (n,), or None if the rows are in this order."""
    if file_rows is None:
        return order_of_times(times)
    by_row = np.argsort(file_rows, kind="stable")
    by_time = order_of_times(times[by_row])
    return by_row if by_time is None else taken(by_row, by_time)


def _in_order(values: NDArray[Any], order: NDArray[np.integer] | None) -> NDArray[Any]:
    return values if order is None else taken(values, order)


def distinct_share(parts: Sequence[ParsedRows]) -> float:
    """Estimate the share of distinct pairs among the rows, from a sample of about one in 64 distinct pairs.

    The hash of a pair decides whether the pair is in the sample. Therefore the sample contains either all rows of a
    pair or none. A frequent pair cannot make the estimate too high, because each pair in the sample counts once.
    """
    sampled = []
    for part in parts:
        for rows in row_blocks(len(part)):
            users, items = part.users[rows], part.items[rows]
            hashes = users.view(np.uint32) * _HASH_FACTORS[0] + items.view(np.uint32) * _HASH_FACTORS[1]
            chosen = np.flatnonzero(hashes < _MAX_HASH)
            sampled.append(users[chosen].astype(np.int64) << 32 | items[chosen])
    n_distinct = len(np.unique(np.concatenate(sampled)))
    return n_distinct * _PAIRS_PER_SAMPLE / sum(map(len, parts))


def _first_of_pairs(users: Int32s, items: Int32s) -> NDArray[np.integer] | None:
    """Return the indices of the first row of each pair, (n_pairs,), in ascending order.

    The result is None if no pair is repeated.
    """
    n_users, n_items = int(users.max(initial=0)) + 1, int(items.max(initial=0)) + 1
    by_item = sorted_by_code(items, n_items, users)
    sorted_items = np.repeat(np.arange(n_items, dtype=np.int32), np.diff(by_item.starts))
    by_user = sorted_by_code(by_item.values, n_users, sorted_items)
    is_first = np.ones(len(users), dtype=np.bool_)
    np.not_equal(by_user.values[1:], by_user.values[:-1], out=is_first[1:])
    is_first[by_user.starts[:-1][np.diff(by_user.starts) > 0]] = True
    if is_first.all():
        return None
    is_kept = np.zeros(len(users), dtype=np.bool_)
    is_kept[taken(by_item.order, by_user.order.compress(is_first)).astype(np.intp)] = True
    return np.flatnonzero(is_kept)
