"""The n best items of a user, exactly, without computing every logit.

A logit is a GMF part, one dot product an item, plus an MLP part, some thousand multiplications. The GMF parts of all
items are one matrix-vector product. The MLP part f(a + b) of an item, whose half of the first layer is b, is bounded
from above for any user half a, so most items are ruled out by

    gmf + f(a + c) + slack  <  the n-th best logit of some items that are likely to be good                       (1)

where c is the nearest of some hundred centres of the items' halves: f is computed for those and for what (1) leaves.
f(a + b) is larger than f(a + c) by the smaller of two bounds at most, whatever the user:

    slack = min(L |b - c|,  sum_j rising_j max(b_j - c_j, 0) + falling_j max(c_j - b_j, 0))                       (2)

L is a Lipschitz constant of f, that of Combettes & Pesquet, "Lipschitz certificates for layered network structures
driven by averaged activation operators", SIAM J. Math. Data Sci. 2020. Where two points differ by d before a ReLU, they
differ by (d + e) / 2 after it, with |e| <= |d|, since relu(x) = (x + |x|) / 2. Written out through all layers, the
outputs differ by the mean over all ways to take d or e at each ReLU; where e is taken only its norm is known, so each
way gives at most the product of the spectral norms of the runs of kernels between the e's. That is less than the
product of all kernels' norms, a third less on what we trained. The first ReLU, which has no kernel before it, makes no
distance longer.

The second holds since f is piecewise linear. Its slope along unit j is a sum, over the ways from j to the output that
pass no unit at rest, of the product of their weights. So it is at most the sum `rising_j` of all products that are
positive, and at least minus the sum `falling_j` of those that are negative. It is the smaller one of narrow networks:
half of L |b - c| for 16-16-8, three times it for 64-32-16-8.

Floats. What items are ranked by in the end is `Network.exact_logits`, float64 products of each item alone, of the same
shapes whatever is asked, rounded once. float32 products, whose last bits depend on what is computed together, only rule
items out, and only by more than their rounding error, see `Bounds.error`. So the list is that of ranking every item's
exact logit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import Final, Self

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Floats, Network, User

ItemIndices = NDArray[np.int64]
"""ItemIndices of items, (n,)."""

ITEMS_PER_CENTRE: Final = 16
MAX_CENTRES: Final = 256
_SAMPLE: Final = 2**16
_LLOYD_STEPS: Final = 4
_BLOCK: Final = 1024
"""Items whose MLP is computed at a time: what stays in cache."""
_UNIT_ROUNDOFF: Final = 2.0**-24
"""Relative error of one float32 operation."""
_ROUNDED_UP: Final = 1 + 1e-6


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """What rules items out, made once for a network.

    centres (n_centres, hidden_1) float32; cluster (n_items,) uint16, the centre of each item; slack (n_items,) float32,
    (2) of the item and its centre, rounded up; rounding (3,) float64, see `error`. reach (n_centres,) float32 is the
    largest slack of each centre's items.
    """

    centres: Floats
    cluster: NDArray[np.uint16]
    slack: Floats
    rounding: NDArray[np.float64]
    reach: Floats = field(init=False)

    def __post_init__(self) -> None:
        reach = np.zeros(len(self.centres), dtype=np.float32)
        np.maximum.at(reach, self.cluster, self.slack)
        object.__setattr__(self, "reach", reach)

    @classmethod
    def of(cls, network: Network) -> Self:
        """Bounds of a network; the same for the same network."""
        n_centres = min(MAX_CENTRES, max(1, network.n_items // ITEMS_PER_CENTRE))
        centres = _centres(network.item_hidden_1, n_centres)
        cluster, distances = _nearest(centres, network.item_hidden_1)
        slack = np.minimum(lipschitz_constant(network) * distances, _by_slope(network, centres, cluster)) * _ROUNDED_UP
        return cls(centres, cluster.astype(np.uint16), _rounded_up(slack), _rounding(network))

    def error(self, user: User) -> NDArray[np.float64]:
        """How far a float32 logit, or the left side of (1), may lie from its exact value, for any item of this user.

        A number; where `user` holds a user per row, one for each. It is `rounding @ [1, |user.gmf|, |user.mlp|]`, the
        classical bound: a dot product of length m is off by at most m u / (1 - m u) |x| |y| with u = 2**-24, in
        whatever order it is summed (Higham, "Accuracy and stability of numerical algorithms", §3.1), and what an MLP
        layer takes over from the one before grows by its kernel's norm.
        """
        gmf, mlp = (np.sqrt(np.einsum("...i,...i", half, half)) for half in (user.gmf, user.mlp))
        error: NDArray[np.float64] = self.rounding[0] + self.rounding[1] * gmf + self.rounding[2] * mlp
        return error


def best_items(
    network: Network, bounds: Bounds, user: User, n: int, *, excluded: ItemIndices, among: ItemIndices | None = None
) -> tuple[ItemIndices, Floats]:
    """ItemIndices and exact logits of the user's `n` best items, fewer only when fewer are left.

    Best first, ties to the lower row. `excluded` rows never appear; with `among`, others than those neither.
    """
    if n == 0:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)
    margin = 2 * bounds.error(user)
    if among is not None:
        rows = np.setdiff1d(among, excluded)
        gmf = network.item_gmf[rows] @ user.gmf
    else:
        gmf = network.item_gmf @ user.gmf
        gmf[excluded] = -np.inf
        rows, gmf = _prune(network, bounds, user, n, gmf, margin)
    return _ranked(network, user, n, rows, gmf + mlp_parts(network, user.mlp, rows), margin)


def lipschitz_constant(network: Network) -> float:
    """L with |f(x) - f(y)| <= L |x - y| for the MLP from before its first ReLU on; the module's docstring says why."""
    kernels = [kernel.astype(np.float64) for kernel in (*network.mlp_kernels, network.output_mlp[:, None])]
    ways = itertools.product((False, True), repeat=len(kernels) - 1)
    return _ROUNDED_UP * float(np.mean([_product_of_norms(kernels, cuts) for cuts in ways]))


def _product_of_norms(kernels: list[NDArray[np.float64]], cuts: tuple[bool, ...]) -> float:
    """Of the runs of kernels between cuts; `cuts[k]` is whether there is one after kernel k."""
    norm, run = 1.0, kernels[0]
    for kernel, is_cut in zip(kernels[1:], cuts, strict=True):
        if is_cut:
            norm, run = norm * _spectral_norm(run), kernel
        else:
            run = run @ kernel
    return norm * _spectral_norm(run)


def _spectral_norm(matrix: NDArray[np.float64]) -> float:
    return float(np.linalg.norm(matrix, 2))


def slope_bounds(network: Network) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """`rising` and `falling` of the module's docstring, (hidden_1,) each."""
    output = network.output_mlp.astype(np.float64)
    rising, falling = np.maximum(output, 0), np.maximum(-output, 0)
    for kernel in reversed(network.mlp_kernels):
        positive, negative = np.maximum(kernel, 0), np.maximum(-kernel, 0)
        rising, falling = positive @ rising + negative @ falling, positive @ falling + negative @ rising
    return rising, falling


# -- at publish time


def _by_slope(network: Network, centres: Floats, cluster: NDArray[np.int64]) -> NDArray[np.float64]:
    """The second bound of (2) for each item and its centre, (n_items,)."""
    rising, falling = slope_bounds(network)
    slack = np.empty(network.n_items)
    for begin in range(0, network.n_items, _BLOCK):
        block = slice(begin, begin + _BLOCK)
        away = network.item_hidden_1[block].astype(np.float64) - centres[cluster[block]]
        slack[block] = np.maximum(away, 0) @ rising + np.maximum(-away, 0) @ falling
    return slack


def _centres(points: Floats, n_centres: int) -> Floats:
    """Some steps of Lloyd's algorithm on a sample."""
    generator = np.random.default_rng(0)
    sample = points[generator.permutation(len(points))[:_SAMPLE]]
    centres = sample[:n_centres].astype(np.float64)
    for _ in range(_LLOYD_STEPS):
        nearest, _ = _nearest(centres.astype(np.float32), sample)
        counts = np.bincount(nearest, minlength=n_centres)
        order = np.argsort(nearest, kind="stable")
        filled = np.flatnonzero(counts)
        starts = (np.cumsum(counts) - counts)[filled]
        centres[filled] = np.add.reduceat(sample[order], starts, axis=0, dtype=np.float64) / counts[filled, None]
    return centres.astype(np.float32)


def _nearest(centres: Floats, points: Floats) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The nearest centre of each point (or one nearly as near), and the distance to it."""
    nearest = np.empty(len(points), dtype=np.int64)
    distances = np.empty(len(points), dtype=np.float64)
    half_squares = np.square(centres).sum(axis=1) / 2
    for begin in range(0, len(points), _BLOCK):
        block = points[begin : begin + _BLOCK]
        nearest[begin : begin + _BLOCK] = chosen = (block @ centres.T - half_squares).argmax(axis=1)
        away = block.astype(np.float64) - centres[chosen]
        distances[begin : begin + _BLOCK] = np.sqrt(np.square(away).sum(axis=1))
    return nearest, distances


def _rounded_up(values: NDArray[np.float64]) -> Floats:
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def _rounding(network: Network) -> NDArray[np.float64]:
    """The coefficients of `Bounds.error`, which is affine in both norms of the user."""
    largest_gmf, largest_mlp = _largest_norm(network.item_gmf), _largest_norm(network.item_hidden_1)

    def error(gmf: float, mlp: float) -> float:
        dot = largest_gmf * gmf
        off = gamma(network.item_gmf.shape[1]) * dot
        size = mlp + largest_mlp
        wrong = _UNIT_ROUNDOFF * size
        for kernel, bias in zip(network.mlp_kernels, network.mlp_biases, strict=True):
            exact, offset = kernel.astype(np.float64), float(np.linalg.norm(bias))
            fresh = gamma(len(kernel) + 2) * (_spectral_norm(np.abs(exact)) * size + offset)
            size, wrong = _spectral_norm(exact) * size + offset, fresh + _spectral_norm(exact) * wrong
        output = float(np.linalg.norm(network.output_mlp))
        off += output * (gamma(len(network.output_mlp)) * size + wrong)
        # Sums of the parts, a bound's slack, and the exact logit's own rounding to float32.
        off += 8 * _UNIT_ROUNDOFF * (dot + 3 * output * size + abs(network.output_bias))
        return 2 * off  # for what is of second order in the unit

    base = error(0.0, 0.0)
    return np.array([base, error(1.0, 0.0) - base, error(0.0, 1.0) - base])


def gamma(length: int) -> float:
    """The relative error that a float32 sum of so many products of the same sign may have; see `Bounds.error`."""
    return length * _UNIT_ROUNDOFF / (1 - length * _UNIT_ROUNDOFF)


def _largest_norm(rows: Floats) -> float:
    squares = [
        np.square(rows[begin : begin + _BLOCK], dtype=np.float64).sum(axis=1).max(initial=0.0)
        for begin in range(0, len(rows), _BLOCK)
    ]
    return float(np.sqrt(max(squares, default=0.0)))


# -- per request


def _prune(
    network: Network, bounds: Bounds, user: User, n: int, gmf: Floats, margin: NDArray[np.float64]
) -> tuple[ItemIndices, Floats]:
    """ItemIndices that can still be among the `n` best, and their GMF parts; -inf in `gmf` is out."""
    n_first = min(len(gmf), 2 * n + 32)
    first = np.argpartition(gmf, len(gmf) - n_first)[len(gmf) - n_first :]
    first = first[gmf[first] > -np.inf]
    if len(first) <= n:
        rows = np.flatnonzero(gmf > -np.inf)
        return rows, gmf[rows]
    floor = _nth_largest(gmf[first] + mlp_parts(network, user.mlp, first), n) - margin
    tops = network.mlp_outputs(user.mlp + bounds.centres)
    rows = np.flatnonzero(gmf >= floor - (tops + bounds.reach).max())
    uppers = gmf[rows] + tops[bounds.cluster[rows]] + bounds.slack[rows]
    rows = rows[uppers >= floor]
    return rows, gmf[rows]


def mlp_parts(network: Network, user_halves: Floats, items: ItemIndices) -> Floats:
    """The MLP parts of items' logits, (n,) float32, for the half of one user (hidden_1,) or of each (n, hidden_1)."""
    outputs = np.empty(len(items), dtype=np.float32)
    for begin in range(0, len(items), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        hidden = network.item_hidden_1[items[block]]
        hidden += user_halves if user_halves.ndim == 1 else user_halves[block]
        outputs[block] = network.mlp_outputs(hidden)
    return outputs


def _ranked(
    network: Network, user: User, n: int, rows: ItemIndices, logits: Floats, margin: NDArray[np.float64]
) -> tuple[ItemIndices, Floats]:
    """The `n` best of some rows by their exact logits; `logits` are those in float32."""
    if len(rows) > n:
        rows = rows[logits >= _nth_largest(logits, n) - margin]
    exact = network.exact_logits(user, rows)
    order = np.lexsort((rows, -exact))[:n]
    return rows[order], exact[order]


def _nth_largest(values: Floats, n: int) -> np.float32:
    place = len(values) - n
    largest: np.float32 = np.partition(values, place)[place]
    return largest
