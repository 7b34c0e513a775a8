"""The content part of a model, which computes the embeddings of items without interactions from their attributes.

The embeddings of an item are the sum of the vectors of its features, plus a constant. A feature is a word of the title,
a tag, or the value of another text column. The vectors are fitted to the embeddings of the model's items by
`recsys_train.catalogue.content_fit`, so that the embeddings of a new item belong to the same space.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from recsys.catalogue.catalogue import TITLE, Catalogue
from recsys.catalogue.columns import Column, TagsColumn, TextColumn, texts_of
from recsys.model.neumf import Floats, ItemIndices, Network
from recsys.model.new_items import ItemRows, NewItems
from recsys.model.vocabulary import Vocabulary

MAX_NEW_ITEMS: Final = 5000
"""Largest number of new items per model. At a width of 512 they take 21 MB. If a catalogue has more, the items that
were sent last are used."""
_LINKS: Final = ("url", "image_url")
_WORD: Final = re.compile(r"\w+")
_ITEMS_PER_SUM: Final = 1024


def features_of(catalogue: Catalogue, rows: Sequence[int]) -> Iterator[set[str]]:
    """Yield the set of features of each item, in the order of `rows`.

    Parameters
    ----------
    catalogue
        The catalogue.
    rows
        Rows of the items in the catalogue.

    Examples
    --------
    >>> titles = TextColumn(np.array([0], np.int32), Vocabulary.of(["Red MUG"]))
    >>> catalogue = Catalogue(Vocabulary.of(["A"]), {"title": titles})
    >>> [sorted(features) for features in features_of(catalogue, [0])]
    [['title=mug', 'title=red']]
    """
    columns = [(name, column) for name, column in catalogue.columns.items() if name not in _LINKS]
    for row in rows:
        yield {f"{name}={value}" for name, column in columns for value in _values(name, column, row)}


def _values(name: str, column: Column, row: int) -> list[str]:
    match column:
        case TextColumn():
            text = column.value(row) or ""
            return _WORD.findall(text.casefold()) if name == TITLE else [text] if text else []
        case TagsColumn():
            return column.value(row)
    return []


@dataclass(frozen=True, slots=True, eq=False)
class ContentModel:
    """The content part of one version of a model.

    Parameters
    ----------
    features
        Row in `vectors` of each feature, by name of the feature.
    vectors
        The vector of each feature, (n_features, width) float32. The width is the sum of the widths of the arrays of
        `ItemRows`.
    constant
        The embeddings of an item without features, (width,) float32.
    """

    features: dict[str, int]
    vectors: Floats
    constant: Floats

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Self:
        """Restore a content part from the arrays that `arrays_of` returned.

        Raises
        ------
        ValueError, KeyError
            The arrays are inconsistent, contain numbers that are not finite, or are incomplete.
        """
        names, vectors, constant = texts_of(arrays), arrays["vectors"], arrays["constant"]
        if vectors.dtype != np.float32 or constant.dtype != np.float32 or vectors.shape != (len(names), len(constant)):
            raise ValueError(f"vectors has the shape {vectors.shape} for {len(names)} features")
        if not np.isfinite(vectors).all() or not np.isfinite(constant).all():
            raise ValueError("the content part holds numbers that are not finite")
        return cls({name: row for row, name in enumerate(names)}, vectors, constant)

    def new_items(self, catalogue: Catalogue, rows: NDArray[np.int64], network: Network) -> NewItems | None:
        """Compute the embeddings of the new items of a catalogue that have at least one known feature.

        Parameters
        ----------
        catalogue
            The catalogue.
        rows
            Rows of the items that the model does not contain, in ascending order, (n,).
        network
            The network to which the content part was fitted.

        Returns
        -------
        NewItems or None
            At most `MAX_NEW_ITEMS` items, in the order of the rows. None if no item has a known feature.

        Raises
        ------
        ValueError
            The content part belongs to a network with other widths.
        """
        widths = [array.shape[1] for array in ItemRows.of(network)]
        if sum(widths) != len(self.constant):
            raise ValueError(
                f"the content part has the width {len(self.constant)}, but the network has the width {sum(widths)}"
            )
        newest = rows[-MAX_NEW_ITEMS:].tolist()
        known = [
            (row, found)
            for row, features in zip(newest, features_of(catalogue, newest), strict=True)
            if (found := sorted(self.features[name] for name in features if name in self.features))
        ]
        if not known:
            return None
        embeddings = self._embed([found for _, found in known])
        parts = [np.ascontiguousarray(part) for part in np.split(embeddings, np.cumsum(widths)[:-1], axis=1)]
        return NewItems.of(catalogue.items.at(np.array([row for row, _ in known])), network, ItemRows(*parts))

    def _embed(self, features: list[list[int]]) -> Floats:
        """Return the embeddings of items from their features, (n, width) float32.

        `features` holds one list per item. The list is not empty and contains rows of `vectors`.
        """
        embeddings = np.empty((len(features), len(self.constant)), dtype=np.float32)
        for begin in range(0, len(features), _ITEMS_PER_SUM):
            part = features[begin : begin + _ITEMS_PER_SUM]
            starts = np.cumsum([0, *map(len, part[:-1])])
            rows: ItemIndices = np.concatenate([np.array(each, dtype=np.int64) for each in part])
            embeddings[begin : begin + len(part)] = np.add.reduceat(self.vectors[rows], starts, axis=0) + self.constant
        return embeddings


def arrays_of(names: Vocabulary, vectors: Floats, constant: Floats) -> dict[str, NDArray[Any]]:
    """Return the arrays that store a content part in a file, keyed by name. `names` lists the features.

    `ContentModel.of` restores the content part from these arrays.
    """
    return {
        "text": names.text,
        "text_starts": names.starts,
        "text_order": names.order,
        "vectors": vectors,
        "constant": constant,
    }
