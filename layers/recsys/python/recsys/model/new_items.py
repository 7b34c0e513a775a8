"""Store new items, and merge their ranking with the ranking of the model's items.

New items have no interactions. Their embeddings are computed from their attributes. The arrays of new items are stored
separately, so that the model's arrays are not copied. The indices of the new items follow the indices of the model's
items. Therefore the first new item has the index `n_items`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats, ItemIndices, Network
from recsys.model.pruned_search import Bounds
from recsys.model.vocabulary import Vocabulary


class ItemRows(NamedTuple):
    """The four arrays of a `Network` that have one row per item, (n, dim) each."""

    history_gmf: Floats
    history_hidden_1: Floats
    item_gmf: Floats
    item_hidden_1: Floats

    @classmethod
    def of(cls, network: Network) -> Self:
        """Return the item arrays of a network."""
        return cls(network.history_gmf, network.history_hidden_1, network.item_gmf, network.item_hidden_1)

    def in_network(self, network: Network) -> Network:
        """Return a network for the items of these arrays, with all other weights of the given network."""
        return replace(
            network,
            history_gmf=self.history_gmf,
            history_hidden_1=self.history_hidden_1,
            item_gmf=self.item_gmf,
            item_hidden_1=self.item_hidden_1,
        )


class NewItems(NamedTuple):
    """New items, and the network and bounds for ranking them.

    Parameters
    ----------
    items
        Item ids.
    network
        The model's network, in which the rows of the new items replace the rows of the model's items.
    bounds
        Bounds for the exact search among the new items.
    """

    items: Vocabulary
    network: Network
    bounds: Bounds

    @classmethod
    def of(cls, item_ids: Sequence[str], network: Network, rows: ItemRows) -> Self:
        """Build a network that scores the new items, and the bounds for searching it.

        Parameters
        ----------
        item_ids
            Ids of the new items, at least one. The ids are distinct, and the model contains none of them.
        network
            Network of the model. All its weights are kept, except for the item arrays.
        rows
            Item arrays of the new items, which replace those of the model. Row k belongs to `item_ids[k]`.
        """
        network = rows.in_network(network)
        return cls(Vocabulary.of(item_ids), network, Bounds.of(network))

    @property
    def size_bytes(self) -> int:
        """Memory of the item arrays of `network`, in bytes."""
        return sum(array.nbytes for array in ItemRows.of(self.network))


class StackedRows(NamedTuple):
    """The rows of the model's items followed by the rows of the new items, stored as two arrays."""

    known: Floats
    new: Floats

    def take(self, indices: Sequence[int] | NDArray[np.integer]) -> Floats:
        """Return a copy of the rows with the given indices, (n, dim) float32."""
        index = np.asarray(indices, dtype=np.int64)
        is_new = index >= len(self.known)
        rows = self.known.take(np.where(is_new, 0, index), axis=0)
        rows[is_new] = self.new[index[is_new] - len(self.known)]
        return rows

    @property
    def n_rows(self) -> int:
        """Number of rows of the known items and of the new items together."""
        return len(self.known) + len(self.new)


def network_of_items(network: Network, new_items: NewItems | None, indices: ItemIndices) -> Network:
    """Return a network that contains only some items. Its item j is the item with the index `indices[j]`."""
    known = ItemRows.of(network)
    if new_items is None:
        return ItemRows(*(array.take(indices, axis=0) for array in known)).in_network(network)
    tables = zip(known, ItemRows.of(new_items.network), strict=True)
    return ItemRows(*(StackedRows(*arrays).take(indices) for arrays in tables)).in_network(network)


def item_ids_at(items: Vocabulary, new_items: NewItems, indices: ItemIndices) -> list[str]:
    """Return the ids of the items with the given indices, which may belong to the model's items or to new items."""
    return [items[index] if index < len(items) else new_items.items[index - len(items)] for index in indices.tolist()]


def merged(
    known: tuple[ItemIndices, Floats], new: tuple[ItemIndices, Floats], n: int, *, n_known: int
) -> tuple[ItemIndices, Floats]:
    """Merge the ranking of the model's items with the ranking of the new items, and return the `n` best items.

    Parameters
    ----------
    known, new
        Two rankings. Each is a pair of item indices and logits, best first, (n,) each. The indices of new items count
        from 0.
    n
        Length of the result. It is shorter if both rankings together have fewer items.
    n_known
        Number of the model's items. The function adds this number to the indices of the new items.

    Examples
    --------
    >>> known = np.array([4, 2]), np.array([3.0, 1.0], np.float32)
    >>> items, logits = merged(known, (np.array([0]), np.array([2.0], np.float32)), 2, n_known=5)
    >>> items.tolist(), logits.tolist()
    ([4, 5], [3.0, 2.0])
    """
    items = np.concatenate([known[0], new[0] + n_known])
    logits = np.concatenate([known[1], new[1]])
    order = np.argsort(-logits, kind="stable")[:n]
    return items[order], logits[order]
