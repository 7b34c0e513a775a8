"""The data sets and how a ranking of them is measured: `tests/benchmarks/README.md` says it in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_train.ingestion import read_interactions
from recsys_train.interactions import Interactions

ROOT = Path(__file__).parents[2]
CUT = 20
USERS_AT_ONCE = 512

Scores = Callable[[NDArray[np.int64]], NDArray[np.float32]]
"""From users' rows (n,) to scores of all items (n, n_items)."""


@dataclass(frozen=True)
class DataSet:
    """What may be trained on, and what is measured: users (n,) and items (n,) of the held-out pairs."""

    name: str
    train: Interactions
    has_times: bool
    test_users: NDArray[np.int32]
    test_items: NDArray[np.int32]


def load(name: str, data: Path | None) -> DataSet:
    """`online_retail` is bundled; `ml-100k` and `gowalla` are read from the folder `data`."""
    if name == "online_retail":
        return _leave_last_out(name, ROOT / "infra/recsys_local/sample/online_retail.csv.gz")
    if data is None:
        raise SystemExit(f"{name} may not be bundled: give the folder that holds it with DATA=…")
    if name == "ml-100k":
        return _leave_last_out(name, data / "ml-100k/interactions.csv")
    return _given_split(name, data / "gowalla/train.csv.gz", data / "gowalla/test.csv.gz")


def _leave_last_out(name: str, path: Path) -> DataSet:
    interactions, report = _read(path)
    train, held_out = interactions.split_last()
    return DataSet(name, train, report, held_out.users, held_out.items)


def _given_split(name: str, train_path: Path, test_path: Path) -> DataSet:
    train, has_times = _read(train_path)
    test, _ = _read(test_path)
    user_of = {user_id: row for row, user_id in enumerate(train.user_ids)}
    item_of = {item_id: row for row, item_id in enumerate(train.item_ids)}
    known = [
        (user_of[test.user_ids[user]], item_of[test.item_ids[item]])
        for user, item in zip(test.users, test.items, strict=True)
        if test.user_ids[user] in user_of and test.item_ids[item] in item_of
    ]
    users, items = np.array(known, dtype=np.int32).T
    return DataSet(name, train, has_times, users, items)


def _read(path: Path) -> tuple[Interactions, bool]:
    with path.open("rb") as stream:
        interactions, report = read_interactions(stream, max_unpacked_bytes=1 << 34)
    return interactions, report.has_timestamps


def whole_catalogue(scores: Scores, data: DataSet) -> tuple[float, float]:
    """`(Recall@20, NDCG@20)` as in the LightGCN paper: per user `hits / |test|` and `DCG / ideal DCG`, averaged.

    Every item the user has no training interaction with is ranked.
    """
    shape = (data.train.n_users, data.train.n_items)
    had = sp.csr_matrix((np.ones(len(data.train)), (data.train.users, data.train.items)), shape=shape)
    wanted = sp.csr_matrix((np.ones(len(data.test_users)), (data.test_users, data.test_items)), shape=shape)
    users = np.unique(data.test_users).astype(np.int64)
    discounts = 1 / np.log2(np.arange(2, CUT + 2))
    ideal = np.cumsum(discounts)
    recalls, ndcgs = [], []
    for start in range(0, len(users), USERS_AT_ONCE):
        some = users[start : start + USERS_AT_ONCE]
        values = np.array(scores(some), dtype=np.float32)
        rows, columns = had[some].nonzero()
        values[rows, columns] = -np.inf
        top = np.argpartition(-values, CUT, axis=1)[:, :CUT]
        order = np.argsort(-np.take_along_axis(values, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        hits = np.take_along_axis(wanted[some].toarray() > 0, top, axis=1)
        n_wanted = np.diff(wanted[some].indptr)
        recalls.append(hits.sum(axis=1) / n_wanted)
        ndcgs.append((hits @ discounts) / ideal[np.minimum(n_wanted, CUT) - 1])
    return float(np.concatenate(recalls).mean()), float(np.concatenate(ndcgs).mean())


def sampled(scores: Scores, data: DataSet, *, seed: int = 0) -> tuple[float, float]:
    """`(HR@10, NDCG@10)` as He et al.: the held-out item among 99 the user never touched; a tie counts against us."""
    generator = np.random.default_rng(seed)
    shape = (data.train.n_users, data.train.n_items)
    had = sp.csr_matrix((np.ones(len(data.train)), (data.train.users, data.train.items)), shape=shape)
    ranks = []
    for user, item in zip(data.test_users.tolist(), data.test_items.tolist(), strict=True):
        values = scores(np.array([user]))[0]
        touched = {item, *had.indices[had.indptr[user] : had.indptr[user + 1]].tolist()}
        untouched = np.setdiff1d(np.arange(shape[1]), list(touched), assume_unique=True)
        rivals = generator.choice(untouched, min(99, len(untouched)), replace=False)
        ranks.append(1 + int((values[rivals] >= values[item]).sum()))
    found = np.array(ranks) <= 10
    return float(found.mean()), float(np.where(found, 1 / np.log2(np.array(ranks) + 1), 0).mean())
