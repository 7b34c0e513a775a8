"""Interactions written down by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys_train.data.interactions import Interactions


def made_interactions(pairs: Sequence[tuple[int, int]], *, n_users: int, n_items: int) -> Interactions:
    """Pairs of user and item rows in order of time; users are called u0, u1, …, items i0, i1, …"""
    users, items = np.array(pairs, dtype=np.int32).reshape(-1, 2).T
    return Interactions(
        [f"u{user}" for user in range(n_users)],
        [f"i{item}" for item in range(n_items)],
        users,
        items,
        np.ones(len(users), dtype=np.float32),
    )
