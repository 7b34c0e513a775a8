"""The n best items of many users at once: the bounds of `recsys.search`, with matrix products in place of vector ones.

A matrix-vector product waits for memory; the product with many users' vectors does not. All that follows it is done for
the pairs of a whole block of users, since a step for each user alone would cost more than the product.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from recsys.neumf import Floats, Network, User
from recsys.search import Bounds, Rows, best_items, mlp_parts

_BLOCK_PAIRS: Final = 2**24
"""Of users and items whose GMF parts are in memory at a time, 64 MiB."""
_MAX_USERS: Final = 256
_MAX_LEFT: Final = 4096
"""Of items that are left for a user; whoever has more is asked for alone."""
_GROUPS: Final = 512

Pairs = tuple[NDArray[np.int64], Rows]
"""Users (rows of their block) and items, both (n_pairs,), users rising."""


def users_per_block(network: Network) -> int:
    """How many users to ask for at a time."""
    return min(_MAX_USERS, max(1, _BLOCK_PAIRS // max(1, network.n_items)))


def best_items_of_each(
    network: Network, bounds: Bounds, users: Sequence[User], n: int, *, excluded: Sequence[Rows]
) -> list[tuple[Rows, Floats]]:
    """What `recsys.search.best_items` gives for each user and what is excluded there."""
    if not users or n == 0:
        return [(np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.float32)) for _ in users]
    block = User(np.array([user.gmf for user in users]), np.array([user.mlp for user in users]))
    margins = 2 * np.array([bounds.error(user) for user in users])
    gmf = block.gmf @ network.gmf_item.T
    gmf[np.repeat(np.arange(len(users)), [len(rows) for rows in excluded]), np.concatenate(excluded)] = -np.inf

    (askers, items), is_left_out = _promising(network, bounds, block, n, gmf, margins)
    logits = gmf[askers, items] + mlp_parts(network, block.mlp[askers], items)
    kept = logits >= (_nth_largest(logits, askers, n, len(users)) - margins)[askers]
    askers, items = askers[kept], items[kept]
    exact = network.exact_pair_logits(block, askers, items)
    order = np.lexsort((items, -exact, askers))
    starts = np.searchsorted(askers, np.arange(len(users) + 1))
    chosen = [order[starts[place] : starts[place + 1]][:n] for place in range(len(users))]
    return [
        best_items(network, bounds, user, n, excluded=excluded[place])
        if is_left_out[place]
        else (items[chosen[place]], exact[chosen[place]])
        for place, user in enumerate(users)
    ]


def _promising(
    network: Network, bounds: Bounds, block: User, n: int, gmf: Floats, margins: NDArray[np.float64]
) -> tuple[Pairs, NDArray[np.bool_]]:
    """Pairs whose item can still be among the user's `n` best, and which users were left out."""
    firsts = _at_most_nth_largest(gmf, n)
    has_few = firsts == -np.inf
    askers, items, too_many = _at_least(gmf, np.where(has_few, np.float32(np.inf), firsts))
    logits = gmf[askers, items] + mlp_parts(network, block.mlp[askers], items)
    floors = _nth_largest(logits, askers, n, len(gmf)) - margins  # inf for those with none
    tops = np.array([network.mlp_outputs(half + bounds.centres) for half in block.mlp])
    lowest = _rounded_down(floors - (tops.max(axis=1) + bounds.slack.max()))
    askers, items, still_too_many = _at_least(gmf, lowest)
    uppers = gmf[askers, items] + tops[askers, bounds.cluster[items]] + bounds.slack[items]
    kept = uppers >= floors[askers]
    return (askers[kept], items[kept]), has_few | too_many | still_too_many


def _at_most_nth_largest(values: Floats, n: int) -> Floats:
    """A lower bound of each row's n-th largest value, (n_rows,); -inf where there may be none.

    It is the n-th largest of the maxima of groups of columns, which are values of n different columns.
    """
    n_groups = min(values.shape[1], max(_GROUPS, 4 * n))
    if n_groups < n:
        return np.full(len(values), -np.inf, dtype=np.float32)
    per_group = values.shape[1] // n_groups
    maxima = values[:, : per_group * n_groups].reshape(len(values), per_group, n_groups).max(axis=1)
    largest: Floats = np.partition(maxima, n_groups - n, axis=1)[:, n_groups - n]
    return largest


def _at_least(values: Floats, thresholds: Floats) -> tuple[NDArray[np.int64], Rows, NDArray[np.bool_]]:
    """Rows and columns where a row's threshold is reached, without rows that reach it too often; which those are."""
    reached = values >= thresholds[:, None]
    too_many = np.count_nonzero(reached, axis=1) > _MAX_LEFT
    reached[too_many] = False
    rows, columns = np.divmod(np.flatnonzero(reached), values.shape[1])
    return rows, columns, too_many


def _rounded_down(values: NDArray[np.float64]) -> Floats:
    """Compared with float32 numbers, float64 ones would cost several times as much."""
    return np.nextafter(values.astype(np.float32), np.float32(-np.inf))


def _nth_largest(values: Floats, groups: NDArray[np.int64], n: int, n_groups: int) -> NDArray[np.float64]:
    """Each group's n-th largest value, (n_groups,); inf for a group of fewer. `groups` rise."""
    nth = np.full(n_groups, np.inf)
    order = np.lexsort((-values, groups))
    starts = np.searchsorted(groups, np.arange(n_groups + 1))
    is_large = np.diff(starts) >= n
    nth[is_large] = values[order[starts[:-1][is_large] + n - 1]]
    return nth
