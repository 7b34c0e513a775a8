"""The data sets and how a ranking of them is measured: `tests/benchmarks/README.md` says it in words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_train.data.csv_reader import read_interactions
from recsys_train.data.interactions import Int32s, Interactions

ROOT = Path(__file__).parents[2]
BUNDLED = "online_retail"
SETS = (BUNDLED, "ml-100k", "gowalla")
TRAIN_FILES = {
    BUNDLED: ROOT / "local/recsys_local/sample/online_retail.csv.gz",
    "ml-100k": Path("ml-100k/interactions.csv"),
    "gowalla": Path("gowalla/train.csv.gz"),
}
"""What `recsys train` is given; what is not bundled lies in a folder that the caller names."""
GOWALLA_TEST = Path("gowalla/test.csv.gz")
CUT = 20
NCF_CUT = 10
NCF_RIVALS = 99
VALIDATION_SHARE = 0.1
"""Of a user's items, where they have no times to tell the last one by."""
MAX_VALIDATION_USERS = 5_000
USERS_AT_ONCE = 512

Floats = NDArray[np.float32]
Scores = Callable[[NDArray[np.int64]], Floats]
"""From users' rows (n,) to scores of all items (n, n_items); larger is better."""


@dataclass(frozen=True, slots=True)
class DataSet:
    """What may be trained on, and what is measured: users (n,) and items (n,) of the held-out pairs."""

    name: str
    train: Interactions
    has_times: bool
    test_users: Int32s
    test_items: Int32s

    @property
    def has_one_each(self) -> bool:
        """Whether one item per user is held out, as NCF's protocol wants it."""
        return len(np.unique(self.test_users)) == len(self.test_users)

    def with_test_of(self, users: NDArray[np.integer]) -> DataSet:
        """The same, measured on these users alone."""
        kept = np.isin(self.test_users, users)
        return replace(self, test_users=self.test_users[kept], test_items=self.test_items[kept])

    def validation(self) -> DataSet:
        """What settings are chosen on: cut from the training part once more, the test part has no say in it.

        Each user's last item, or a tenth of the items where there are no times; of at most `MAX_VALIDATION_USERS`.
        """
        generator = np.random.default_rng(0)
        if self.has_times:
            train, held_out = self.train.split_last()
        else:
            train, held_out = hold_out_share(self.train, VALIDATION_SHARE, generator)
        data = DataSet(self.name, train, self.has_times, held_out.users, held_out.items)
        users = np.unique(held_out.users)
        return data.with_test_of(generator.permutation(users)[:MAX_VALIDATION_USERS])


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over users with a held-out item; `coverage` is the share of the catalogue in anybody's top 20.

    `hr_at_10` and `ndcg_at_10` are NCF's, None where users have several held-out items.
    """

    recall_at_20: float
    ndcg_at_20: float
    coverage: float
    hr_at_10: float | None = None
    ndcg_at_10: float | None = None


def load(name: str, folder: Path | None) -> DataSet:
    """One of `SETS`; `folder` holds those that may not be bundled."""
    train_path = train_file(name, folder)
    if name == "gowalla":
        assert folder is not None
        return _given_split(name, train_path, folder / GOWALLA_TEST)
    return leave_last_out(name, train_path)


def train_file(name: str, folder: Path | None) -> Path:
    """The CSV to train on."""
    if name != BUNDLED and folder is None:
        raise SystemExit(f"{name} may not be bundled: give the folder that holds it with DATA=…")
    return (folder or Path()) / TRAIN_FILES[name]  # an absolute path stays what it is


def leave_last_out(name: str, path: Path) -> DataSet:
    """A CSV with each user's last pair held out, for users with two or more."""
    interactions, has_times = _read(path)
    train, held_out = interactions.split_last()
    return DataSet(name, train, has_times, held_out.users, held_out.items)


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


def hold_out_share(
    interactions: Interactions, share: float, generator: np.random.Generator
) -> tuple[Interactions, Interactions]:
    """`(rest, held out)`: of each user's n pairs `round(share * n)` are drawn, at least one where there are two."""
    order = generator.permutation(len(interactions))
    order = order[np.argsort(interactions.users[order], kind="stable")]
    counts = np.bincount(interactions.users, minlength=interactions.n_users)
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    wanted = np.where(counts >= 2, np.maximum(np.rint(share * counts), 1), 0)
    is_held_out = np.zeros(len(order), dtype=np.bool_)
    is_held_out[order] = place < np.repeat(wanted, counts)
    return interactions[~is_held_out], interactions[is_held_out]


def without_newcomers(
    interactions: Interactions, share: float, generator: np.random.Generator
) -> tuple[Interactions, NDArray[np.int64]]:
    """`(what the others did, the newcomers' rows)`: a share of the users is left out, the others renumbered."""
    order = generator.permutation(interactions.n_users)
    newcomers, others = np.split(order, [round(share * interactions.n_users)])
    others = np.sort(others)
    row_of = np.full(interactions.n_users, -1, dtype=np.int32)
    row_of[others] = np.arange(len(others))
    kept = interactions[row_of[interactions.users] >= 0]
    user_ids = [interactions.user_ids[user] for user in others]
    return replace(kept, user_ids=user_ids, users=row_of[kept.users]), np.sort(newcomers)


def measure(scores: Scores, data: DataSet, *, seed: int = 0) -> Quality:
    """Both protocols over all test users.

    Whole catalogue, as in the LightGCN paper: every item the user has no training pair with is ranked; per user
    `hits / |test|` and `DCG / ideal DCG(min(|test|, 20))`. NCF's, as He et al.: the held-out item among 99 drawn with
    `seed` from those the user never touched; a tie counts against us. What is not a number ranks last.
    """
    generator = np.random.default_rng(seed)
    had, wanted = _matrix(data.train.users, data.train.items, data), _matrix(data.test_users, data.test_items, data)
    users = np.unique(data.test_users).astype(np.int64)
    has_one_each = data.has_one_each
    recalls, ndcgs, ranks = [], [], []
    recommended = np.zeros(data.train.n_items, dtype=np.bool_)
    for start in range(0, len(users), USERS_AT_ONCE):
        some = users[start : start + USERS_AT_ONCE]
        values = np.nan_to_num(np.array(scores(some), dtype=np.float32), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        if has_one_each:
            ranks.append(_ranks_among_rivals(values, had[some], wanted[some].indices, generator))
        rows, columns = had[some].nonzero()
        values[rows, columns] = -np.inf
        top = _top(values)
        recommended[top] = True
        recall, ndcg = _recall_and_ndcg(top, wanted[some])
        recalls.append(recall)
        ndcgs.append(ndcg)
    whole = (float(np.concatenate(recalls).mean()), float(np.concatenate(ndcgs).mean()), float(recommended.mean()))
    if not has_one_each:
        return Quality(*whole)
    rank = np.concatenate(ranks)
    found = rank <= NCF_CUT
    return Quality(*whole, float(found.mean()), float(np.where(found, 1 / np.log2(rank + 1.0), 0.0).mean()))


def _matrix(users: Int32s, items: Int32s, data: DataSet) -> Any:
    shape = (data.train.n_users, data.train.n_items)
    return sp.csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)


def _top(values: Floats) -> NDArray[np.int64]:
    """The best `CUT` columns of each row, best first, (n, CUT)."""
    cut = min(CUT, values.shape[1])
    top = np.argpartition(-values, cut - 1, axis=1)[:, :cut]
    order = np.argsort(-np.take_along_axis(values, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def _recall_and_ndcg(top: NDArray[np.int64], wanted: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    discounts = 1 / np.log2(np.arange(2, CUT + 2))
    n_wanted = np.diff(wanted.indptr)
    hits = np.take_along_axis(wanted.toarray() > 0, top, axis=1)
    ideal = np.cumsum(discounts)[np.minimum(n_wanted, CUT) - 1]
    return hits.sum(axis=1) / n_wanted, (hits @ discounts[: top.shape[1]]) / ideal


def _ranks_among_rivals(values: Floats, had: Any, targets: Int32s, generator: np.random.Generator) -> NDArray[np.int64]:
    """From 1, for each row's target, (n,)."""
    ranks = []
    for row, target in enumerate(targets.tolist()):
        is_rival = np.ones(values.shape[1], dtype=np.bool_)
        is_rival[had.indices[had.indptr[row] : had.indptr[row + 1]]] = False
        is_rival[target] = False
        untouched = np.flatnonzero(is_rival)
        rivals = generator.choice(untouched, min(NCF_RIVALS, len(untouched)), replace=False)
        ranks.append(1 + int(np.count_nonzero(values[row, rivals] >= values[row, target])))
    return np.array(ranks, dtype=np.int64)
