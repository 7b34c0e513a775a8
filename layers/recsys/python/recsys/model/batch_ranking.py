"""Recommendations for many users, in order: blocks of them at a time, some ahead of whoever asks."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Final, TypeVar

import numpy as np

from recsys.model.batch_search import MAX_USERS, NormSortedItems, best_items_of_each
from recsys.model.neumf import sigmoid
from recsys.model.recommender import RankedItem, Recommendations, ServingModel, Strategy, ranked_items, recommend

_MIN_BATCH_USERS: Final = 16
"""Fewer take longer together than one by one."""
_Piece = TypeVar("_Piece")
_Result = TypeVar("_Result")


def recommend_all(
    model: ServingModel, user_ids: Sequence[str], *, n: int, n_threads: int | None = None
) -> Iterator[Recommendations]:
    """What `recommend(model, user_id, n=n)` gives for each user, in order, many times as fast.

    Threads answer blocks of users; a few blocks are in memory. If nothing else is said there is one more than there are
    cores: while one waits for the interpreter's lock, another multiplies.
    """
    if len(user_ids) < _MIN_BATCH_USERS:
        yield from (recommend(model, user_id, n=n) for user_id in user_ids)
        return
    n_threads = n_threads or (os.cpu_count() or 1) + 1
    catalogue = NormSortedItems.of(model.network, model.bounds)
    size = min(MAX_USERS, max(_MIN_BATCH_USERS, -(-len(user_ids) // n_threads)))
    blocks = [user_ids[begin : begin + size] for begin in range(0, len(user_ids), size)]
    for answers in _in_order(lambda block: _recommend_block(model, catalogue, block, n), blocks, n_threads):
        yield from answers


def _recommend_block(
    model: ServingModel, catalogue: NormSortedItems, user_ids: Sequence[str], n: int
) -> list[Recommendations]:
    known = {user_id: row for user_id in user_ids if (row := model.users.find(user_id)) is not None}
    ranked = dict(zip(known, _ranked_for_each(model, catalogue, list(known.values()), n), strict=True))
    return [
        Recommendations(user_id, Strategy.PERSONAL, model.version, ranked[user_id])
        if user_id in ranked
        else recommend(model, user_id, n=n)
        for user_id in user_ids
    ]


def _ranked_for_each(
    model: ServingModel, catalogue: NormSortedItems, user_rows: Sequence[int], n: int
) -> Iterable[list[RankedItem]]:
    if not user_rows:
        return []
    histories = [model.seen(row).astype(np.int64) for row in user_rows]
    users = [model.network.user(history) for history in histories]
    best = best_items_of_each(catalogue, users, n, excluded=histories)
    # All users' together: a call of NumPy costs as much for a few numbers as for many.
    rows, logits = (np.concatenate(part) for part in zip(*best, strict=True))
    items = zip(model.items.at(rows), sigmoid(logits).tolist(), strict=True)
    return [ranked_items(islice(items, len(rows))) for rows, _ in best]


def _in_order(function: Callable[[_Piece], _Result], pieces: Iterable[_Piece], n_threads: int) -> Iterator[_Result]:
    """The function of each piece, some of them ahead of who asks."""
    with ThreadPoolExecutor(n_threads) as pool:
        ahead: deque[Future[_Result]] = deque()
        for piece in pieces:
            ahead.append(pool.submit(function, piece))
            if len(ahead) > n_threads:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
