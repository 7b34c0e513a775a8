"""Measure generated sets, and the time and memory of `recsys train`: parts of `make bench-train`."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.generated_data import GENERATED_SETS
from tests.benchmarks.measured import run, run_task
from tests.benchmarks.options import Options, log
from tests.benchmarks.protocol import TRAIN_FILES, train_file
from tests.benchmarks.tables import Table

SCALE_SETS = ("1m", "5m", "20m")
SCALE_BUDGET_S = 720.0


def scale(options: Options) -> Iterator[Table]:
    """Measure generated data sets: quality beside popularity, time and memory."""
    columns = {"set": "", "pairs": ",d", "users": ",d", "items": ",d", "reading s": ",.1f", "training s": ",.1f"}
    columns |= {"peak GiB": ".2f", "NDCG@20": ".4f", "popularity": ".4f", "ratio": ".3f", "weight": "g", "epochs": "d"}
    table = Table(f"Generated sets, a budget of {SCALE_BUDGET_S:.0f} s", columns)
    phases = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in options.generated or SCALE_SETS:
            path = _generate(name, folder)
            result, done = run_task("scale", path=str(path), seed=options.seeds[0], budget_s=SCALE_BUDGET_S)
            phases[name] = result["phases"]
            generated, ndcg, popularity = GENERATED_SETS[name], result["ndcg_at_20"], result["popularity"]
            table.rows.append([
                name,
                generated.n_pairs,
                generated.n_users,
                generated.n_items,
                result["read_s"],
                result["train_s"],
                done.peak_gib,
                ndcg,
                popularity,
                ndcg / popularity,
                result["popularity_weight"],
                result["epochs"],
            ])  # fmt: skip
    table.notes.append("weight: the weight of popularity that validation selects")
    yield table
    yield phases_table("Phases of our training, by set", phases)


def whole_way(options: Options) -> Iterator[Table]:
    """Measure `recsys train` from the CSV to the files of a version, including the start of Python and TensorFlow."""
    table = Table("From CSV to model: recsys train", {"": "", "seconds": ",.1f", "peak GiB": ".2f"})
    with tempfile.TemporaryDirectory() as folder:
        for name in options.generated:
            table.rows.append([name, *_recsys_train(_generate(name, folder))])
    if not options.generated:
        for data in [name for name in options.sets if name in TRAIN_FILES]:
            table.rows.append([data, *_recsys_train(train_file(data, options.folder).resolve())])
    yield table


def _recsys_train(path: Path) -> tuple[float, float]:
    """Return the seconds and the peak memory in GiB of `recsys train`."""
    log(f"recsys train {path}")
    with tempfile.TemporaryDirectory() as folder:
        recsys = Path(sys.executable).with_name("recsys")
        done = run([str(recsys), "train", str(path), "--out", f"{folder}/model"])
    return done.wall_s, done.peak_gib


def _generate(name: str, folder: str) -> Path:
    """Write a generated set into a folder, whose previous set is replaced."""
    log(f"generated set {name}")
    path = Path(folder) / "generated.csv"
    run_task("generated_set", path=str(path), size=name)
    return path


def phases_table(title: str, phases: dict[str, dict[str, float]]) -> Table:
    """Return the seconds of each phase, with one row per training."""
    names = list(dict.fromkeys(name for seconds in phases.values() for name in seconds))
    rows: list[list[object]] = [[label, *(seconds.get(name) for name in names)] for label, seconds in phases.items()]
    return Table(title, {"": "", **{f"{name} s": ",.2f" for name in names}}, rows)
