"""Compute a lower bound of the n-th largest of many values without sorting or partitioning them."""

from __future__ import annotations

from typing import Final

import numpy as np

from recsys.model.neumf import Floats

_MIN_GROUPS: Final = 256
"""Groups of columns whose maxima bound the n-th largest value; more give a closer bound, but cost more. Not tuned."""
_GROUPS_PER_VALUE: Final = 4
"""With 4 n groups or more, few of the n largest values share a group. Not tuned."""


def nth_largest_bound(values: Floats, n: int) -> Floats:
    """Return a lower bound of the n-th largest value along the last axis.

    The values are divided into groups. The bound is the n-th largest of the groups' maxima, which are values at n
    different positions. For n = 20 hardly any other value lies between the bound and the n-th largest value.

    Parameters
    ----------
    values
        (..., n_values) float32.
    n
        At least 1.

    Returns
    -------
    (...) float32
        The bound. It is -inf if the last axis may contain fewer than `n` finite values.

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
