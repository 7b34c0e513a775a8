"""The data sets of the benchmarks and the metrics; `tests/benchmarks/README.md` describes the protocol."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final, Self

import numpy as np
import pandas as pd
import scipy.sparse as sp
from numpy.typing import NDArray

from recsys_train.data.interactions import Int32s, Interactions
from recsys_train.data.reader import read_interactions

ROOT: Final = Path(__file__).parents[2]
BUNDLED: Final = "online_retail"
GOWALLA: Final = "gowalla"
UNTIMED: Final = {f"{name}-untimed": name for name in (BUNDLED, "ml-100k")}
"""Sets without their timestamps, where a random fifth of each user's items is held out."""
SHUFFLED: Final = {f"{BUNDLED}-shuffled": BUNDLED}
"""Sets whose lines of the same user and time are shuffled, because file order decides which of them is held out."""
SETS: Final = (BUNDLED, "ml-100k", GOWALLA, "citeulike", "video_games", *UNTIMED, *SHUFFLED)
TRAIN_FILES: Final = {
    BUNDLED: ROOT / "local/recsys_local/sample/online_retail.csv.gz",
    "ml-100k": Path("ml-100k/interactions.csv"),
    GOWALLA: Path("gowalla/train.csv.gz"),
    "citeulike": Path("citeulike/train.csv.gz"),
    "video_games": Path("video_games/train.csv.gz"),
}
"""The file that `recsys train` receives; relative paths are in the folder of the sets that may not be bundled."""
TEST_FILES: Final = {name: Path(name) / "test.csv.gz" for name in (GOWALLA, "citeulike", "video_games")}
"""The test part of each set that comes with one."""
UNTIMED_TEST_SHARE: Final = 0.2
CUTOFF: Final = 20
SEQUENTIAL_CUTOFF: Final = 10
NCF_CUTOFF: Final = 10
NCF_NEGATIVES: Final = 99
VALIDATION_SHARE: Final = 0.1
"""Share of each user's items in the validation part of a set without timestamps."""
MAX_VALIDATION_USERS: Final = 5_000
USERS_PER_BATCH: Final = 512
MAX_UNPACKED_BYTES: Final = 1 << 34

Floats = NDArray[np.float32]
Scores = Callable[[NDArray[np.int64]], Floats]
"""Return the scores of all items, (n, n_items), for user indices (n,); a larger score ranks first."""


@dataclass(frozen=True, slots=True)
class ScoredInteractions(Interactions):
    """Interactions with `scores`, (n_pairs,) float32: the sum of each pair's positive interaction scores.

    Our model does not use scores, so the service's CSV reader drops them; a peer may use them.
    """

    scores: Floats = field(kw_only=True)

    def __getitem__(self, rows: NDArray[np.bool_] | NDArray[np.integer]) -> Self:
        """Select pairs and their scores."""
        return type(self)(self.user_ids, self.item_ids, self.users[rows], self.items[rows], scores=self.scores[rows])


@dataclass(frozen=True, slots=True)
class DataSet:
    """The training part, and the held-out pairs as user indices (n,) and item indices (n,)."""

    name: str
    train: Interactions
    has_times: bool
    test_users: Int32s
    test_items: Int32s

    @property
    def has_one_each(self) -> bool:
        """Whether one item per user is held out, as the protocol of NCF requires."""
        return len(np.unique(self.test_users)) == len(self.test_users)

    def with_test_of(self, users: NDArray[np.integer]) -> DataSet:
        """Return the same data set with the held-out pairs of these users only."""
        is_kept = np.isin(self.test_users, users)
        return replace(self, test_users=self.test_users[is_kept], test_items=self.test_items[is_kept])

    def validation(self) -> DataSet:
        """Split the training part once more, to select settings without looking at the test part.

        Each user's last item is held out, or a tenth of the items if there are no timestamps, for at most
        `MAX_VALIDATION_USERS` users.
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
class Metrics:
    """Means over users with a held-out item; `coverage` is the share of the catalogue in the top 20 of any user.

    `full_recall_at_10` and `full_ndcg_at_10` rank the whole catalogue, as papers on sequential recommendation do.
    `hr_at_10` and `ndcg_at_10` follow the protocol of NCF; they are None if users have several held-out items.
    """

    recall_at_20: float
    ndcg_at_20: float
    full_recall_at_10: float
    full_ndcg_at_10: float
    coverage: float
    hr_at_10: float | None = None
    ndcg_at_10: float | None = None


def load(name: str, folder: Path | None, *, with_scores: bool = False) -> DataSet:
    """Load one of `SETS`.

    Parameters
    ----------
    folder
        Contains the sets that may not be bundled.
    with_scores
        Whether `train` is `ScoredInteractions`, which costs memory.
    """
    path = train_file(name, folder)
    if name in TEST_FILES:
        assert folder is not None
        data = _given_split(name, path, folder / TEST_FILES[name])
    elif name in UNTIMED:
        interactions, _ = _read(path)
        train, held_out = hold_out_share(interactions, UNTIMED_TEST_SHARE, np.random.default_rng(0))
        data = DataSet(name, train, False, held_out.users, held_out.items)
    elif name in SHUFFLED:
        data = leave_last_out(name, io.BytesIO(shuffle_ties(path, np.random.default_rng(0))))
    else:
        data = leave_last_out(name, path)
    return replace(data, train=add_scores(data.train, path)) if with_scores else data


def train_file(name: str, folder: Path | None) -> Path:
    """Return the path of the CSV to train on."""
    name = (UNTIMED | SHUFFLED).get(name, name)
    if name != BUNDLED and folder is None:
        raise SystemExit(f"{name} may not be bundled. Pass the folder that contains it: DATA=…")
    return (folder or Path()) / TRAIN_FILES[name]  # an absolute path is unaffected


def leave_last_out(name: str, source: Path | io.BytesIO, *, max_users: int | None = None) -> DataSet:
    """Read a CSV and hold out the last pair of each user who has at least two, or of at most `max_users` of them."""
    interactions, has_times = _read(source)
    train, held_out = interactions.split_last()
    if max_users is not None and len(held_out) > max_users:
        held_out = held_out[np.sort(np.random.default_rng(0).permutation(len(held_out))[:max_users])]
        train = interactions.without(held_out)
    return DataSet(name, train, has_times, held_out.users, held_out.items)


def _given_split(name: str, train_path: Path, test_path: Path) -> DataSet:
    train, has_times = _read(train_path)
    test, _ = _read(test_path)
    user_of = {user_id: index for index, user_id in enumerate(train.user_ids)}
    item_of = {item_id: index for index, item_id in enumerate(train.item_ids)}
    known = [
        (user_of[test.user_ids[user]], item_of[test.item_ids[item]])
        for user, item in zip(test.users, test.items, strict=True)
        if test.user_ids[user] in user_of and test.item_ids[item] in item_of
    ]
    users, items = np.array(known, dtype=np.int32).T
    return DataSet(name, train, has_times, users, items)


def shuffle_ties(path: Path, generator: np.random.Generator) -> bytes:
    """Return the CSV with its lines in chronological order, and lines of the same time in random order."""
    rows = pd.read_csv(path, dtype=str, keep_default_na=False)
    shuffled = rows.iloc[generator.permutation(len(rows))]
    return shuffled.sort_values("timestamp", kind="stable").to_csv(index=False).encode()


def _read(source: Path | io.BytesIO) -> tuple[Interactions, bool]:
    with source.open("rb") if isinstance(source, Path) else source as stream:
        interactions, report = read_interactions(stream, max_unpacked_bytes=MAX_UNPACKED_BYTES)
    return interactions, report.has_timestamps


def add_scores(interactions: Interactions, path: Path) -> ScoredInteractions:
    """Add the scores of the CSV that the interactions were read from; without a score, a line counts as 1."""
    columns = ["user_id", "item_id", "interaction_score"]
    rows = pd.read_csv(path, usecols=lambda name: name in columns, dtype=str, keep_default_na=False)
    score = pd.to_numeric(rows["interaction_score"]).fillna(1.0) if "interaction_score" in rows else np.ones(len(rows))
    users = pd.Index(interactions.user_ids).get_indexer(pd.Index(rows["user_id"]))
    items = pd.Index(interactions.item_ids).get_indexer(pd.Index(rows["item_id"]))
    codes = users.astype(np.int64) * interactions.n_items + items
    is_used = (users >= 0) & (items >= 0) & (np.asarray(score) > 0)
    sums = pd.Series(np.asarray(score)[is_used]).groupby(codes[is_used]).sum()
    pairs = interactions.users.astype(np.int64) * interactions.n_items + interactions.items
    return ScoredInteractions(
        interactions.user_ids,
        interactions.item_ids,
        interactions.users,
        interactions.items,
        scores=sums.loc[pairs].to_numpy(dtype=np.float32),
    )


def hold_out_share(
    interactions: Interactions, share: float, generator: np.random.Generator
) -> tuple[Interactions, Interactions]:
    """Hold out `round(share * n)` random pairs of each user with n pairs, at least one if there are two.

    Returns the remaining and the held-out interactions.
    """
    order = generator.permutation(len(interactions))
    order = order[np.argsort(interactions.users[order], kind="stable")]
    counts = np.bincount(interactions.users, minlength=interactions.n_users)
    position = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    n_held_out = np.where(counts >= 2, np.maximum(np.rint(share * counts), 1), 0)
    is_held_out = np.zeros(len(order), dtype=np.bool_)
    is_held_out[order] = position < np.repeat(n_held_out, counts)
    return interactions[~is_held_out], interactions[is_held_out]


def without_newcomers(
    interactions: Interactions, share: float, generator: np.random.Generator
) -> tuple[Interactions, NDArray[np.int64]]:
    """Remove a random share of the users.

    Returns the interactions of the others, whose indices are renumbered, and the removed users' former indices.
    """
    order = generator.permutation(interactions.n_users)
    newcomers, others = np.split(order, [round(share * interactions.n_users)])
    others = np.sort(others)
    index_of = np.full(interactions.n_users, -1, dtype=np.int32)
    index_of[others] = np.arange(len(others))
    kept = interactions[index_of[interactions.users] >= 0]
    user_ids = [interactions.user_ids[user] for user in others]
    return replace(kept, user_ids=user_ids, users=index_of[kept.users]), np.sort(newcomers)


def measure(scores: Scores, data: DataSet, *, seed: int = 0) -> Metrics:
    """Compute the metrics of both protocols over all test users.

    Full catalogue, as in the LightGCN paper: all items except the user's training items are ranked; per user, recall is
    `hits / |test|` and NDCG is `DCG / ideal DCG(min(|test|, 20))`. NCF, as in He et al.: the held-out item is ranked
    among 99 items drawn with `seed` from those that the user never interacted with; a tie counts against the model. A
    score that is not a number ranks last.
    """
    generator = np.random.default_rng(seed)
    history, held_out = (
        _matrix(data.train.users, data.train.items, data),
        _matrix(data.test_users, data.test_items, data),
    )
    users = np.unique(data.test_users).astype(np.int64)
    means, ranks = [], []
    recommended = np.zeros(data.train.n_items, dtype=np.bool_)
    for start in range(0, len(users), USERS_PER_BATCH):
        batch = users[start : start + USERS_PER_BATCH]
        values = np.nan_to_num(np.array(scores(batch), dtype=np.float32), nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        if data.has_one_each:
            ranks.append(_ranks_among_negatives(values, history[batch], held_out[batch].indices, generator))
        rows, columns = history[batch].nonzero()
        values[rows, columns] = -np.inf
        top = _top(values)
        recommended[top] = True
        at_20 = _recall_and_ndcg(top, held_out[batch])
        at_10 = _recall_and_ndcg(top[:, :SEQUENTIAL_CUTOFF], held_out[batch])
        means.append(np.stack([*at_20, *at_10]))
    full = (*np.concatenate(means, axis=1).mean(axis=1).tolist(), float(recommended.mean()))
    return Metrics(*full, *_ncf_metrics(np.concatenate(ranks))) if ranks else Metrics(*full)


def _ncf_metrics(ranks: NDArray[np.int64]) -> tuple[float, float]:
    is_hit = ranks <= NCF_CUTOFF
    return float(is_hit.mean()), float(np.where(is_hit, 1 / np.log2(ranks + 1.0), 0.0).mean())


def _matrix(users: Int32s, items: Int32s, data: DataSet) -> Any:
    shape = (data.train.n_users, data.train.n_items)
    return sp.csr_matrix((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)


def _top(values: Floats) -> NDArray[np.int64]:
    """Return the best `CUTOFF` columns of each row, best first, (n, CUTOFF)."""
    cutoff = min(CUTOFF, values.shape[1])
    top = np.argpartition(-values, cutoff - 1, axis=1)[:, :cutoff]
    order = np.argsort(-np.take_along_axis(values, top, axis=1), axis=1, kind="stable")
    return np.take_along_axis(top, order, axis=1)


def _recall_and_ndcg(top: NDArray[np.int64], held_out: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return recall and NDCG of each row, (n,), among its best columns `top`, (n, cutoff)."""
    cutoff = top.shape[1]
    discounts = 1 / np.log2(np.arange(2, cutoff + 2))
    n_held_out = np.diff(held_out.indptr)
    hits = np.take_along_axis(held_out.toarray() > 0, top, axis=1)
    ideal = np.cumsum(discounts)[np.minimum(n_held_out, cutoff) - 1]
    return hits.sum(axis=1) / n_held_out, (hits @ discounts) / ideal


def _ranks_among_negatives(
    values: Floats, history: Any, targets: Int32s, generator: np.random.Generator
) -> NDArray[np.int64]:
    """Return the rank, from 1, of each row's target among sampled negatives, (n,)."""
    ranks = []
    for row, target in enumerate(targets.tolist()):
        is_negative = np.ones(values.shape[1], dtype=np.bool_)
        is_negative[history.indices[history.indptr[row] : history.indptr[row + 1]]] = False
        is_negative[target] = False
        untouched = np.flatnonzero(is_negative)
        negatives = generator.choice(untouched, min(NCF_NEGATIVES, len(untouched)), replace=False)
        ranks.append(1 + int(np.count_nonzero(values[row, negatives] >= values[row, target])))
    return np.array(ranks, dtype=np.int64)
