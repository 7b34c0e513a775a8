"""Interactions as arrays: who had what, when, how strongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Int32s = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Interactions:
    """Distinct (user, item) pairs in order of time, ties in order of the file.

    `users` and `items` (n,) int32 are rows of `user_ids` and `item_ids`, which list ids in order of first appearance.
    `scores` (n,) float32 is the sum of the pair's interaction scores, its number of rows where the file has none.
    """

    user_ids: list[str]
    item_ids: list[str]
    users: Int32s
    items: Int32s
    scores: NDArray[np.float32]

    @property
    def n_users(self) -> int:
        """How many users there are, also those whose pairs were taken out by a split."""
        return len(self.user_ids)

    @property
    def n_items(self) -> int:
        """How many items there are, also those whose pairs were taken out by a split."""
        return len(self.item_ids)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Self:
        """The same users and items with only these pairs."""
        return type(self)(self.user_ids, self.item_ids, self.users[rows], self.items[rows], self.scores[rows])

    def items_by_user(self) -> tuple[NDArray[np.int64], Int32s]:
        """`(starts, items)`: the items of user u are `items[starts[u] : starts[u + 1]]`, oldest first.

        Shapes (n_users + 1,) int64 and (n,) int32.
        """
        starts = np.zeros(self.n_users + 1, dtype=np.int64)
        np.cumsum(np.bincount(self.users, minlength=self.n_users), out=starts[1:])
        return starts, self.items[np.argsort(self.users, kind="stable")]

    def users_per_item(self) -> NDArray[np.int64]:
        """How many users had each item, (n_items,)."""
        return np.bincount(self.items, minlength=self.n_items)

    def split_last(self) -> tuple[Self, Self]:
        """`(earlier, last)`: each user's last pair is taken out, for users with two or more (leave-one-out)."""
        rows = np.arange(len(self))
        last_row = np.full(self.n_users, -1)
        last_row[self.users] = rows  # rows rise, so the last assignment of a user stays
        counts = np.bincount(self.users, minlength=self.n_users)
        held_out = (last_row[self.users] == rows) & (counts[self.users] >= 2)
        return self[~held_out], self[held_out]

    def split_random(self, generator: np.random.Generator) -> tuple[Self, Self]:
        """As `split_last`, but each user's pair is drawn: for data whose order says nothing."""
        order = generator.permutation(len(self))
        _, last = self[order].split_last()
        is_held_out = np.isin(self._pairs(), last._pairs())
        return self[~is_held_out], self[is_held_out]

    def _pairs(self) -> NDArray[np.int64]:
        """One number per pair."""
        return self.users.astype(np.int64) * self.n_items + self.items


@dataclass(frozen=True, slots=True)
class ParsedRows:
    """Good rows of a file: the same (n,) of users and items int32, scores float32, times int64."""

    users: Int32s
    items: Int32s
    scores: NDArray[np.float32]
    times: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.users)

    @classmethod
    def joined(cls, parts: list[Self]) -> Self:
        """The rows of all `parts` (one at least), in their order."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))

    def distinct(self) -> Self:
        """One row for each pair, by time, ties in order of the rows: its first time, the sum of its scores.

        Doing it to some of the rows before others are added changes nothing in the end.
        """
        order = np.argsort(self.times, kind="stable")
        n_items = int(self.items.max(initial=0)) + 1
        codes, pairs = pd.factorize((self.users.astype(np.int64) * n_items + self.items)[order])
        times = np.empty(len(pairs), dtype=np.int64)
        times[codes[::-1]] = self.times[order[::-1]]  # the last assignment of a pair stays: its first time
        scores = np.bincount(codes, weights=self.scores[order], minlength=len(pairs))
        return type(self)(
            (pairs // n_items).astype(np.int32), (pairs % n_items).astype(np.int32), scores.astype(np.float32), times
        )
