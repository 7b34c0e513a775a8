"""What the cap of epochs, the learning rate and its decay rest on: NDCG@20 by epoch, on parts cut from training data.

python -m tests.benchmarks.curves [--data FOLDER] [--sets ml-100k …]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.benchmarks.protocol import BUNDLED, SETS, DataSet, hold_out_share, load, measure

CUTS = 3
SETTINGS_WITH_TIMES = ((0.003, 0.0), (0.003, 0.5), (0.003, 1.0))
SETTINGS_WITHOUT_TIMES = ((0.001, 0.0), (0.003, 0.0), (0.006, 0.0), (0.003, 0.5), (0.003, 1.0))
"""Learning rates, and how they fall with the epochs: `Steps.rate_decay`."""
MAX_EPOCHS = 6
MAX_EPOCHS_WITHOUT_TIMES = 4
LINEAR = {BUNDLED: (200.0, 1.0), "ml-100k": (800.0, 0.75)}
"""Ridge and decay of histories as validation chose them once; the curves of a set are to differ by training alone."""


def main() -> None:
    """Print a line for each curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder with the sets that may not be bundled")
    parser.add_argument("--sets", nargs="+", choices=SETS)
    arguments = parser.parse_args()
    for name in arguments.sets or (SETS if arguments.data else [BUNDLED]):
        data = load(name, arguments.data)
        settings, parts, max_epochs = (
            (SETTINGS_WITH_TIMES, _last_items(data), MAX_EPOCHS)
            if data.has_times
            else (SETTINGS_WITHOUT_TIMES, [_a_fifth(data)], MAX_EPOCHS_WITHOUT_TIMES)
        )
        for rate, rate_decay in settings:
            curves = [_curve(part, rate, rate_decay, max_epochs) for part in parts]
            mean = np.mean(curves, axis=0).round(4).tolist()
            print(f"{name}, rate {rate} x epoch ** -{rate_decay}, mean of {len(parts)}: {mean}", flush=True)


def _last_items(data: DataSet) -> list[DataSet]:
    """Each user's last item held out, then the one before, and so on."""
    parts, train = [], data.train
    for _ in range(CUTS):
        train, held_out = train.split_last()
        parts.append(DataSet(data.name, train, has_times=True, test_users=held_out.users, test_items=held_out.items))
    return parts


def _a_fifth(data: DataSet) -> DataSet:
    """A fifth of each user's items held out, drawn; some of the users are asked."""
    train, held_out = hold_out_share(data.train, 0.2, np.random.default_rng(100))
    part = DataSet(data.name, train, has_times=False, test_users=held_out.users, test_items=held_out.items)
    return part.with_test_of(np.random.default_rng(0).permutation(np.unique(held_out.users))[:5000])


def _curve(data: DataSet, rate: float, rate_decay: float, max_epochs: int) -> list[float]:
    """NDCG@20 of the start and after each epoch."""
    from recsys.neumf import Network  # noqa: PLC0415  # with the others: TensorFlow takes seconds
    from recsys_train.fitting import Choice, Recipe, epochs  # noqa: PLC0415  # as above
    from tests.benchmarks.ours import network_scorer  # noqa: PLC0415  # as above

    usual = Recipe()
    ordered, unordered = (replace(steps, rate_decay=rate_decay) for steps in (usual.ordered, usual.unordered))
    recipe = replace(usual, learning_rate=rate, ordered=ordered, unordered=unordered)
    ridge, decay = LINEAR.get(data.name, (0.0, 0.0))
    curve = []
    for epoch, _, model in epochs(data.train, recipe, Choice(ridge, decay), 0, deadline=float("inf")):
        network = Network.from_weights(model.dims, model.weights(), decay=decay)
        curve.append(measure(network_scorer(network, data.train), data).ndcg_at_20)
        if epoch == max_epochs:
            break
    return curve


if __name__ == "__main__":
    main()
