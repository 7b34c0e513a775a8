"""How many honest daily retrainings are held: sliding windows of Online Retail, each compared with the current version.

python -m tests.benchmarks.retraining [--days 100] [--window 90] [--items 1000] [--fast] [--csv FILE]

Each day, the interactions of the last `--window` days are read and trained on as the service does, and the version is
compared with the current one by `recsys_train.comparison`. A version that is not held becomes current. The serving
bundle is written and read back. To save time, `--items` keeps only the items with the most rows, and `--fast` trains
for one epoch with one ridge and two decays to choose from. The last line is the deviation of NDCG@20 over users, on
which the data report bases the precision to expect.
"""

from __future__ import annotations

import argparse
import io
import tempfile
import time
from dataclasses import dataclass
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
from recsys_train.fitting.recipe import Recipe
from tests.benchmarks.protocol import BUNDLED, MAX_UNPACKED_BYTES, TRAIN_FILES
from tests.benchmarks.tables import Table


@dataclass(frozen=True, slots=True)
class Current:
    """The version that is served."""

    model: ServingModel
    metrics: dict[str, Any]


def window_csv(rows: pd.DataFrame, end: pd.Timestamp, days: int) -> bytes:
    """Return the rows of the `days` before `end` as a CSV."""
    times = pd.to_datetime(rows["timestamp"], utc=True)
    csv: bytes = rows[(times < end) & (times >= end - pd.Timedelta(days=days))].to_csv(index=False).encode()
    return csv


def retrain(csv: bytes, recipe: Recipe, current: Current | None, version: str) -> tuple[Current, list[object], Any]:
    """Train on a CSV, compare, and return the version with a row of the table and the gains on the same users."""
    interactions, report = read_interactions(io.BytesIO(csv), max_unpacked_bytes=MAX_UNPACKED_BYTES)
    result = fit(interactions, recipe, seed=0, budget_s=600, on_progress=lambda _: None, has_times=True)
    metrics = describe_metrics(result, report, recipe=recipe, seed=0)
    figures, reasons, gains = {}, [], None
    if current is not None:
        figures, reasons = compare(interactions, result.test, metrics, current.model, current.metrics)
        gains = rank_same_users(interactions, result.test, current.model)
    with tempfile.TemporaryDirectory() as folder:
        write_version(Path(folder), version, interactions, result, metrics)
        built = Current(artifact.read_folder(Path(folder)), metrics)
    new, before = figures.get("new", {}), figures.get("current", {})
    row = [
        version,
        len(interactions),
        interactions.n_users,
        metrics["lift_over_popularity"],
        new.get("compared_users"),
        before.get("compared_ndcg_at_20"),
        new.get("compared_ndcg_at_20"),
        ", ".join(reason["code"] for reason in reasons) or "published",
    ]
    return built, row, gains


def main() -> None:
    """Retrain once a day, and print how many versions were held."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--days", type=int, default=100)
    parser.add_argument("--window", type=int, default=90)
    parser.add_argument("--items", type=int)
    parser.add_argument("--fast", action="store_true")
    parser.add_argument("--csv", type=Path, default=TRAIN_FILES[BUNDLED])
    arguments = parser.parse_args()
    rows = pd.read_csv(arguments.csv, dtype=str, keep_default_na=False)
    if arguments.items:
        rows = rows[rows["item_id"].isin(rows["item_id"].value_counts().index[: arguments.items])]
    last = pd.to_datetime(rows["timestamp"], utc=True).max().normalize() + pd.Timedelta(days=1)
    columns = {"day": "", "pairs": ",d", "users": ",d", "lift": ".2f", "same users": "d"}
    table = Table("Daily retrainings", columns | {"current": ".4f", "new": ".4f", "outcome": ""})
    recipe = Recipe(max_epochs=1, ridges=(200.0,), decays=(0.5, 1.0)) if arguments.fast else Recipe()
    current, started = None, time.perf_counter()
    all_gains: list[float] = []
    for ago in range(arguments.days, -1, -1):
        day = last - pd.Timedelta(days=ago)
        csv = window_csv(rows, day, arguments.window)
        built, row, gains = retrain(csv, recipe, current, f"{day:%Y-%m-%d}")
        table.rows.append(row)
        print(*row, f"{time.perf_counter() - started:.0f} s", flush=True)
        if gains is not None:
            all_gains += gains.new.tolist()
        if row[-1] == "published":
            current = built
    print(table.text())
    n_held = sum(row[-1] != "published" for row in table.rows)
    print(f"{n_held} of {len(table.rows) - 1} retrainings were held.")
    print(f"Standard deviation of NDCG@20 over users: {np.std(all_gains):.2f}")


if __name__ == "__main__":
    main()
