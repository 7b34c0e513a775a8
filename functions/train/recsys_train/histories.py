"""Users as what they had: weighted histories, and the examples a network learns from.

A user's row in the embedding tables is not a free parameter. It is computed from the user's history, the same way for
everybody, so it never has to be learnt from a handful of clicks, and somebody who was not in the training data gets one
too. `recsys.histories` says what each item of a history counts.

Learning follows the order of time: the example for an interaction sees only what came before it. Where the data has no
order worth following (`decay` 0), it sees everything but the interaction itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys.histories import LENGTH_POWER, length_scales, recency_weights
from recsys.neumf import Floats
from recsys_train.interactions import Int32s, Interactions

MAX_HISTORY: Final = 100
"""Items before an interaction that its example sees; the weight of those before is small."""
MAX_EXAMPLES_PER_USER: Final = 100
"""The latest ones; they are nearest to what will be asked."""


class Examples(Protocol):
    """Positives to learn from: `targets` (n,) int32, and the history of each as a vector."""

    @property
    def targets(self) -> Int32s:
        """The item of each example."""

    def encode(self, rows: NDArray[np.integer]) -> Floats:
        """History vectors of these examples, (len(rows), dim) float32."""

    def scaled(self, factor: float) -> Examples:
        """The same examples with every history vector multiplied by `factor`."""


def final_histories(interactions: Interactions, decay: float) -> Any:
    """Every user's whole history, scaled: a sparse matrix (n_users, n_items) float32."""
    by_user = _ByUser.of(interactions)
    weights = recency_weights(by_user.left, decay)
    matrix = sp.csr_matrix((weights, by_user.items, by_user.starts), shape=(interactions.n_users, interactions.n_items))
    return _scaled(matrix)


def make_examples(interactions: Interactions, decay: float, item_map: Floats) -> Examples:
    """The examples of all interactions; `item_map` (n_items, dim) turns a history into a vector."""
    by_user = _ByUser.of(interactions)
    if decay == 0:
        return _AllButOne.of(by_user, item_map)
    return _Before.of(by_user, decay, item_map)


@dataclass(frozen=True, slots=True)
class _ByUser:
    """Pairs sorted by user, then time. `place` counts a user's pairs from 0, `left` how many come after."""

    users: Int32s
    items: Int32s
    starts: NDArray[np.int64]
    place: NDArray[np.int64]
    left: NDArray[np.int64]

    @classmethod
    def of(cls, interactions: Interactions) -> _ByUser:
        order = np.argsort(interactions.users, kind="stable")
        users = interactions.users[order]
        counts = np.bincount(users, minlength=interactions.n_users)
        starts = np.concatenate([[0], np.cumsum(counts)])
        place = np.arange(len(users)) - starts[users]
        return cls(users, interactions.items[order], starts, place, counts[users] - 1 - place)


@dataclass(frozen=True, slots=True)
class _Before:
    """Each interaction with what the user had before it."""

    targets: Int32s
    histories: Any
    item_map: Floats

    @classmethod
    def of(cls, by_user: _ByUser, decay: float, item_map: Floats) -> _Before:
        rows = np.flatnonzero((by_user.place > 0) & (by_user.left < MAX_EXAMPLES_PER_USER))
        lengths = np.minimum(by_user.place[rows], MAX_HISTORY)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        # Pair number of each history item: from `length` places before its example to one before.
        source = np.repeat(rows - lengths - starts[:-1], lengths) + np.arange(starts[-1])
        ago = np.repeat(rows, lengths) - source
        histories = sp.csr_matrix(
            (recency_weights(ago - 1, decay).astype(np.float32), by_user.items[source], starts),
            shape=(len(rows), len(item_map)),
        )
        return cls(by_user.items[rows], _scaled(histories), item_map)

    def encode(self, rows: NDArray[np.integer]) -> Floats:
        """See `Examples.encode`."""
        return np.asarray(self.histories[rows] @ self.item_map, dtype=np.float32)

    def scaled(self, factor: float) -> _Before:
        """See `Examples.scaled`."""
        return replace(self, item_map=self.item_map * np.float32(factor))


@dataclass(frozen=True, slots=True)
class _AllButOne:
    """Each interaction with everything else the user had."""

    targets: Int32s
    users: Int32s
    totals: Floats
    scales: Floats
    item_map: Floats

    @classmethod
    def of(cls, by_user: _ByUser, item_map: Floats) -> _AllButOne:
        counts = np.diff(by_user.starts)
        ones = sp.csr_matrix(
            (np.ones(len(by_user.items), np.float32), by_user.items, by_user.starts), shape=(len(counts), len(item_map))
        )
        rows = np.flatnonzero(counts[by_user.users] > 1)
        scales = np.maximum(counts - 1.0, 1.0) ** LENGTH_POWER
        return cls(
            by_user.items[rows], by_user.users[rows], np.asarray(ones @ item_map), scales.astype(np.float32), item_map
        )

    def encode(self, rows: NDArray[np.integer]) -> Floats:
        """See `Examples.encode`."""
        users = self.users[rows]
        vectors: Floats = (self.totals[users] - self.item_map[self.targets[rows]]) * self.scales[users, None]
        return vectors

    def scaled(self, factor: float) -> _AllButOne:
        """See `Examples.scaled`."""
        return replace(self, totals=self.totals * np.float32(factor), item_map=self.item_map * np.float32(factor))


def _scaled(matrix: Any) -> Any:
    totals = np.asarray(matrix.sum(axis=1)).ravel()
    return sp.csr_matrix(sp.diags(length_scales(totals)) @ matrix, dtype=np.float32)
