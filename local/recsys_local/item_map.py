"""Compute a map of the items in two dimensions, and examples of similar items, for the training report.

The method is Laplacian eigenmaps (Belkin & Niyogi, "Laplacian Eigenmaps for Dimensionality Reduction and Data
Representation", 2003). The method draws the graph of nearest neighbours so that neighbours are close. The similarity of
two items is the cosine of their GMF embeddings, as in `recsys.model.choosing`. A principal component analysis would
show hardly any structure, because the embeddings spread over hundreds of dimensions
(docs/decisions/0060-training-report.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import NormalDist
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats
from recsys.model.recommender import ServingModel, similar

MAX_SHOWN: Final = 1_500
"""Largest number of items on the map, which shows the most popular items. More items would overlap, and each item adds
about 60 bytes to the page."""
N_NEIGHBOURS: Final = 10
"""Number of nearest neighbours per item, a usual choice for such graphs. Not tuned."""
_FAINT: Final = 1e-4
"""Weight of two items that are not neighbours. It connects separate parts of the graph."""
N_EXAMPLES: Final = 12
N_SIMILAR: Final = 4


def map_items(model: ServingModel, titles: Mapping[str, str]) -> dict[str, Any]:
    """Return the positions of the most popular items on the map, and examples of similar items.

    Parameters
    ----------
    model
        The model.
    titles
        Titles by item id. The map shows the id of an item without a title.

    Returns
    -------
    dict
        A JSON object with three members. `points` lists `[x, y, share of users, name]` per item, most popular first.
        `n_items` is the number of items of the model. `examples` lists the most popular items, each with the items that
        `GET /v1/items/{item_id}/similar` returns.
    """
    shown = np.argsort(-model.popularity, kind="stable")[:MAX_SHOWN]
    positions = project(model.network.item_gmf[shown])
    names = [_name(item_id, titles) for item_id in model.items.at(shown)]
    points = [
        [round(x, 3), round(y, 3), float(f"{model.popularity[item]:.3g}"), name]
        for (x, y), item, name in zip(positions.tolist(), shown.tolist(), names, strict=True)
    ]
    return {
        "points": points,
        "n_items": len(model.items),
        "examples": [_example(model, item_id, titles) for item_id in model.items.at(shown[:N_EXAMPLES])],
    }


def project(embeddings: Floats) -> NDArray[np.float64]:
    """Return a position for each item, (n_items, 2) float64, so that items with similar embeddings are close.

    Each coordinate is replaced by the normal score of its rank. Otherwise, a few distant items would crowd all other
    items into a small area. The coordinates of the first item are never negative, so that the same model always yields
    the same map.

    Parameters
    ----------
    embeddings
        Embeddings of the items, (n_items, dim) float32. Only their directions matter.

    Examples
    --------
    >>> tea, mugs = [[1, 0], [1, 0.1]], [[0, 1], [0.1, 1]]
    >>> (project(np.array(tea + mugs, dtype=np.float32))[:, 0] > 0).tolist()
    [True, True, False, False]
    """
    n_items = len(embeddings)
    positions = np.zeros((n_items, 2))
    if n_items > 2:
        weights = _neighbour_weights(embeddings)
        scale = 1 / np.sqrt(weights.sum(axis=1))
        _, vectors = np.linalg.eigh(scale[:, None] * weights * scale)  # eigenvalues ascend; the last one is 1
        for axis in range(2):
            positions[:, axis] = _normal_scores(scale * vectors[:, -2 - axis])
    return positions


def _neighbour_weights(embeddings: Floats) -> NDArray[np.float64]:
    """Return the symmetric weights of the graph, (n_items, n_items).

    The weight of two neighbours is their cosine, but at least `_FAINT`. The weight of any other two items is `_FAINT`.
    """
    norms = np.linalg.norm(embeddings, axis=1, keepdims=True)
    unit = embeddings.astype(np.float64) / np.where(norms > 0, norms, 1)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    n_neighbours = min(N_NEIGHBOURS, max(1, len(unit) // 2 - 1))
    neighbours = np.argpartition(-cosines, n_neighbours - 1, axis=1)[:, :n_neighbours]
    weights = np.full_like(cosines, _FAINT)
    np.put_along_axis(weights, neighbours, np.take_along_axis(cosines, neighbours, axis=1), axis=1)
    return np.maximum(np.maximum(weights, weights.T), _FAINT)


def _normal_scores(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normal score of each value, the quantile of the standard normal distribution at the value's rank.

    An eigenvector is determined only up to its sign. Therefore, all signs are changed if the first score is negative,
    so that the same data always yields the same scores.
    """
    ranks = np.argsort(np.argsort(values, kind="stable"), kind="stable")
    normal = NormalDist()
    scores = np.array([normal.inv_cdf((rank + 0.5) / len(values)) for rank in ranks.tolist()])
    return scores if scores[0] >= 0 else -scores


def _example(model: ServingModel, item_id: str, titles: Mapping[str, str]) -> dict[str, Any]:
    found = similar(model, item_id, n=N_SIMILAR)
    return {"name": _name(item_id, titles), "similar": [_name(item.item_id, titles) for item in found]}


def _name(item_id: str, titles: Mapping[str, str]) -> str:
    return titles.get(item_id, item_id)
