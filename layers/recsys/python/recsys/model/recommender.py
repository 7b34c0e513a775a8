"""Recommend items to users. The functions compute a ranked list from a model and a query, independently of HTTP.

All functions recommend the best items for an interaction history. The history of a known user comes from the training
data and is extended by the recent items of the request. The history of an unknown user consists of the recent items
alone. The similar items of an item are the items recommended for a history of that single item. Without any history,
the most popular items are recommended.

Examples
--------
A model of two users and three items, in which users of "cup" like "tea" more than "pot":

>>> from recsys.model.neumf import Dims
>>> dims = Dims(n_users=2, n_items=3, gmf_dim=1, mlp_dim=1, hidden_dims=(1,))
>>> shapes = dims.weight_shapes() | dims.map_shapes()
>>> weights = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
>>> weights |= {"gmf_map": np.ones((3, 1), np.float32), "output_kernel": np.ones((2, 1), np.float32)}
>>> weights["gmf_item"] = np.array([[0], [2], [1]], np.float32)
>>> network = Network.from_weights(dims, weights, decay=1.0)
>>> model = ServingModel(
...     version="job.1",
...     users=Vocabulary.of(["ann", "bob"]),
...     items=Vocabulary.of(["cup", "tea", "pot"]),
...     network=network,
...     bounds=Bounds.of(network),
...     seen_starts=np.array([0, 1, 2]),
...     seen_items=np.array([0, 2], np.int32),
...     popularity=np.array([0.5, 0, 0.5], np.float32),
...     size_bytes=0,
... )
>>> found = recommend(model, "ann", n=2)
>>> found.strategy.value, [(item.item_id, item.rank, round(item.score, 2)) for item in found.items]
('personal', [('tea', 1, 0.88), ('pot', 2, 0.73)])
>>> found = recommend(model, "eve", n=2, recent_items=["tea"])
>>> found.strategy.value, [item.item_id for item in found.items]
('session', ['pot', 'cup'])
>>> [item.item_id for item in similar(model, "tea", n=1)]
['pot']
>>> [(item.item_id, item.score) for item in popular(model, n=1).items]
[('cup', 0.5)]
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ItemNotFound
from recsys.model.choosing import UNCONSTRAINED, Constraints, Ranking, choose
from recsys.model.history_ranking import HistoryRanking, embeddings_of, items_within
from recsys.model.neumf import Floats, ItemIndices, Network, User, sigmoid
from recsys.model.new_items import NewItems, item_ids_at, network_of_items
from recsys.model.pruned_search import Bounds
from recsys.model.top_n import best_values
from recsys.model.vocabulary import Vocabulary


class Strategy(StrEnum):
    """The data from which a list of recommendations was computed."""

    PERSONAL = "personal"
    """The history of a user in the training data, extended by the recent items of the request."""
    SESSION = "session"
    """The recent items of a user who is not in the training data."""
    POPULAR = "popular"
    """Popularity, because there is no history."""


@dataclass(frozen=True, slots=True, eq=False)
class ServingModel:
    """One version of a tenant's model, ready to serve recommendations.

    Load a model with `read_model` or `read_folder` of `recsys.model.artifact`.

    Parameters
    ----------
    version
        Name of the version.
    users, items
        User ids and item ids. The index of an id is the row of the user or item in the arrays below.
    network
        The NeuMF model.
    bounds
        Bounds for the exact search, see `recsys.model.pruned_search`.
    seen_starts
        Offset of each user's history in `seen_items`, followed by the length of `seen_items`, (n_users + 1,) int64.
    seen_items
        Item indices of all histories, concatenated, (n_interactions,) int32. Each history is in order, oldest first.
    popularity
        Share of users who interacted with each item, (n_items,) float32 in [0, 1].
    size_bytes
        Memory of the model, in bytes.
    new_items
        Items without interactions that can also be ranked. Their indices follow the indices of the model's items.
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
    new_items: NewItems | None = None

    def seen(self, user_index: int) -> NDArray[np.int32]:
        """Return the item indices of a user's history, oldest first, (n,) int32."""
        return self.seen_items[self.seen_starts[user_index] : self.seen_starts[user_index + 1]]

    def find_item(self, item_id: str) -> int | None:
        """Return the index of an item of the model or of a new item, or None if there is no such item."""
        index = self.items.find(item_id)
        if index is not None or self.new_items is None:
            return index
        row = self.new_items.items.find(item_id)
        return None if row is None else len(self.items) + row

    def item_ids(self, indices: ItemIndices) -> list[str]:
        """Return the ids of the items with the given indices, in the same order."""
        return self.items.at(indices) if self.new_items is None else item_ids_at(self.items, self.new_items, indices)

    def network_of(self, indices: ItemIndices) -> Network:
        """Return a network that contains only some items. Its item j is the item with the index `indices[j]`."""
        return network_of_items(self.network, self.new_items, indices)

    def user(self, history: ItemIndices) -> User:
        """Compute the user's part of every logit from the interaction history, which may contain new items."""
        if self.new_items is None or (history < len(self.items)).all():
            return self.network.user(history)
        return self.network_of(history).user(np.arange(len(history)))


class RankedItem(NamedTuple):
    """A recommended item. `rank` counts from 1, and `score` is in [0, 1]."""

    item_id: str
    rank: int
    score: float


class Recommendations(NamedTuple):
    """The items recommended to one user, best first. `user_id` is None for a request without a user."""

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
    constraints: Constraints = UNCONSTRAINED,
) -> Recommendations:
    """Recommend the `n` best items to a user.

    Item ids that neither the model nor its new items contain are ignored in all parameters.

    Parameters
    ----------
    model
        The model.
    user_id
        The user, known or unknown. None stands for a request without a user, for example for a shopping basket.
    n
        Length of the list, at least 0. It is shorter if fewer items are left.
    recent_items
        Items that the user interacted with after the model was trained, oldest first. They are appended to the history.
        An item that the history already contains moves to the end.
    exclude_seen
        Whether to leave out the items of the history, including `recent_items`.
    exclude_items
        Further items to leave out.
    candidates
        Ids of the only items to rank. None means all items.
    constraints
        Eligible items, limits per group and diversity.

    Returns
    -------
    Recommendations
        The items, best first. Items with equal scores are in the order of the model's item indices. A score is the
        predicted probability of an interaction for the strategies `PERSONAL` and `SESSION`, and the share of users who
        interacted with the item for `POPULAR`.
    """
    is_known, history = history_of(model, user_id, recent_items)
    excluded = _indices(model, exclude_items)
    if exclude_seen:
        excluded = np.concatenate([excluded, history]) if len(excluded) else history
    eligible = None if candidates is None else np.unique(_indices(model, candidates))
    if not is_known and len(history) == 0:
        return _recommend_popular(model, user_id, n, excluded, eligible, constraints)
    strategy = Strategy.PERSONAL if is_known else Strategy.SESSION
    items = _rank_for_history(model, history, n, excluded, eligible, constraints)
    return Recommendations(user_id, strategy, model.version, items)


def history_of(model: ServingModel, user_id: str | None, recent_items: Sequence[str] = ()) -> tuple[bool, ItemIndices]:
    """Return whether the model contains a user, and the item indices of the history that `recommend` uses.

    The history is an array (n,) int64, oldest item first. It includes the recent items.
    """
    user_index = None if user_id is None else model.users.find(user_id)
    history = np.zeros(0, dtype=np.int64) if user_index is None else model.seen(user_index).astype(np.int64)
    if recent_items:
        history = _extend_history(history, _indices(model, recent_items))
    return user_index is not None, history


def similar(
    model: ServingModel,
    item_id: str,
    *,
    n: int,
    exclude_items: Collection[str] = (),
    constraints: Constraints = UNCONSTRAINED,
) -> list[RankedItem]:
    """Return the `n` items that are recommended to a user whose history is this single item.

    Parameters
    ----------
    model
        The model.
    item_id
        Id of the item. The result never contains this item.
    n
        Length of the list, at least 0. It is shorter if fewer items are left.
    exclude_items
        Further items to leave out. Unknown ids are ignored.
    constraints
        Eligible items, limits per group and diversity.

    Returns
    -------
    list of RankedItem
        The items, best first. A score is the predicted probability of an interaction.

    Raises
    ------
    ItemNotFound
        Neither the model nor its new items contain `item_id`.
    """
    item_index = model.find_item(item_id)
    if item_index is None:
        raise ItemNotFound(f"Item {item_id!r} is not in model version {model.version}.")
    history = np.array([item_index])
    excluded = np.concatenate([_indices(model, exclude_items), history])
    return _rank_for_history(model, history, n, excluded, None, constraints)


def popular(
    model: ServingModel, *, n: int, exclude_items: Collection[str] = (), constraints: Constraints = UNCONSTRAINED
) -> Recommendations:
    """Return the `n` items with which the most users interacted.

    Parameters
    ----------
    model
        The model.
    n
        Length of the list, at least 0. It is shorter if fewer items are left.
    exclude_items
        Items to leave out. Unknown ids are ignored.
    constraints
        Eligible items, limits per group and diversity.

    Returns
    -------
    Recommendations
        The items, most popular first. The scores are shares of users, in [0, 1].
    """
    return _recommend_popular(model, None, n, _indices(model, exclude_items), None, constraints)


def _indices(model: ServingModel, item_ids: Iterable[str]) -> ItemIndices:
    """Return the indices of item ids. Unknown ids are skipped."""
    return np.array([index for item_id in item_ids if (index := model.find_item(item_id)) is not None], dtype=np.int64)


def _extend_history(history: ItemIndices, recent: ItemIndices) -> ItemIndices:
    """Append recent items to a history. An item that occurs several times is kept only at its last position."""
    indices = [*history.tolist(), *recent.tolist()]
    return np.array(list(dict.fromkeys(reversed(indices)))[::-1], dtype=np.int64)


def _rank_for_history(
    model: ServingModel,
    history: ItemIndices,
    n: int,
    excluded: ItemIndices,
    candidates: ItemIndices | None,
    constraints: Constraints,
) -> list[RankedItem]:
    user = model.user(history)
    ranking = HistoryRanking(model.network, model.bounds, model.new_items, user, excluded, candidates)
    best, logits = ranking.best(n, constraints)
    return number_ranks(model.item_ids(best), sigmoid(logits).tolist())


def _recommend_popular(
    model: ServingModel,
    user_id: str | None,
    n: int,
    excluded: ItemIndices,
    candidates: ItemIndices | None,
    constraints: Constraints,
) -> Recommendations:
    """Recommend the most popular items of the model. New items are left out, because they have no popularity."""
    n_known = model.network.n_items

    def rank(n_best: int, eligible: NDArray[np.bool_] | None) -> Ranking:
        best = best_values(
            model.popularity,
            n_best,
            items_within(excluded, 0, n_known),
            None if candidates is None else items_within(candidates, 0, n_known),
            None if eligible is None else eligible[:n_known],
        )
        return best, model.popularity[best]

    table = embeddings_of(model.network, model.new_items)
    best, popularity = choose(rank, n, constraints, table, to_relevance=lambda values: values)
    items = number_ranks(model.items.at(best), popularity.tolist())
    return Recommendations(user_id, Strategy.POPULAR, model.version, items)


def number_ranks(item_ids: Sequence[str], scores: Sequence[float]) -> list[RankedItem]:
    """Combine ids and scores, both best first, into ranked items. Ranks count from 1."""
    return list(map(RankedItem, item_ids, range(1, len(item_ids) + 1), scores))
