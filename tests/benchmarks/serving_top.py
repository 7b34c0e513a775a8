"""Time of one top-20 list: the service beside plain NumPy, one read of the item matrices, and Keras."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.model import artifact, top_n
from recsys.model.neumf import sigmoid
from recsys.model.recommender import ServingModel, recommend
from recsys.model.user_encoder import history_weights
from tests.benchmarks.serving_models import resized
from tests.benchmarks.tables import Table

N: Final = 20
_BLOCK: Final = 4096
"""Items whose MLP plain NumPy computes at a time: for both shapes as fast as any smaller or larger block, or faster."""

Call = Callable[[int], object]
"""A search for the user of a row index."""


def top_table() -> Table:
    """Return the empty table that `add_top_row` fills."""
    columns = {"": "s", "items": ",d", "ours": ".3f", "NumPy": ".3f", "ours / NumPy": ".2f"}
    rest = {"recommend": ".3f", "its p99": ".3f", "one read": ".3f", "GMF product": ".3f"}
    table = Table(f"Top {N} of one user, median CPU milliseconds of one thread", columns | rest)
    table.notes = [
        "ours, NumPy: from the item indices of a history to those of the list. recommend: from a user id to item ids.",
        "ours is exact; NumPy ranks by rounded logits.",
    ]
    return table


def add_top_row(table: Table, name: str, model: ServingModel, n_calls: int) -> None:
    """Measure both searches, `recommend` and the memory-bound parts of a search in turn, and add a row."""
    network, user_ids = model.network, model.users
    vector = network.user(model.seen(0))
    calls: dict[str, Call] = {
        "ours": exact_search(model),
        "NumPy": plain_numpy(model),
        "recommend": lambda row: recommend(model, user_ids[row], n=N),
        "read": lambda _: (network.item_gmf.max(), network.item_hidden_1.max()),
        "product": lambda _: network.item_gmf @ vector.gmf,
    }
    spent = interleaved_ms(calls, some_users(model, n_calls))
    p50 = {each: float(np.median(times)) for each, times in spent.items()}
    p99 = float(np.quantile(spent["recommend"], 0.99))
    ratio = p50["ours"] / p50["NumPy"]
    measured = [p50["ours"], p50["NumPy"], ratio, p50["recommend"], p99, p50["read"], p50["product"]]
    table.rows.append([name, len(model.items), *measured])


def exact_search(model: ServingModel) -> Call:
    """Return the search that `recommend` uses, between the look-ups of ids."""
    network, bounds = model.network, model.bounds

    def search(row: int) -> object:
        history = model.seen(row).astype(np.int64)
        items, logits = top_n.best_items(network, bounds, network.user(history), N, excluded=history)
        return items, sigmoid(logits)

    return search


def plain_numpy(model: ServingModel) -> Call:
    """Return the same search as one would write it in NumPy.

    It computes every float32 logit, excludes the history, and selects with `argpartition`. Its logits are rounded, so
    its order of near ties is not exact.
    """
    network = model.network

    def search(row: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
        history = model.seen(row)
        weights = history_weights(len(history), network.decay).astype(np.float32)
        user_hidden = weights @ network.history_hidden_1[history] + network.mlp_bias_1
        logits = network.item_gmf @ (weights @ network.history_gmf[history])
        for begin in range(0, len(logits), _BLOCK):
            hidden = np.maximum(network.item_hidden_1[begin : begin + _BLOCK] + user_hidden, 0)
            for kernel, bias in zip(network.mlp_kernels, network.mlp_biases, strict=True):
                hidden = np.maximum(hidden @ kernel + bias, 0)
            logits[begin : begin + _BLOCK] += hidden @ network.output_mlp
        logits += np.float32(network.output_bias)
        logits[history] = -np.inf
        best = np.argpartition(logits, -N)[-N:]
        best = best[np.argsort(-logits[best])]
        return best, 1 / (1 + np.exp(-logits[best]))

    return search


def size_table(models: Mapping[str, ServingModel], sizes: Sequence[int], *, n_users: int) -> Table:
    """Compare brute force with pruned search at several catalogue sizes; `PRUNE_MIN_ITEMS` rests on this table."""
    columns = {"": "s", "items": ",d", "brute force": ".3f", "pruned": ".3f", "pruned / brute force": ".2f"}
    table = Table("Brute force and pruned search, median CPU milliseconds of one thread", columns)
    for name, trained_model in models.items():
        for n_items in sizes:
            model = resized(trained_model, n_items, n_users)
            spent = interleaved_ms(_both_searches(model), some_users(model, max(20, min(150, 3_000_000 // n_items))))
            brute_force, pruned = (float(np.median(spent[each])) for each in ("brute force", "pruned"))
            table.rows.append([name, n_items, brute_force, pruned, pruned / brute_force])
    return table


def _both_searches(model: ServingModel) -> dict[str, Call]:
    """Return both searches of `recsys.model.top_n`, whatever the size of the catalogue."""
    network, bounds = model.network, model.bounds

    def brute_force(row: int) -> object:
        history = model.seen(row).astype(np.int64)
        user = network.user(history)
        return top_n._search_all(network, user, N, history, 2 * bounds.error(user), None)

    def pruned(row: int) -> object:
        history = model.seen(row).astype(np.int64)
        user = network.user(history)
        return top_n._search_pruned(network, bounds, user, N, history, 2 * bounds.error(user), None)

    return {"brute force": brute_force, "pruned": pruned}


def keras_table(folder: Path, *, n_items: int) -> Table:
    """Time Keras scoring one user's pairs with the trained `model.h5`, with its default batches and in one batch."""
    import keras  # noqa: PLC0415  # takes seconds, and would be counted as memory of the other parts

    model: Any = keras.models.load_model(folder / artifact.MODEL)
    n_trained = model.get_layer("gmf_item").input_dim
    pairs = [np.zeros(n_items, dtype=np.int32), np.arange(n_items, dtype=np.int32) % n_trained]
    calls = {
        "Keras predict": lambda _: model.predict(pairs, verbose=0),
        "Keras predict, all pairs in one batch": lambda _: model.predict(pairs, verbose=0, batch_size=n_items),
    }
    table = Table(f"Keras, {n_items:,} pairs, milliseconds", {"": "s", "p50": ".0f"})
    spent = interleaved_ms(calls, [0] * 15, clock=time.perf_counter)
    table.rows = [[name, float(np.median(times))] for name, times in spent.items()]
    return table


def some_users(model: ServingModel, n_users: int) -> list[int]:
    """Return the row indices of random users, at most `n_users`, always the same for a model."""
    rows: list[int] = np.random.default_rng(1).permutation(len(model.users))[:n_users].tolist()
    return rows


def interleaved_ms(
    calls: Mapping[str, Call], rows: Sequence[int], *, clock: Callable[[], float] = time.thread_time
) -> dict[str, list[float]]:
    """Time the calls in turn, once per user, in milliseconds, after one warm-up call of each.

    Each call is for another user, so that none finds the history in the cache because its predecessor has just read
    it. CPU time does not count what other processes of a shared machine take, unlike wall time. Everything runs on the
    calling thread.
    """
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call(rows[0])
    for turn in range(len(rows)):
        for position, (name, call) in enumerate(calls.items()):
            row = rows[(turn + position * len(rows) // len(calls)) % len(rows)]
            started = clock()
            call(row)
            spent[name].append(1000 * (clock() - started))
    return spent
