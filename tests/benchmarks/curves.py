"""Print NDCG@20 by epoch on validation parts: the basis of the limit of epochs and of the learning rate.

python -m tests.benchmarks.curves [--data FOLDER] [--sets ml-100k …]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from tests.benchmarks.protocol import BUNDLED, SETS, DataSet, hold_out_share, load, measure

CUTS = 3
RATES = (0.001, 0.003, 0.006)
MAX_EPOCHS = 6
MAX_EPOCHS_WITHOUT_TIMES = 4
DECAYS = {BUNDLED: 1.0, "ml-100k": 0.75}
"""As validation selected them once; the curves of a set are to differ by epochs alone."""


def main() -> None:
    """Print one line per curve."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, help="folder of the sets that may not be bundled")
    parser.add_argument("--sets", nargs="+", choices=SETS)
    arguments = parser.parse_args()
    for name in arguments.sets or (SETS if arguments.data else [BUNDLED]):
        data = load(name, arguments.data)
        if data.has_times:
            _by_time(data)
        else:
            _by_rate(data)


def _by_time(data: DataSet) -> None:
    """Hold out each user's last item, then the second to last, and so on."""
    train = data.train
    for cut in range(1, CUTS + 1):
        train, held_out = train.split_last()
        part = DataSet(data.name, train, has_times=True, test_users=held_out.users, test_items=held_out.items)
        print(f"{data.name}, item {cut} from the end: {_curve(part, DECAYS[data.name], None, MAX_EPOCHS)}", flush=True)


def _by_rate(data: DataSet) -> None:
    """Hold out a random fifth of each user's items, for each learning rate."""
    train, held_out = hold_out_share(data.train, 0.2, np.random.default_rng(100))
    part = DataSet(data.name, train, has_times=False, test_users=held_out.users, test_items=held_out.items)
    part = part.with_test_of(np.random.default_rng(0).permutation(np.unique(held_out.users))[:5000])
    for rate in RATES:
        print(f"{data.name}, rate {rate}: {_curve(part, 0.0, rate, MAX_EPOCHS_WITHOUT_TIMES)}", flush=True)


def _curve(data: DataSet, decay: float, rate: float | None, max_epochs: int) -> list[float]:
    """Return NDCG@20 of the warm start and after each epoch."""
    from recsys.model.neumf import Network  # noqa: PLC0415  # imports TensorFlow, which takes seconds
    from recsys_train.fitting.recipe import Recipe, first_hyperparameters  # noqa: PLC0415  # as above
    from recsys_train.fitting.training import TrainingRun  # noqa: PLC0415  # as above
    from tests.benchmarks.ours import network_scorer  # noqa: PLC0415  # as above

    recipe = Recipe() if rate is None else Recipe(learning_rate=rate, fine_tuning_rate=rate)
    hyperparameters = first_hyperparameters(recipe, data.train.n_users, data.train.n_items, decay=decay)
    training = TrainingRun.start(data.train, recipe, hyperparameters, seed=0)

    def ndcg() -> float:
        network = Network.from_weights(training.network.dims, training.network.weights(), decay=decay)
        return round(measure(network_scorer(network, data.train), data).ndcg_at_20, 4)

    curve = [ndcg()]
    for _ in range(max_epochs):
        training.run_epoch(deadline=float("inf"))
        curve.append(ndcg())
    return curve


if __name__ == "__main__":
    main()
