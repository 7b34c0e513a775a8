"""Users as what they had: weighted histories, and the blocks of users a network learns from.

A user's row in the embedding tables is not a free parameter. It is computed from the user's history, the same way for
everybody, so it never has to be learnt from a handful of clicks, and somebody who was not in the training data gets one
too. `recsys.model.user_encoder` says what each item of a history counts.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys.model.user_encoder import length_scales, recency_weights
from recsys_train.data.interactions import Int32s, Interactions

MAX_LENGTH: Final = 128
"""Items of a user that one pass sees: the latest where their order counts, otherwise others each time."""


def final_histories(interactions: Interactions, decay: float) -> Any:
    """Every user's whole history, scaled: a sparse matrix (n_users, n_items) float32."""
    starts, items = interactions.items_by_user()
    counts = np.diff(starts)
    left = np.repeat(starts[1:], counts) - 1 - np.arange(len(items))
    matrix = sp.csr_matrix(
        (recency_weights(left, decay), items, starts), shape=(interactions.n_users, interactions.n_items)
    )
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(length_scales(totals)) @ matrix, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class UserBatch:
    """Some users: `items` (n, longest) int32, oldest first, row u holding `lengths[u]` of them and then zeros."""

    items: Int32s
    lengths: Int32s


@dataclass(frozen=True, slots=True)
class Histories:
    """What every user with two or more items had, ready to be dealt into blocks."""

    starts: NDArray[np.int64]
    items: Int32s
    ordered: bool
    """Whether the order of a user's items counts."""

    @classmethod
    def of(cls, interactions: Interactions, *, ordered: bool) -> Histories:
        """The histories of all users of `interactions`."""
        return cls(*interactions.items_by_user(), ordered)

    def batches(self, n_positions: int, generator: np.random.Generator) -> Iterator[UserBatch]:
        """All users once, in random order, about `n_positions` items per batch.

        Users of one batch have histories of similar length, so that little of it is padding.
        """
        counts = np.diff(self.starts)
        users = generator.permutation(np.flatnonzero(counts >= 2))
        lengths = np.minimum(counts[users], MAX_LENGTH)
        order = np.argsort(lengths, kind="stable")
        users, lengths = users[order], lengths[order].astype(np.int32)
        bounds = [0]
        while bounds[-1] < len(users):
            # As long as the first is the shortest, so many fit; the last of them is what the others are padded to.
            end = min(len(users), bounds[-1] + max(1, n_positions // int(lengths[bounds[-1]])))
            bounds.append(min(end, bounds[-1] + max(1, n_positions // int(lengths[end - 1]))))
        for batch in generator.permutation(len(bounds) - 1).tolist():
            some = slice(bounds[batch], bounds[batch + 1])
            yield UserBatch(self._rows(users[some], lengths[some], generator), lengths[some])

    def _rows(self, users: NDArray[np.int64], lengths: Int32s, generator: np.random.Generator) -> Int32s:
        rows = np.zeros((len(users), int(lengths.max())), dtype=np.int32)
        for row, (user, length) in enumerate(zip(users.tolist(), lengths.tolist(), strict=True)):
            had = self.items[self.starts[user] : self.starts[user + 1]]
            if self.ordered or length == len(had):
                rows[row, :length] = had[-length:]
            else:
                rows[row, :length] = generator.choice(had, length, replace=False)
        return rows
