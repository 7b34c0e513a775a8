"""Compare exponents of the spectral warm start by its NDCG@20 on validation parts of different data sets.

python -m tests.benchmarks.exponents [--data FOLDER]

One setting has to suit every shop, so the geometric mean over the sets decides. A generated set of a million pairs is
one of them. Small catalogues, for which training would start from EASE, are included. Test parts are not used.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from recsys_train.model.spectral import SPECTRAL_EXPONENTS, Exponents, spectral
from recsys_train.model.warm_start import LinearModel
from tests.benchmarks.generated_data import GENERATED_SETS, write_generated_set
from tests.benchmarks.protocol import BUNDLED, SETS, DataSet, Floats, leave_last_out, load, measure
from tests.benchmarks.tables import Table

USER = (0.2, 0.3, 0.4, 0.5)
ITEM = (0.3, 0.4, 0.5, 0.6)
SMOOTHINGS = (0.0, 0.5, 1.0, 2.0)
SCORE_DIFFERENCES = (0.0, 0.1, 0.2, 0.3)
"""By how much the exponent of the score is smaller than that of the item."""
PUBLISHED = Exponents(user=0.5, item=0.5, score=0.5)
"""The exponents of GF-CF."""
DIM = 512
SHOWN = 10

Curve = dict[Exponents, float]


def main() -> None:
    """Print the settings with the best geometric mean, the published ones and the current ones."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder of the sets that may not be bundled")
    arguments = parser.parse_args()
    curves = {name: _curve(name, load(name, arguments.data)) for name in (SETS if arguments.data else [BUNDLED])}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "generated.csv"
        write_generated_set(path, GENERATED_SETS["1m"])
        curves["generated"] = _curve("generated", leave_last_out("generated", path))

    gains = {exponents: _gain(curves, exponents) for exponents in curves["generated"]}
    best = sorted(gains, key=lambda exponents: -gains[exponents])[:SHOWN]
    columns = (
        {"user, item, score, smoothing": "s"} | dict.fromkeys(curves, ".4f") | {"÷ published, geometric mean": ".3f"}
    )
    table = Table("NDCG@20 of the spectral warm start on validation parts", columns)
    for exponents in dict.fromkeys([*best, SPECTRAL_EXPONENTS, PUBLISHED]):
        ndcgs = [curve[exponents] for curve in curves.values()]
        table.rows.append([_name(exponents), *ndcgs, gains[exponents]])
    print(table.text())


def _curve(name: str, data: DataSet) -> Curve:
    """Return NDCG@20 on the validation part of a data set, by exponents."""
    part = data.validation()
    matrix = part.train.to_matrix()
    counts = np.maximum(part.train.users_per_item(), 1).astype(np.float32)[:, None]
    curve = {}
    for user, item, smoothing in itertools.product(USER, ITEM, SMOOTHINGS):
        unscaled = spectral(matrix, DIM, np.random.default_rng(0), Exponents(user, item, 0.0, smoothing))
        smoothed = counts + smoothing * counts.mean()
        for difference in SCORE_DIFFERENCES:
            exponents = Exponents(user, item, round(item - difference, 1), smoothing)
            model = LinearModel(unscaled.item_map, unscaled.item_vectors * smoothed**exponents.score)
            curve[exponents] = measure(partial(_scores, model, matrix), part).ndcg_at_20
        print(f"{name}: user {user}, item {item}, smoothing {smoothing}", flush=True)
    return curve


def _scores(model: LinearModel, matrix: Any, users: NDArray[np.int64]) -> Floats:
    return model.scores(matrix[users])


def _gain(curves: dict[str, Curve], exponents: Exponents) -> float:
    """Return the geometric mean over the sets of NDCG@20 divided by that of the published exponents."""
    return float(np.exp(np.mean([np.log(curve[exponents] / curve[PUBLISHED]) for curve in curves.values()])))


def _name(exponents: Exponents) -> str:
    return f"{exponents.user}, {exponents.item}, {exponents.score}, {exponents.smoothing}"


if __name__ == "__main__":
    main()
