"""From a model and a question to a ranked list: the rules of recommending, without HTTP.

Every question is one: the best items for a history. A known user's is in the model, somebody unknown has the items of
the session, and an item's neighbours are what a session of that item alone is recommended. Where there is no history,
the most popular items answer.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ItemNotFound
from recsys.model.neumf import Floats, Network, sigmoid
from recsys.model.pruned_search import Bounds, ItemIndices, best_items
from recsys.model.vocabulary import Vocabulary


class Strategy(StrEnum):
    """Where an answer came from."""

    PERSONAL = "personal"
    """The user was in the training data."""
    SESSION = "session"
    """The user was not, but had items that the model knows."""
    POPULAR = "popular"
    """Nothing is known of the user: what most users had."""


@dataclass(frozen=True, slots=True)
class ServingModel:
    """One version of a shop's model, ready to answer.

    `seen_items[seen_starts[u] : seen_starts[u + 1]]` are the rows of the items user u had, oldest first; shapes
    (n_users + 1,) int64 and (n,) int32. `popularity` (n_items,) float32 is the share of users who had the item, in
    [0, 1]. `size_bytes` is what all of it takes in memory.
    """

    version: str
    users: Vocabulary
    items: Vocabulary
    network: Network
    bounds: Bounds
    seen_starts: NDArray[np.int64]
    seen_items: NDArray[np.int32]
    popularity: Floats
    size_bytes: int

    def seen(self, user_index: int) -> NDArray[np.int32]:
        """ItemIndices of the items the user had, oldest first."""
        return self.seen_items[self.seen_starts[user_index] : self.seen_starts[user_index + 1]]


class RankedItem(NamedTuple):
    """One recommendation: `rank` from 1, `score` in [0, 1]."""

    item_id: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Recommendations:
    """What a user is recommended, best first; `user_id` is None where nobody in particular asked."""

    user_id: str | None
    strategy: Strategy
    model_version: str
    items: list[RankedItem]


def recommend(
    model: ServingModel,
    user_id: str | None,
    *,
    n: int,
    recent_items: Sequence[str] = (),
    exclude_seen: bool = True,
    exclude_items: Collection[str] = (),
    candidates: Collection[str] | None = None,
) -> Recommendations:
    """The `n` best items for a user, fewer only when fewer are left. Ties go to the lower item index.

    Vocabulary that the model does not know are passed over, wherever they stand.

    Parameters
    ----------
    user_id
        None is a basket without a user.
    recent_items
        What the user had since the model was trained, oldest first. For somebody unknown they are all there is to go
        by; without them the most popular items answer, scored by the share of users who had them.
    exclude_seen
        Leave out what the user had, `recent_items` included.
    candidates
        Rank only these.
    """
    user_index = None if user_id is None else model.users.find(user_id)
    history = np.zeros(0, dtype=np.int64) if user_index is None else model.seen(user_index).astype(np.int64)
    if recent_items:
        history = _extended(history, _rows(model.items, recent_items))
    excluded = _rows(model.items, exclude_items)
    if exclude_seen:
        excluded = np.concatenate([excluded, history])
    among = None if candidates is None else np.unique(_rows(model.items, candidates))
    if user_index is None and len(history) == 0:
        return _popular(model, user_id, n, excluded, among)
    strategy = Strategy.SESSION if user_index is None else Strategy.PERSONAL
    return Recommendations(user_id, strategy, model.version, _best_items(model, history, n, excluded, among))


def similar(model: ServingModel, item_id: str, *, n: int, exclude_items: Collection[str] = ()) -> list[RankedItem]:
    """The `n` best items for somebody who had this one alone, itself left out; fewer only when fewer are left.

    Raises
    ------
    ItemNotFound
        The model does not know the item.
    """
    row = model.items.find(item_id)
    if row is None:
        raise ItemNotFound(f"The model {model.version} knows no item {item_id!r}.")
    history = np.array([row])
    return _best_items(model, history, n, np.concatenate([_rows(model.items, exclude_items), history]), None)


def popular(model: ServingModel, *, n: int, exclude_items: Collection[str] = ()) -> Recommendations:
    """The `n` items that most users had, scored by their share; fewer only when fewer are left."""
    return _popular(model, None, n, _rows(model.items, exclude_items), None)


def _rows(items: Vocabulary, item_ids: Iterable[str]) -> ItemIndices:
    """ItemIndices of the ids that are known, in order."""
    return np.array([row for item_id in item_ids if (row := items.find(item_id)) is not None], dtype=np.int64)


def _extended(history: ItemIndices, recent: ItemIndices) -> ItemIndices:
    """The history with what came since at its end; an item that comes again counts where it came last."""
    rows = [*history.tolist(), *recent.tolist()]
    return np.array(list(dict.fromkeys(reversed(rows)))[::-1], dtype=np.int64)


def _best_items(
    model: ServingModel, history: ItemIndices, n: int, excluded: ItemIndices, among: ItemIndices | None
) -> list[RankedItem]:
    user = model.network.user(history)
    best, logits = best_items(model.network, model.bounds, user, n, excluded=excluded, among=among)
    return _ranked(model.items, best, sigmoid(logits))


def _popular(
    model: ServingModel, user_id: str | None, n: int, excluded: ItemIndices, among: ItemIndices | None
) -> Recommendations:
    best = _top_n_among(model.popularity, n, excluded, among)
    items = _ranked(model.items, best, model.popularity[best])
    return Recommendations(user_id, Strategy.POPULAR, model.version, items)


def _top_n_among(values: Floats, n: int, excluded: ItemIndices, among: ItemIndices | None) -> ItemIndices:
    if among is not None:
        return among[top_n(values[among], n, excluded=np.flatnonzero(np.isin(among, excluded)))]
    return top_n(values, n, excluded=excluded)


def _ranked(items: Vocabulary, best: ItemIndices, scores: Floats) -> list[RankedItem]:
    return ranked_items(zip(items.at(best), scores.tolist(), strict=True))


def ranked_items(items: Iterable[tuple[str, float]]) -> list[RankedItem]:
    """Vocabulary and scores, best first, as they are answered."""
    return [RankedItem(item_id, rank, score) for rank, (item_id, score) in enumerate(items, start=1)]


def top_n(values: Floats, n: int, *, excluded: ItemIndices) -> ItemIndices:
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
