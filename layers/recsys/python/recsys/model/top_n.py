"""Select the n items with the largest values, or the n items with a user's largest logits.

`best_items` ranks items by `Network.exact_logits`, in float64. Two searches find the few items whose exact logits are
needed. Brute force computes every float32 logit and keeps the items within the rounding error of the n-th best. Pruned
search (`recsys.model.pruned_search`) computes every GMF part, but few MLPs. Both searches return exactly the same list.
The size of the catalogue decides which search is faster and therefore used.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats, ItemIndices, Network, User
from recsys.model.pruned_search import Bounds, lowered, mlp_parts, prune
from recsys.model.selection import nth_largest_bound

PRUNE_MIN_ITEMS: Final = 8000
"""Number of items from which `best_items` uses pruned search, as measured in docs/decisions/0036-exact-search.md."""

FEW_ELIGIBLE_FACTOR: Final = 64
"""If at most one item in 64 is eligible, computing the logits of the eligible items is faster than computing the GMF
parts of all items, as measured in docs/decisions/0050-filters.md."""


def top_n(values: Floats, n: int, *, excluded: ItemIndices) -> ItemIndices:
    """Return the indices of the `n` largest values, in the order that a stable sort of all values yields.

    Parameters
    ----------
    values
        The value of each item, (n_items,). All values are finite. The array is not modified.
    n
        Length of the list, at least 0. It is shorter if fewer items are left.
    excluded
        Indices that are never returned, (n_excluded,); they may repeat.

    Returns
    -------
    (≤ n,) int64
        Indices, largest value first; equal values in ascending order of their indices.

    Examples
    --------
    >>> values = np.array([0.1, 0.9, 0.5, 0.9], dtype=np.float32)
    >>> top_n(values, 2, excluded=np.array([1])).tolist()
    [3, 2]
    """
    if n == 0:
        return np.zeros(0, dtype=np.int64)
    eligible = np.array(values, dtype=np.float32)
    eligible[excluded] = -np.inf
    candidates = _near_best(eligible, n, margin=0)
    order = np.argsort(-eligible[candidates], kind="stable")
    return candidates[order[:n]]


def best_values(
    values: Floats,
    n: int,
    excluded: ItemIndices,
    candidates: ItemIndices | None,
    eligible: NDArray[np.bool_] | None,
) -> ItemIndices:
    """Return the indices of the `n` largest values among the items that may be returned.

    `values` (n_items,) holds one value per item. The other parameters are the same as in `best_items`.
    """
    if eligible is not None:
        candidates = np.flatnonzero(eligible) if candidates is None else candidates[eligible[candidates]]
    if candidates is None:
        return top_n(values, n, excluded=excluded)
    excluded_positions = np.flatnonzero(np.isin(candidates, excluded))
    return candidates[top_n(values[candidates], n, excluded=excluded_positions)]


def best_items(
    network: Network,
    bounds: Bounds,
    user: User,
    n: int,
    *,
    excluded: ItemIndices,
    candidates: ItemIndices | None = None,
    eligible: NDArray[np.bool_] | None = None,
) -> tuple[ItemIndices, Floats]:
    """Return a user's `n` best items and their exact logits.

    Parameters
    ----------
    network, bounds
        The model, and `Bounds.of(network)`.
    user
        The user's part of every logit, as returned by `network.user`.
    n
        Length of the list, at least 0. It is shorter if fewer items are left.
    excluded
        Items that are never returned, (n_excluded,); they may repeat.
    candidates
        Indices of the only items that may be returned, (n_candidates,); they may repeat. None means all items.
    eligible
        Mask of the only items that may be returned, (n_items,) bool. None means all items.

    Returns
    -------
    items : (≤ n,) int64
        Item indices, best first; equal logits in ascending order of the indices.
    logits : (≤ n,) float32
        The exact logits of these items, see `Network.exact_logits`.

    Examples
    --------
    >>> from recsys.model.neumf import Dims
    >>> dims = Dims(n_users=1, n_items=3, gmf_dim=1, mlp_dim=1, hidden_dims=(1,))
    >>> shapes = dims.weight_shapes() | dims.map_shapes()
    >>> weights = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    >>> weights["gmf_item"] = np.array([[0.0], [2.0], [1.0]], dtype=np.float32)
    >>> network = Network.from_weights(dims, weights, decay=0.0)
    >>> user = network.user(np.array([0]))
    >>> items, logits = best_items(network, Bounds.of(network), user, 2, excluded=np.array([0]))
    >>> items.tolist(), logits.tolist()
    ([1, 2], [6.0, 5.0])
    """
    if n == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    margin = 2 * bounds.error(user)
    if eligible is not None:
        candidates = _few_eligible(eligible, candidates)
    if candidates is not None:
        items = _search_candidates(network, user, n, np.setdiff1d(candidates, excluded), margin)
    elif network.n_items >= PRUNE_MIN_ITEMS:
        items = _search_pruned(network, bounds, user, n, excluded, margin, eligible)
    else:
        items = _search_all(network, user, n, excluded, margin, eligible)
    exact = network.exact_logits(user, items)
    order = np.argsort(-exact, kind="stable")[:n]  # `items` ascend, so ties are in order
    return items[order], exact[order]


def _few_eligible(eligible: NDArray[np.bool_], candidates: ItemIndices | None) -> ItemIndices | None:
    """Return the only items to search, or None if the whole catalogue must be searched.

    With candidates, the items to search are the eligible candidates. Without candidates, they are all eligible items if
    at most one item in `FEW_ELIGIBLE_FACTOR` is eligible. Otherwise the result is None.
    """
    if candidates is not None:
        return candidates[eligible[candidates]]
    is_few = np.count_nonzero(eligible) * FEW_ELIGIBLE_FACTOR <= len(eligible)
    return np.flatnonzero(eligible) if is_few else None


def _search_all(
    network: Network,
    user: User,
    n: int,
    excluded: ItemIndices,
    margin: float,
    eligible: NDArray[np.bool_] | None,
) -> ItemIndices:
    """Compute the float32 logits of all items, and return the items that can be among the `n` best."""
    logits = network.logits(user)
    logits[excluded] = -np.inf
    if eligible is not None:
        logits[~eligible] = -np.inf
    return _near_best(logits, n, margin)


def _search_pruned(
    network: Network,
    bounds: Bounds,
    user: User,
    n: int,
    excluded: ItemIndices,
    margin: float,
    eligible: NDArray[np.bool_] | None,
) -> ItemIndices:
    """Rule out most items by upper bounds on their logits, and return the items that can be among the `n` best."""
    gmf = network.item_gmf @ user.gmf
    gmf[excluded] = -np.inf
    if eligible is not None:
        np.copyto(gmf, -np.inf, where=~eligible)
    items, logits = prune(network, bounds, user, n, gmf, margin)
    return items[_near_best(logits, n, margin)]


def _search_candidates(network: Network, user: User, n: int, candidates: ItemIndices, margin: float) -> ItemIndices:
    """Compute the float32 logits of the candidates, and return those that can be among the `n` best."""
    logits = network.item_gmf[candidates] @ user.gmf + mlp_parts(network, user.mlp, candidates)
    return candidates[_near_best(logits, n, margin)]


def _near_best(logits: Floats, n: int, margin: float) -> ItemIndices:
    """Return the ascending indices of all logits that are at most `margin` below the n-th largest logit.

    The result can contain a few smaller logits, but never a logit of -inf.
    """
    return np.flatnonzero(logits >= lowered(float(nth_largest_bound(logits, n)) - margin))
