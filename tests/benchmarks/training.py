"""Compare our model with its peers (`make bench-train`); `tests/benchmarks/README.md` describes the measurements."""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.benchmarks.generated_data import GENERATED_SETS
from tests.benchmarks.measured import run_task
from tests.benchmarks.options import Options, log
from tests.benchmarks.protocol import BUNDLED, GOWALLA, SETS, UNTIMED
from tests.benchmarks.scale import phases_table, scale, whole_way
from tests.benchmarks.tables import Table
from tests.benchmarks.tasks import NEWCOMER_SHARE, OURS, PEERS, SASREC, TEXTBOOK

METHODS = (*PEERS, SASREC, TEXTBOOK, OURS)
NO_PEERS = {OURS}
"""Methods that cannot be the best peer."""
NOT_MEASURED = {
    ("EASE", "gowalla"): "not measured: 40,981² weights",
    ("EASE, recent", "gowalla"): "not measured: 40,981² weights",
    ("EASE + ALS", "gowalla"): "not measured: 40,981² weights",
    (TEXTBOOK, "gowalla"): "not measured: takes hours",
    (TEXTBOOK, "citeulike"): "not measured: takes hours",
    (TEXTBOOK, "video_games"): "not measured: takes hours",
    **{(SASREC, data): "not measured: histories without an order" for data in (GOWALLA, "citeulike", *UNTIMED)},
}
METRICS = (
    "recall_at_20",
    "ndcg_at_20",
    "full_recall_at_10",
    "full_ndcg_at_10",
    "hr_at_10",
    "ndcg_at_10",
    "coverage",
    "fit_s",
    "pairs_per_s",
)

Result = dict[str, Any]


def main() -> None:
    """Print the tables of each part as soon as they are complete, and write them with `--out`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="folder that contains ml-100k/ and gowalla/")
    parser.add_argument("--sets", nargs="+", choices=SETS, help="default: all available sets")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[name for name in PARTS if name != "scale"])
    parser.add_argument(
        "--only", nargs="+", choices=METHODS, default=METHODS, metavar="METHOD", help="methods of the part quality"
    )
    parser.add_argument(
        "--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds of random methods; the median is reported"
    )
    parser.add_argument(
        "--generated", nargs="+", choices=GENERATED_SETS, default=[], help="generated sets of whole-way and scale"
    )
    parser.add_argument("--textbook-epochs", type=int, default=20, help="epochs of the part speed")
    parser.add_argument("--out", type=Path, metavar="FILE", help="Markdown file to write")
    arguments = parser.parse_args()
    sets = arguments.sets or ([BUNDLED] if arguments.data is None else SETS)
    options = Options(
        arguments.data,
        tuple(sets),
        tuple(arguments.only),
        tuple(arguments.seeds),
        tuple(arguments.generated),
        arguments.textbook_epochs,
    )
    tables: list[str] = []
    for part in arguments.parts:
        for table in PARTS[part](options):
            print(f"\n{table.text()}", flush=True)
            tables.append(table.markdown())
            if arguments.out:
                arguments.out.write_text("\n".join(tables), encoding="utf-8")


def quality(options: Options) -> Iterator[Table]:
    """Measure every method on every data set, and the phases of our training."""
    for data in options.sets:
        results: dict[str, Result] = {}
        for method in METHODS:
            if method in options.methods and (method, data) not in NOT_MEASURED:
                results[method] = _median_of_seeds(options, method, data)
        yield _quality_table(options, data, results)
        if OURS in results:
            yield phases_table(f"Phases of our training, {data}", {OURS: results[OURS]["phases"]})


def _median_of_seeds(options: Options, method: str, data: str) -> Result:
    """Return the medians over the seeds. Peers select settings with the first one; deterministic peers run once."""
    settings, results, peaks = None, [], []
    for seed in options.seeds:
        log(f"{data}: {method}, seed {seed}")
        result, done = run_task("quality", method=method, **options.arguments(data), seed=seed, settings=settings)
        results.append(result)
        peaks.append(done.peak_gib)
        settings = result["settings"]
        if method in PEERS and not PEERS[method].is_random:
            break
    medians = {name: _median([result[name] for result in results]) for name in METRICS}
    return {**results[0], **medians, "peak_gib": max(peaks), "n_seeds": len(results)}


def _median(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _quality_table(options: Options, data: str, results: dict[str, Result]) -> Table:
    columns = {"": "", "Recall@20": ".4f", "NDCG@20": ".4f", "÷ best peer": ".3f"}
    columns |= {"Recall@10": ".4f", "NDCG@10": ".4f", "NCF's HR@10": ".4f", "NCF's NDCG@10": ".4f"}
    columns |= {"÷ best peer's": ".3f", "coverage": ".3f"}
    columns |= {"selection s": ",.1f", "fitting s": ",.1f", "peak GiB": ".2f", "pairs/s": ",.0f"}
    table = Table(f"Quality, {data}, median of seeds {' '.join(map(str, options.seeds))}", columns)
    peers = [result for method, result in results.items() if method not in NO_PEERS]
    best_20 = max((result["ndcg_at_20"] for result in peers), default=None)
    best_10 = max((result["ndcg_at_10"] for result in peers if result["ndcg_at_10"] is not None), default=None)
    for method in options.methods:
        if (method, data) in NOT_MEASURED:
            table.rows.append([method, *[None] * (len(columns) - 1)])
            table.notes.append(f"{method} {NOT_MEASURED[method, data]}")
            continue
        result = results[method]
        table.rows.append([
            method,
            result["recall_at_20"],
            result["ndcg_at_20"],
            _ratio(result["ndcg_at_20"], best_20),
            result["full_recall_at_10"],
            result["full_ndcg_at_10"],
            result["hr_at_10"],
            result["ndcg_at_10"],
            _ratio(result["ndcg_at_10"], best_10),
            result["coverage"],
            result["choosing_s"],
            result["fit_s"],
            result["peak_gib"],
            result["pairs_per_s"],
        ])  # fmt: skip
        if result["settings"]:
            table.notes.append(f"settings of {method}: {_settings_text(result['settings'])}")
    return table


def speed(options: Options) -> Iterator[Table]:
    """Compare our training with the textbook's at the same widths."""
    columns = {"": "", "widths": "", "pairs/s": ",.0f", "textbook's": ",.0f", "ratio": ",.1f"}
    columns |= {
        "textbook's NDCG@20": ".4f",
        "after s": ",.1f",
        "our NDCG@20": ".4f",
        "after s, complete": ",.1f",
        "÷": ".4f",
    }
    table = Table(f"Speed beside Keras `model.fit`, {options.textbook_epochs} epochs", columns)
    for data in options.sets:
        if (TEXTBOOK, data) in NOT_MEASURED:
            table.notes.append(f"{data} {NOT_MEASURED[TEXTBOOK, data]} with the textbook")
            continue
        log(f"{data}: speed")
        result, _ = run_task("speed", **options.arguments(data), seed=options.seeds[0], epochs=options.textbook_epochs)
        table.rows.append([
            data,
            "-".join(map(str, result["widths"])),
            result["ours_pairs_per_s"],
            result["textbook_pairs_per_s"],
            result["ours_pairs_per_s"] / result["textbook_pairs_per_s"],
            result["textbook_ndcg_at_20"],
            result["textbook_s"],
            result["reached_ndcg_at_20"],
            result["reached_s"],
            result["reached_s"] / result["textbook_s"],
        ])  # fmt: skip
    yield table


def newcomers(options: Options) -> Iterator[Table]:
    """Measure recommendations for users who were not in the training data, from their histories; medians of seeds."""
    columns = {"NDCG@20": "", "trained users": ".4f", "newcomers": ".4f", "ratio": ".3f"}
    columns |= {
        "the same users if trained": ".4f",
        "ratio ": ".3f",
        "by popularity": ".4f",
        "newcomers, n": ",d",
    }
    seeds = " ".join(map(str, options.seeds))
    table = Table(f"Newcomers: {NEWCOMER_SHARE:.0%} of the users removed from training, seeds {seeds}", columns)
    for data in options.sets:
        rows: list[list[Any]] = []
        for seed in options.seeds:
            log(f"{data}: newcomers, seed {seed}")
            result, _ = run_task("newcomers", **options.arguments(data), seed=seed)
            rows.append([
                result["trained"],
                result["newcomers"],
                result["newcomers"] / result["trained"],
                result["newcomers_if_trained"],
                result["newcomers"] / result["newcomers_if_trained"],
                result["newcomers_popularity"],
                result["n_newcomers"],
            ])  # fmt: skip
        table.rows.append([data, *(statistics.median(values) for values in zip(*rows, strict=True))])
        ratios = " ".join(f"{row[2]:.3f}" for row in rows)
        table.notes.append(f"ratios of {data} by seed: {ratios}")
    yield table


def short_histories(options: Options) -> Iterator[Table]:
    """Measure users with one, two and three interactions in the training part; medians of seeds."""
    columns = {"": "", "interactions": "d", "users": ",d", "NDCG@20": ".4f", "popularity": ".4f", "ratio": ".2f"}
    table = Table(f"Short histories, median of seeds {' '.join(map(str, options.seeds))}", columns)
    for data in options.sets:
        parts = []
        for seed in options.seeds:
            log(f"{data}: short histories, seed {seed}")
            parts.append(run_task("short_histories", **options.arguments(data), seed=seed)[0]["rows"])
        for rows in zip(*parts, strict=True):
            ndcg, popularity = statistics.median(row["ndcg_at_20"] for row in rows), rows[0]["popularity"]
            table.rows.append([
                data, rows[0]["length"], rows[0]["n_users"], ndcg, popularity, _ratio(ndcg, popularity)
            ])  # fmt: skip
    yield table


def contributions(options: Options) -> Iterator[Table]:
    """Measure our model with one part of the recipe disabled at a time."""
    from tests.benchmarks.ours import VARIANTS  # noqa: PLC0415  # imports TensorFlow, which the other parts need only in their processes

    for data in options.sets:
        columns = {
            "": "",
            "NDCG@20": ".4f",
            "÷ defaults": ".3f",
            "Recall@20": ".4f",
            "NDCG@10": ".4f",
            "seconds": ",.1f",
        }
        table = Table(f"Ablations, {data}, median of seeds {' '.join(map(str, options.seeds))}", columns)
        defaults = None
        for variant in VARIANTS:
            log(f"{data}: {variant}")
            results = [
                run_task("contribution", variant=variant, **options.arguments(data), seed=seed)[0]
                for seed in options.seeds
            ]
            medians = {name: _median([result[name] for result in results]) for name in METRICS}
            defaults = defaults or medians["ndcg_at_20"]
            table.rows.append([
                variant,
                medians["ndcg_at_20"],
                _ratio(medians["ndcg_at_20"], defaults),
                medians["recall_at_20"],
                medians["ndcg_at_10"],
                medians["fit_s"],
            ])  # fmt: skip
        yield table


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base else None


def _settings_text(settings: dict[str, Any]) -> str:
    return ", ".join(
        f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}" for name, value in settings.items()
    )


PARTS: dict[str, Callable[[Options], Iterator[Table]]] = {
    "quality": quality,
    "speed": speed,
    "whole-way": whole_way,
    "newcomers": newcomers,
    "short-histories": short_histories,
    "contributions": contributions,
    "scale": scale,
}

if __name__ == "__main__":
    main()
