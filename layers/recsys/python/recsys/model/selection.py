"""Compute a lower bound on the n-th largest of many values without sorting or partitioning them."""

from __future__ import annotations

from typing import Final

import numpy as np

from recsys.model.neumf import Floats

_MIN_GROUPS: Final = 256
"""Least number of groups. More groups give a closer bound, but their maxima take longer to partition. Not tuned."""
_GROUPS_PER_VALUE: Final = 4
"""Least number of groups per requested value. With `4 * n` groups, few of the n largest values share one. Not tuned."""


def nth_largest_bound(values: Floats, n: int) -> Floats:
    """Return a lower bound on the n-th largest value along the last axis.

    The values are divided into groups. The bound is the n-th largest of the groups' maxima. Therefore, at least n
    values reach the bound. For n = 20, hardly any value lies between the bound and the n-th largest value.

    Parameters
    ----------
    values
        The values, (..., n_values) float32.
    n
        Rank of the value, at least 1.

    Returns
    -------
    (...) float32
        The bound. It is -inf if fewer than `n` groups contain a finite value.

    Examples
    --------
    >>> float(nth_largest_bound(np.arange(1000, dtype=np.float32), 3))
    765.0
    """
    n_values = values.shape[-1]
    n_groups = min(n_values, max(_MIN_GROUPS, _GROUPS_PER_VALUE * n))
    if n_groups < n:
        return np.full(values.shape[:-1], -np.inf, dtype=np.float32)
    per_group = n_values // n_groups
    groups = values[..., : per_group * n_groups].reshape(*values.shape[:-1], per_group, n_groups)
    maxima: Floats = np.maximum.reduce(groups, axis=-2)
    maxima.partition(n_groups - n, axis=-1)
    bound: Floats = maxima[..., n_groups - n]
    return bound
