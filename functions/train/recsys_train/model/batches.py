"""Represent users as weighted histories, and divide them into batches for training.

A user's embedding is not a free parameter. The network computes the embedding from the user's history, in the same way
for every user, so that the embedding needs no training of its own and unknown users have an embedding too.
`recsys.model.user_encoder` defines the weights of the items in a history.
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
"""Maximum number of a user's items that one epoch uses. If the history is ordered, these are the latest items.
Otherwise, they are a random sample, which is drawn anew in each epoch."""
MAX_BATCH_USERS: Final = 1024
"""Maximum number of users in a batch. With unordered histories, each user scores all negatives of the step, and the
limit bounds the memory that these scores take."""


def final_histories(interactions: Interactions, decay: float) -> Any:
    """Return the complete histories of all users as a sparse matrix of item weights.

    Parameters
    ----------
    interactions
        The pairs, oldest first.
    decay
        Recency exponent. The item r positions before the end of a history has the weight `(1 + r) ** -decay`. The
        weights of each history are then divided by the square root of their sum, see `recsys.model.user_encoder`.

    Returns
    -------
    scipy.sparse.csr_matrix
        Shape (n_users, n_items), float32.

    Examples
    --------
    >>> interactions = Interactions(["u"], ["a", "b"], np.array([0, 0], "i4"), np.array([0, 1], "i4"))
    >>> final_histories(interactions, decay=1.0).toarray().round(3)  # (1/2, 1) / sqrt(3/2)
    array([[0.408, 0.816]], dtype=float32)
    """
    starts, items = interactions.items_by_user()
    counts = np.diff(starts)
    ago = np.repeat(starts[1:], counts) - 1 - np.arange(len(items))
    matrix = sp.csr_matrix(
        (recency_weights(ago, decay), items, starts), shape=(interactions.n_users, interactions.n_items)
    )
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(length_scales(totals)) @ matrix, dtype=np.float32)


@dataclass(frozen=True, slots=True)
class UserBatch:
    """Histories of some users, padded to the length of the longest history.

    Parameters
    ----------
    items
        Item indices, oldest first, (n_users, longest) int32; row u is padded with zeros from `lengths[u]` on.
    lengths
        Number of items per user, (n_users,) int32.
    """

    items: Int32s
    lengths: Int32s


@dataclass(frozen=True, slots=True)
class Histories:
    """The histories of all users, from which batches are drawn.

    Parameters
    ----------
    starts, items
        The index at which each user's history starts, and the concatenated histories of all users, as returned by
        `Interactions.items_by_user`.
    ordered
        Whether the order of a user's items influences the weights.
    """

    starts: NDArray[np.int64]
    items: Int32s
    ordered: bool

    @classmethod
    def of(cls, interactions: Interactions, *, ordered: bool) -> Histories:
        """Collect the histories of all users of `interactions`."""
        return cls(*interactions.items_by_user(), ordered)

    def batches(self, n_positions: int, generator: np.random.Generator) -> Iterator[UserBatch]:
        """Divide the users with at least two items into batches, and yield the batches in random order.

        Histories in one batch have similar lengths, so that a batch contains little padding.

        Parameters
        ----------
        n_positions
            Maximum number of positions in a batch, including padding. A batch has at least one user, even if the
            history of this user exceeds the limit.
        generator
            Source of the order of the batches, and of the random sample of each unordered history that exceeds
            `MAX_LENGTH`.

        Yields
        ------
        UserBatch

        Examples
        --------
        >>> interactions = Interactions(["u"], ["a", "b"], np.array([0, 0], "i4"), np.array([1, 0], "i4"))
        >>> next(Histories.of(interactions, ordered=True).batches(1024, np.random.default_rng(0)))
        UserBatch(items=array([[1, 0]], dtype=int32), lengths=array([2], dtype=int32))
        """
        counts = np.diff(self.starts)
        users = generator.permutation(np.flatnonzero(counts >= 2))
        lengths = np.minimum(counts[users], MAX_LENGTH)
        order = np.argsort(lengths, kind="stable")
        users, lengths = users[order], lengths[order].astype(np.int32)
        bounds = _batch_bounds(lengths, n_positions)
        for batch in generator.permutation(len(bounds) - 1).tolist():
            rows = slice(bounds[batch], bounds[batch + 1])
            yield UserBatch(self._padded(users[rows], lengths[rows], generator), lengths[rows])

    def _padded(self, users: NDArray[np.int64], lengths: Int32s, generator: np.random.Generator) -> Int32s:
        rows = np.zeros((len(users), int(lengths.max())), dtype=np.int32)
        for row, (user, length) in enumerate(zip(users.tolist(), lengths.tolist(), strict=True)):
            history = self.items[self.starts[user] : self.starts[user + 1]]
            if self.ordered or length == len(history):
                rows[row, :length] = history[-length:]
            else:
                rows[row, :length] = generator.choice(history, length, replace=False)
        return rows


def _batch_bounds(lengths: Int32s, n_positions: int) -> list[int]:
    """Return the bounds of the batches in a list of users who are sorted by history length.

    Batch b consists of the users from `bounds[b]` up to, but not including, `bounds[b + 1]`. Each batch has at most
    `n_positions` positions, including padding, or a single user.
    """
    bounds = [0]
    while bounds[-1] < len(lengths):
        start = bounds[-1]
        # The shortest history gives an upper limit on the number of users. The longest history within the limit gives
        # the padded length, which can reduce the number.
        end = min(len(lengths), start + min(MAX_BATCH_USERS, max(1, n_positions // int(lengths[start]))))
        bounds.append(min(end, start + max(1, n_positions // int(lengths[end - 1]))))
    return bounds
