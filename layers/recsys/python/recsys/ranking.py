"""From a model and a question to a ranked list: the rules of recommending, without HTTP."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from recsys.neumf import Floats, Network, sigmoid


class Strategy(StrEnum):
    """Where an answer came from."""

    PERSONAL = "personal"
    """The user was in the training data."""
    POPULAR = "popular"
    """Nothing is known of the user: what most users had."""


@dataclass(frozen=True, slots=True)
class ServingModel:
    """One version of a shop's model, ready to answer.

    `users` and `items` map ids to rows; `item_ids` is the inverse of `items`. `seen_items[seen_starts[u] :
    seen_starts[u + 1]]` are the rows of the items user u had. `popularity` (n_items,) float32 is the share of users
    who had the item, in [0, 1].
    """

    version: str
    users: dict[str, int]
    items: dict[str, int]
    item_ids: list[str]
    network: Network
    seen_starts: NDArray[np.int64]
    seen_items: NDArray[np.int32]
    popularity: Floats
    size_bytes: int

    def seen(self, user_index: int) -> NDArray[np.int32]:
        """Rows of the items the user had."""
        return self.seen_items[self.seen_starts[user_index] : self.seen_starts[user_index + 1]]


@dataclass(frozen=True, slots=True)
class RankedItem:
    """One recommendation: `rank` from 1, `score` in [0, 1]."""

    item_id: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Recommendations:
    """What a user is recommended, best first."""

    user_id: str
    strategy: Strategy
    model_version: str
    items: list[RankedItem]


def recommend(
    model: ServingModel,
    user_id: str,
    *,
    n: int,
    exclude_seen: bool = True,
    exclude_items: Collection[str] = (),
) -> Recommendations:
    """The `n` best items for a user, fewer only when fewer are left.

    An unknown user gets the most popular items, scored by the share of users who had them. Ids in `exclude_items` that
    the model does not know are passed over. Ties go to the item that came first in the training data.
    """
    excluded = [model.items[item_id] for item_id in exclude_items if item_id in model.items]
    user_index = model.users.get(user_id)
    if user_index is None:
        strategy, ranking_values, scores = Strategy.POPULAR, model.popularity, model.popularity
    else:
        ranking_values = model.network.logits(user_index)
        strategy, scores = Strategy.PERSONAL, None
        if exclude_seen:
            excluded.extend(model.seen(user_index).tolist())
    best = top_n(ranking_values, n, excluded=np.asarray(excluded, dtype=np.int64))
    best_scores = sigmoid(ranking_values[best]) if scores is None else scores[best]
    return Recommendations(
        user_id,
        strategy,
        model.version,
        [
            RankedItem(model.item_ids[index], rank, score)
            for rank, (index, score) in enumerate(zip(best.tolist(), best_scores.tolist(), strict=True), start=1)
        ],
    )


def top_n(values: Floats, n: int, *, excluded: NDArray[np.int64]) -> NDArray[np.int64]:
    """Indices of the `n` largest values, best first, ties to the lower index; (≤ n,) int64.

    `excluded` indices never appear. Exact: equal to a stable sort of all values.
    """
    eligible = np.array(values, dtype=np.float32)
    eligible[excluded] = -np.inf
    n = min(n, len(eligible))
    if 0 < n < len(eligible):
        threshold = np.partition(eligible, len(eligible) - n)[len(eligible) - n]
        candidates = np.flatnonzero(eligible >= threshold)
    else:
        candidates = np.arange(len(eligible))
    candidates = candidates[eligible[candidates] > -np.inf]
    order = np.argsort(-eligible[candidates], kind="stable")
    return candidates[order[:n]]
