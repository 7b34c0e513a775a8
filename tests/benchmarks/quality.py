"""Ranking quality of ours beside popularity and EASE, on data that none of them saw: `make bench`.

python tests/benchmarks/quality.py online_retail [--data FOLDER] [--seeds 0 1 2]
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.neumf import Network
from recsys_train.fitting import Recipe, fit
from recsys_train.warm_start import MAX_EASE_ITEMS, ease, to_matrix
from tests.benchmarks.protocol import DataSet, Scores, load, sampled, whole_catalogue

EASE_RIDGES = (50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)


def main() -> None:
    """Print one table per data set."""
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="+", choices=("online_retail", "ml-100k", "gowalla"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    for name in arguments.names:
        data = load(name, arguments.data)
        print(f"\n{name}: {len(data.train):,} pairs, {data.train.n_users:,} users × {data.train.n_items:,} items")
        print(f"{'':<16}{'Recall@20':>10}{'NDCG@20':>10}{'÷ pop.':>8}{'HR@10':>8}{'NDCG@10':>9}{'seconds':>9}")
        base = _row("popularity", _popularity(data), data, 0.0, None)
        if data.train.n_items <= MAX_EASE_ITEMS:
            started = time.perf_counter()
            scores, ridge = _best_ease(data)
            _row(f"EASE λ={ridge:.0f}", scores, data, time.perf_counter() - started, base)
        ndcgs = []
        for seed in arguments.seeds:
            scores, seconds = _ours(data, seed)
            ndcgs.append(_row(f"recsys, seed {seed}", scores, data, seconds, base))
        print(f"median NDCG@20 {np.median(ndcgs):.4f}, {np.median(ndcgs) / base:.2f} × popularity")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2
    print(f"\npeak memory of the whole run: {peak:.2f} GiB")


def _row(name: str, scores: Scores, data: DataSet, seconds: float, base: float | None) -> float:
    recall, ndcg = whole_catalogue(scores, data)
    one_each = len(np.unique(data.test_users)) == len(data.test_users)
    hr, ndcg10 = sampled(scores, data) if one_each else (float("nan"), float("nan"))
    ratio = ndcg / base if base else 1.0
    print(f"{name:<16}{recall:>10.4f}{ndcg:>10.4f}{ratio:>8.2f}{hr:>8.3f}{ndcg10:>9.3f}{seconds:>9.1f}", flush=True)
    return ndcg


def _popularity(data: DataSet) -> Scores:
    counts = data.train.users_per_item().astype(np.float32)
    return lambda users: np.tile(counts, (len(users), 1))


def _best_ease(data: DataSet) -> tuple[Scores, float]:
    """EASE with the λ that ranks a validation part of the training data best."""
    earlier, last = data.train.split_last()
    validation = DataSet(data.name, earlier, data.has_times, last.users, last.items)
    matrix, whole = to_matrix(earlier), to_matrix(data.train)

    def ndcg(ridge: float) -> float:
        weights = ease(matrix, ridge)
        return whole_catalogue(lambda users: np.asarray(matrix[users] @ weights), validation)[1]

    ridge = max(EASE_RIDGES, key=ndcg)
    weights = ease(whole, ridge)
    return lambda users: np.asarray(whole[users] @ weights), ridge


def _ours(data: DataSet, seed: int) -> tuple[Scores, float]:
    """What `recsys train` does with its defaults."""
    started = time.perf_counter()
    fitted = fit(data.train, Recipe(), seed=seed, budget_s=600, on_progress=lambda _: None, has_times=data.has_times)
    seconds = time.perf_counter() - started
    network = Network.from_weights(fitted.dims, fitted.weights)

    def scores(users: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.stack([network.logits(int(user)) for user in users])

    return scores, seconds


if __name__ == "__main__":
    main()
