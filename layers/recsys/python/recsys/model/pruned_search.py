"""Rule out items that cannot be among a user's n best, without computing the MLP for these items.

A logit is the sum of a GMF part, one dot product per item, and an MLP part, which takes some thousand multiplications.
One matrix-vector product computes the GMF parts of all items. The MLP part is f(a + b), where a is the user's part and
b the item's part of the first layer before its ReLU. The sum tops + slack is an upper bound on f(a + b). An item is
therefore ruled out if

    gmf + tops + slack  <  floor        with  tops = f(a + c),  floor = n-th best logit of some items - margin      (1)

Here c is the nearest to b of at most `MAX_CENTRES` centres. f is computed for the centres, for a few items that are
likely to be good, and for the items that (1) does not rule out. `reach` is the largest slack of a centre's items.
Therefore

    gmf  <  floor - max over all centres of (tops + reach)                                                          (2)

rules out most items before their centres are even looked up. f(a + b) exceeds f(a + c) by at most

    slack = min(L |b - c|,  sum_j rising_j max(b_j - c_j, 0) + falling_j max(c_j - b_j, 0))                         (3)

**First bound.** L is a Lipschitz constant of f, computed as in Combettes & Pesquet, "Lipschitz certificates for layered
network structures driven by averaged activation operators", SIAM J. Math. Data Sci. 2020. If two inputs of a ReLU
differ by d, its outputs differ by (d + e) / 2 with |e| <= |d|, because relu(x) = (x + |x|) / 2. When this equation is
expanded through all layers, the difference of the outputs is the mean over all choices of d or e at each ReLU. Only the
norm of e is known. A choice therefore contributes at most a product of spectral norms. Each factor is the norm of the
product of all kernels between two consecutive ReLUs with the choice e. For the models that were tried, the mean is a
third less than the product of the norms of all kernels. The first ReLU has no kernel before it and does not increase
distances.

**Second bound.** f is piecewise linear. Its slope along unit j is the sum, over all paths from j to the output through
active units, of the product of the weights on the path. The slope is therefore at most `rising_j`, the sum of all
positive products, and at least -`falling_j`, the sum of all negative products. In narrow networks, the second bound is
smaller than the first. For the widths 16-16-8, the second bound is half of L |b - c|. For the widths 64-32-16-8, it is
three times L |b - c|.

**Rounding.** Items are ranked by `Network.exact_logits`, whose result for an item does not depend on the other items of
a call. A float32 logit can depend on the other items. Float32 logits are therefore used only to rule items out, with
the margin 2 `Bounds.error`, which exceeds their rounding error. The result is exactly the ranking of all items by their
exact logits.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats, ItemIndices, Network, User
from recsys.model.selection import nth_largest_bound

ITEMS_PER_CENTRE: Final = 16
"""Number of items per centre in small catalogues. A request spends as much time on a centre as on an item. Not tuned.
"""
MAX_CENTRES: Final = 256
"""Largest number of centres. 1,024 centres were tried without gain, see docs/decisions/0036-exact-search.md."""
_SAMPLE: Final = 2**16
"""Largest number of items to which the centres are fitted, which is 256 per centre. More items would only lengthen
training. Not tuned."""
_LLOYD_STEPS: Final = 4
"""Number of k-means steps. The bounds hold for any centres, and further steps hardly move the centres. Not tuned."""
_BLOCK: Final = 1024
"""Number of items for which the MLP is computed together, so that the hidden units stay in the CPU cache."""
_FIRST_ITEMS_FACTOR: Final = 2
_FIRST_ITEMS_EXTRA: Final = 32
"""The floor comes from the 2 n + 32 items with the largest GMF parts. These are more than n items, because the MLP
reorders the items, but still few, because each needs an MLP evaluation. Not tuned."""
LOWEST: Final = float(np.finfo(np.float32).min)
"""The lowest finite float32 number. The logits of excluded items are lower."""
_UNIT_ROUNDOFF: Final = 2.0**-24
"""Largest relative error of one float32 operation."""
_ROUNDED_UP: Final = 1 + 1e-6
"""Factor that covers the rounding of a bound, which is computed in float64 and stored in float32."""


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """Upper bounds on the MLP part of every item's logit, which hold for all users.

    Each item belongs to one of a few cluster centres. The MLP part of an item's logit exceeds the MLP part computed for
    its centre by at most the item's slack. Use `Bounds.of` to compute the bounds of a network, and `Bounds.from_arrays`
    to restore stored bounds.

    Parameters
    ----------
    centres
        Cluster centres of the items' parts of the first layer before its ReLU, (n_centres, hidden_1) float32.
    cluster
        Index of each item's centre, (n_items,) uint16.
    slack
        Slack of each item, rounded up, (n_items,) float32.
    rounding
        Coefficients from which `error` computes a bound on rounding errors, (3,) float64.
    reach
        Largest slack among the items of each centre, (n_centres,) float32.
    """

    centres: Floats
    cluster: NDArray[np.uint16]
    slack: Floats
    rounding: NDArray[np.float64]
    reach: Floats

    @classmethod
    def from_arrays(
        cls, centres: Floats, cluster: NDArray[np.uint16], slack: Floats, rounding: NDArray[np.float64]
    ) -> Self:
        """Restore bounds from the four stored arrays. `reach` is computed from `cluster` and `slack`."""
        reach = np.zeros(len(centres), dtype=np.float32)
        np.maximum.at(reach, cluster, slack)
        return cls(centres, cluster, slack, rounding, reach)

    @classmethod
    def of(cls, network: Network) -> Self:
        """Compute the bounds of a network. The result is deterministic."""
        n_centres = min(MAX_CENTRES, max(1, network.n_items // ITEMS_PER_CENTRE))
        centres = _fit_centres(network.item_hidden_1, n_centres)
        cluster, distances = _nearest_centres(centres, network.item_hidden_1)
        slope_slack = _slope_slack(network, centres, cluster)
        slack = np.minimum(lipschitz_constant(network) * distances, slope_slack) * _ROUNDED_UP
        return cls.from_arrays(centres, cluster.astype(np.uint16), _round_up(slack), _rounding(network))

    def error(self, user: User) -> float:
        """Return an upper bound on the rounding error of a user's float32 logits and of their float32 upper bounds.

        The result is `rounding @ [1, |user.gmf|, |user.mlp|]` and holds for every item. The error of a dot product of
        length m is at most gamma(m) |x| |y|, in any order of summation (Higham, "Accuracy and Stability of Numerical
        Algorithms", §3.1), and an MLP layer multiplies the error of its input by at most the norm of its kernel.
        """
        base, per_gmf, per_mlp = self.rounding.tolist()
        gmf, mlp = math.sqrt(user.gmf @ user.gmf), math.sqrt(user.mlp @ user.mlp)
        return float(base + per_gmf * gmf + per_mlp * mlp)

    def errors(self, users: User) -> NDArray[np.float64]:
        """Return the result of `error` for each user of a batch, (n_users,)."""
        gmf, mlp = np.vecdot(users.gmf, users.gmf), np.vecdot(users.mlp, users.mlp)
        errors: NDArray[np.float64] = self.rounding @ np.stack([np.ones_like(gmf), np.sqrt(gmf), np.sqrt(mlp)])
        return errors


# -- per request


def prune(
    network: Network, bounds: Bounds, user: User, n: int, gmf: Floats, margin: float
) -> tuple[ItemIndices, Floats]:
    """Return the indices of the items that can be among the user's `n` best, and their float32 logits, (n_left,) each.

    Parameters
    ----------
    network, bounds
        The model, and `Bounds.of(network)`.
    user
        The user.
    n
        Number of requested items, at least 1.
    gmf
        GMF part of the logit of every item, (n_items,). The entries of excluded items are -inf.
    margin
        Twice the rounding error of the user's logits, see `Bounds.error`.
    """
    n_first = _FIRST_ITEMS_FACTOR * n + _FIRST_ITEMS_EXTRA
    # Any n eligible items yield a valid floor, so ties at the bound may be cut off.
    first = np.flatnonzero(gmf >= lowered(float(nth_largest_bound(gmf, n_first))))[: 2 * n_first]
    if len(first) <= n:  # there are hardly more eligible items than n, so none can be ruled out
        items = np.flatnonzero(gmf > -np.inf)
        return items, gmf[items] + mlp_parts(network, user.mlp, items)
    floor = float(np.partition(gmf[first] + mlp_parts(network, user.mlp, first), -n)[-n]) - margin
    tops = network.mlp_outputs(user.mlp + bounds.centres)
    items = np.flatnonzero(gmf >= lowered(floor - float((tops + bounds.reach).max())))  # (2)
    uppers = gmf[items] + tops[bounds.cluster[items]] + bounds.slack[items]
    items = items[uppers >= lowered(floor)]  # (1)
    return items, gmf[items] + mlp_parts(network, user.mlp, items)


def mlp_parts(network: Network, user_halves: Floats, items: ItemIndices) -> Floats:
    """Compute the MLP parts of the logits of some items, (n,) float32.

    `user_halves` is the user's part of the first MLP layer before its ReLU. Its shape is (hidden_1,) if all logits
    belong to one user, or (n, hidden_1) with one row per item.
    """
    outputs = np.empty(len(items), dtype=np.float32)
    for begin in range(0, len(items), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        hidden = network.item_hidden_1[items[block]]
        hidden += user_halves if user_halves.ndim == 1 else user_halves[block]
        outputs[block] = network.mlp_outputs(hidden)
    return outputs


# -- per network: slack


def lipschitz_constant(network: Network) -> float:
    """Return a constant L such that |f(x) - f(y)| <= L |x - y| for all x and y.

    The function f maps the inputs of the first ReLU to the MLP part of a logit.
    """
    kernels = [kernel.astype(np.float64) for kernel in (*network.mlp_kernels, network.output_mlp[:, None])]
    choices = itertools.product((False, True), repeat=len(kernels) - 1)
    return _ROUNDED_UP * float(np.mean([_product_of_norms(kernels, cuts) for cuts in choices]))


def _product_of_norms(kernels: list[NDArray[np.float64]], cuts: tuple[bool, ...]) -> float:
    """Split the kernels into groups, and return the product of the spectral norms of the groups.

    A group is the matrix product of consecutive kernels. If `cuts[k]` is true, a group ends after kernel k.
    """
    norm, product = 1.0, kernels[0]
    for kernel, is_cut in zip(kernels[1:], cuts, strict=True):
        if is_cut:
            norm, product = norm * _spectral_norm(product), kernel
        else:
            product = product @ kernel
    return norm * _spectral_norm(product)


def _spectral_norm(matrix: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(matrix, 2))


def slope_bounds(network: Network) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return bounds on the slope of a logit's MLP part along each unit of the first layer.

    The bounds are `rising` and `falling`, (hidden_1,) each. The slope along unit j is in [-falling_j, rising_j].
    """
    output = network.output_mlp.astype(np.float64)
    rising, falling = np.maximum(output, 0), np.maximum(-output, 0)
    for kernel in reversed(network.mlp_kernels):
        positive, negative = np.maximum(kernel, 0), np.maximum(-kernel, 0)
        rising, falling = positive @ rising + negative @ falling, positive @ falling + negative @ rising
    return rising, falling


def _slope_slack(network: Network, centres: Floats, cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    """Compute the slack of every item from the bounds that `slope_bounds` returns, (n_items,)."""
    rising, falling = slope_bounds(network)
    slack = np.empty(network.n_items)
    for begin in range(0, network.n_items, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        difference = network.item_hidden_1[block].astype(np.float64) - centres[cluster[block]]
        slack[block] = np.maximum(difference, 0) @ rising + np.maximum(-difference, 0) @ falling
    return slack


def _round_up(values: NDArray[np.float64]) -> Floats:
    """Convert values to float32 so that no value decreases."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def round_down(thresholds: NDArray[np.floating]) -> Floats:
    """Convert thresholds to float32 so that no threshold increases.

    Comparing two float32 arrays is faster than comparing a float32 array with a float64 array.
    """
    return np.nextafter(thresholds.astype(np.float32), np.float32(-np.inf))


def lowered(threshold: float) -> float:
    """Decrease a threshold slightly, so that rounding the result to float32 cannot raise it above `threshold`.

    NumPy rounds a Python number to float32 before comparing the number with a float32 array. The decrease is twice the
    largest rounding error, plus the smallest positive float32 number for values near 0. The result is finite.
    """
    return max(threshold - (abs(threshold) * 2 * _UNIT_ROUNDOFF + 2.0**-149), LOWEST)


# -- per network: centres


def _fit_centres(points: Floats, n_centres: int) -> Floats:
    """Return the k-means centres of the points (n, dim), as an array (n_centres, dim).

    A few steps of Lloyd's algorithm fit the centres to a sample of the points.
    """
    generator = np.random.default_rng(0)
    sample = points[generator.permutation(len(points))[:_SAMPLE]]
    centres = sample[:n_centres].astype(np.float64)
    for _ in range(_LLOYD_STEPS):
        nearest, _ = _nearest_centres(centres.astype(np.float32), sample)
        counts = np.bincount(nearest, minlength=n_centres)
        order = np.argsort(nearest, kind="stable")
        filled = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[filled]
        centres[filled] = np.add.reduceat(sample[order], starts, axis=0, dtype=np.float64) / counts[filled, None]
    return centres.astype(np.float32)


def _nearest_centres(centres: Floats, points: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the index of the nearest centre of each point, and the distance to this centre, (n,) each.

    If two centres are almost equally near, either can be chosen, because distances are compared in float32. The result
    contains the distance to the chosen centre in float64.
    """
    nearest = np.empty(len(points), dtype=np.int64)
    distances = np.empty(len(points), dtype=np.float64)
    half_squares = np.square(centres).sum(axis=1) / 2
    for begin in range(0, len(points), _BLOCK):
        block = points[begin : begin + _BLOCK]
        nearest[begin : begin + _BLOCK] = chosen = (block @ centres.T - half_squares).argmax(axis=1)
        difference = block.astype(np.float64) - centres[chosen]
        distances[begin : begin + _BLOCK] = np.sqrt(np.square(difference).sum(axis=1))
    return nearest, distances


# -- per network: rounding errors


def _rounding(network: Network) -> NDArray[np.float64]:
    """Return the coefficients of `Bounds.error`, (3,) float64.

    The error is an affine function of the norms of the user's two vectors.
    """
    largest_gmf, largest_mlp = _largest_norm(network.item_gmf), _largest_norm(network.item_hidden_1)

    def error(gmf: float, mlp: float) -> float:
        """Return the error bound for a user with the norms `gmf` of `User.gmf` and `mlp` of `User.mlp`."""
        dot = largest_gmf * gmf
        gmf_error = gamma(network.item_gmf.shape[1]) * dot
        size = mlp + largest_mlp  # largest norm of a layer's units
        size_error = _UNIT_ROUNDOFF * size
        for kernel, bias in zip(network.mlp_kernels, network.mlp_biases, strict=True):
            exact, offset = kernel.astype(np.float64), float(np.linalg.norm(bias))
            own_error = gamma(len(kernel) + 2) * (_spectral_norm(np.abs(exact)) * size + offset)
            size, size_error = _spectral_norm(exact) * size + offset, own_error + _spectral_norm(exact) * size_error
        output = float(np.linalg.norm(network.output_mlp))
        mlp_error = output * (gamma(len(network.output_mlp)) * size + size_error)
        # Adding the parts and a bound's slack, and rounding the exact logit to float32, takes at most 8 operations.
        sum_error = 8 * _UNIT_ROUNDOFF * (dot + 3 * output * size + abs(network.output_bias))
        return 2 * (gmf_error + mlp_error + sum_error)  # doubled to cover terms of second order in the roundoff

    base = error(0.0, 0.0)
    return np.array([base, error(1.0, 0.0) - base, error(0.0, 1.0) - base])


def gamma(length: int) -> float:
    """Return the relative error bound of a float32 dot product of vectors of length `length`; see `Bounds.error`."""
    return length * _UNIT_ROUNDOFF / (1 - length * _UNIT_ROUNDOFF)


def _largest_norm(rows: Floats) -> float:
    squares = [
        np.square(rows[begin : begin + _BLOCK], dtype=np.float64).sum(axis=1).max(initial=0.0)
        for begin in range(0, len(rows), _BLOCK)
    ]
    return float(np.sqrt(max(squares, default=0.0)))
