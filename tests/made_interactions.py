"""Interactions from pairs of indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys_train.data.interactions import Interactions


def made_interactions(pairs: Sequence[tuple[int, int]], *, n_users: int, n_items: int) -> Interactions:
    """Return interactions of the users u0, u1, … with the items i0, i1, …, oldest first."""
    users, items = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    return Interactions(
        [f"u{user}" for user in range(n_users)],
        [f"i{item}" for item in range(n_items)],
        users,
        items,
    )
