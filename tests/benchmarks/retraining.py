"""How many honest daily retrainings are held: sliding windows of Online Retail, each compared with the current version.

python -m tests.benchmarks.retraining [--days 100] [--window 90] [--items 1000] [--users 100] [--fast]
                                      [--csv FILE] [--folder FOLDER] [--for-s SECONDS]

Each day, the interactions of the last `--window` days are read and trained on as the service does, and the version is
compared with the current one by `recsys_train.comparison`. A version that is not held becomes current. The serving
bundle is written and read back. To save time, `--items` keeps only the items with the most rows, and `--fast` trains
for one epoch and searches only the recency exponent, among two. `--users` keeps some users, as of a small shop. The
last line is the deviation of NDCG@20 over users, on which the data report bases the precision to expect.

`--folder` keeps the results and the current version, so that a run that was stopped, or that ended after `--for-s`,
goes on from there with the same command.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recsys.model import artifact
from recsys.model.recommender import ServingModel
from recsys_train.build import describe_metrics, write_version
from recsys_train.comparison import compare, rank_same_users
from recsys_train.data.reader import read_interactions
from recsys_train.fitting.fit import fit
from recsys_train.fitting.recipe import SEARCH_SPACE, Recipe, SearchSpace
from tests.benchmarks.protocol import BUNDLED, MAX_UNPACKED_BYTES, TRAIN_FILES
from tests.benchmarks.tables import Table

COLUMNS = {"day": "", "pairs": ",d", "users": ",d", "lift": ".2f", "same users": "d"} | {
    "current": ".4f",
    "new": ".4f",
    "outcome": "",
}


@dataclass(frozen=True, slots=True)
class Current:
    """The version that is served."""

    model: ServingModel
    metrics: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Day:
    """Result of one retraining: its row of the table, NDCG@20 of each compared user, and the texts of the reasons."""

    row: list[Any]
    gains: list[float]
    reasons: list[str]

    @property
    def is_held(self) -> bool:
        """Whether the version did not become current."""
        return bool(self.reasons)


class Run:
    """The retrainings so far and the current version, in a folder from which a later run goes on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._log = folder / "days.jsonl"
        lines = self._log.read_text().splitlines() if self._log.exists() else []
        self.days = [Day(**json.loads(line)) for line in lines]

    def current(self) -> Current | None:
        """Read the version that was published last."""
        published = [day.row[0] for day in self.days if not day.is_held]
        if not published:
            return None
        bundle = self.folder / published[-1]
        return Current(artifact.read_folder(bundle), json.loads((bundle / artifact.METRICS).read_text()))

    def add(self, day: Day) -> None:
        """Record a retraining, and delete all versions except the current one."""
        with self._log.open("a") as log:
            log.write(json.dumps(asdict(day)) + "\n")
        self.days.append(day)
        published = [each.row[0] for each in self.days if not each.is_held]
        for bundle in self.folder.iterdir():
            if bundle.is_dir() and bundle.name != published[-1]:
                shutil.rmtree(bundle)


def window_csv(rows: pd.DataFrame, end: pd.Timestamp, days: int) -> bytes:
    """Return the rows of the `days` before `end` as a CSV."""
    times = pd.to_datetime(rows["timestamp"], utc=True)
    csv: bytes = rows[(times < end) & (times >= end - pd.Timedelta(days=days))].to_csv(index=False).encode()
    return csv


def retrain(csv: bytes, recipe: Recipe, current: Current | None, bundle: Path) -> Day:
    """Train on a CSV, write the version, named by its day, into a folder, and compare it with the current one."""
    interactions, report = read_interactions(io.BytesIO(csv), max_unpacked_bytes=MAX_UNPACKED_BYTES)
    result = fit(interactions, recipe, seed=0, budget_s=600, on_progress=lambda _: None, has_times=True)
    metrics = describe_metrics(result, report, recipe=recipe, seed=0)
    figures, reasons, gains = {}, [], []
    if current is not None:
        figures, reasons = compare(interactions, result.test, metrics, current.model, current.metrics)
        gains = rank_same_users(interactions, result.test, current.model).new.tolist()
    bundle.mkdir(exist_ok=True)
    write_version(bundle, bundle.name, interactions, result, metrics)
    new, before = figures.get("new", {}), figures.get("current", {})
    row = [
        bundle.name,
        len(interactions),
        interactions.n_users,
        metrics["lift_over_popularity"],
        new.get("compared_users"),
        before.get("compared_ndcg_at_20"),
        new.get("compared_ndcg_at_20"),
        ", ".join(reason["code"] for reason in reasons) or "published",
    ]
    return Day(row, gains, [reason["text"] for reason in reasons])


def fast_recipe() -> Recipe:
    """Return a recipe that trains for one epoch and searches only the recency exponent, among two."""
    start = SEARCH_SPACE.start
    space = SearchSpace(
        (start.user_exponent,),
        (start.item_exponent,),
        (start.ridge,),
        (start.diagonal,),
        (start.score_exponent,),
        start,
    )
    return Recipe(max_epochs=1, widenings=(1,), search_space=space, decays=(0.5, 1.0))


def go_on(run: Run, rows: pd.DataFrame, arguments: argparse.Namespace) -> None:
    """Retrain for each day that the run lacks, until the time is over."""
    last = pd.to_datetime(rows["timestamp"], utc=True).max().normalize() + pd.Timedelta(days=1)
    recipe = fast_recipe() if arguments.fast else Recipe()
    started = time.perf_counter()
    for ago in range(arguments.days - len(run.days), -1, -1):
        if arguments.for_s is not None and time.perf_counter() - started > arguments.for_s:
            break
        end = last - pd.Timedelta(days=ago)
        csv = window_csv(rows, end, arguments.window)
        run.add(retrain(csv, recipe, run.current(), run.folder / f"{end:%Y-%m-%d}"))
        print(*run.days[-1].row, f"{time.perf_counter() - started:.0f} s", flush=True)


def print_results(days: list[Day]) -> None:
    """Print all retrainings, and how many versions were held and why."""
    print(Table("Daily retrainings", COLUMNS, [day.row for day in days]).text())
    for day in days:
        for reason in day.reasons:
            print(f"{day.row[0]}: {reason}")
    n_compared = sum(day.row[4] or 0 for day in days)
    print(
        f"{sum(day.is_held for day in days)} of {len(days) - 1} retrainings were held; {n_compared} comparable users."
    )
    for column, name in ((5, "current"), (6, "new")):
        total = sum(day.row[column] * day.row[4] for day in days if day.row[4])
        print(f"NDCG@20 of the {name} version on comparable users: {total / max(n_compared, 1):.4f}")
    gains = [gain for day in days for gain in day.gains]
    print(f"Standard deviation of NDCG@20 over users: {np.std(gains):.2f}")


@contextlib.contextmanager
def folder_of(folder: Path | None) -> Iterator[Path]:
    """Return the folder, or a temporary one."""
    if folder is not None:
        yield folder
        return
    with tempfile.TemporaryDirectory() as temporary:
        yield Path(temporary)


def main() -> None:
    """Retrain once a day, and print how many versions were held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--window", type=int, default=90)
    parser.add_argument("--items", type=int)
    parser.add_argument("--users", type=int)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--csv", type=Path, default=TRAIN_FILES[BUNDLED])
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--for-s", type=float)
    arguments = parser.parse_args()
    rows = pd.read_csv(arguments.csv, dtype=str, keep_default_na=False)
    if arguments.items:
        rows = rows[rows["item_id"].isin(rows["item_id"].value_counts().index[: arguments.items])]
    if arguments.users:
        kept = pd.Series(rows["user_id"].unique()).sample(arguments.users, random_state=0)
        rows = rows[rows["user_id"].isin(kept)]
    with folder_of(arguments.folder) as folder:
        run = Run(folder)
        go_on(run, rows, arguments)
        print_results(run.days)


if __name__ == "__main__":
    main()
