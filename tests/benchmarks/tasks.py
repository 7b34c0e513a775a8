"""The tasks that `tests.benchmarks.training` runs in processes of their own, so that each has its own peak memory.

python -m tests.benchmarks.tasks NAME ARGUMENTS, with ARGUMENTS as JSON; the last printed line is the result as JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from recsys_train.data.interactions import Interactions
from tests.benchmarks import peers
from tests.benchmarks.generated_data import GENERATED_SETS, write_generated_set
from tests.benchmarks.protocol import DataSet, Scores, leave_last_out, load, measure, without_newcomers

OURS = "recsys"
TEXTBOOK = "Keras NeuMF"
SASREC = "SASRec"
ALS = "ALS"
PEERS: dict[str, type[peers.Peer]] = {
    "popularity": peers.Popularity,
    "BPR": peers.Bpr,
    ALS: peers.Als,
    "EASE": peers.Ease,
    "EASE, recent": peers.EaseRecent,
    "EASE + ALS": peers.EaseAndAls,
    "GF-CF": peers.GfCf,
}
NEWCOMER_SHARE = 0.2
MEASURED_GENERATED_USERS = 10_000
SHORT_LENGTHS = (1, 2, 3)

Json = dict[str, Any]


def main() -> None:
    """Run the task that the command line names."""
    name, arguments = sys.argv[1:]
    result = TASKS[name](**json.loads(arguments))
    print(json.dumps(result))


def quality(method: str, data: str, folder: str | None, seed: int, settings: Json | None) -> Json:
    """Measure one method on one data set. Without `settings`, a peer selects them first."""
    loaded = load(data, _path(folder), with_scores=method in (ALS, "EASE + ALS"))
    if method == OURS:
        return _our_quality(loaded, seed, {})
    peer = _peer(method)
    started = time.perf_counter()
    selected = settings if settings is not None else peers.choose(peer, loaded)
    selected_at = time.perf_counter()
    fit = peer(loaded.train).fit(selected, seed)
    fit_s = time.perf_counter() - selected_at
    return {
        **asdict(measure(fit.scores, loaded)),
        "settings": selected,
        "choosing_s": selected_at - started if settings is None else None,
        "fit_s": fit_s,
        "pairs_per_s": fit.n_pairs / fit_s if fit.n_pairs else None,
    }


def contribution(variant: str, data: str, folder: str | None, seed: int) -> Json:
    """Measure our model with one part of the recipe disabled."""
    from tests.benchmarks.ours import VARIANTS  # noqa: PLC0415  # slow to import, and not every part needs it

    return _our_quality(load(data, _path(folder)), seed, VARIANTS[variant])


def _our_quality(data: DataSet, seed: int, changes: Json) -> Json:
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415  # slow to import, and not every part needs it
    from tests.benchmarks import ours  # noqa: PLC0415  # slow to import, and not every part needs it

    timed = ours.train(data.train, replace(Recipe(), **changes), seed=seed, has_times=data.has_times)
    reliability = timed.result.reliability
    return {
        **asdict(measure(ours.scorer(timed.result, data.train), data)),
        "settings": asdict(timed.result.hyperparameters),
        "choosing_s": None,
        "fit_s": timed.seconds,
        "pairs_per_s": None,
        "phases": timed.phases,
        "reliability": reliability.to_json() if reliability else None,
    }


def speed(data: str, folder: str | None, seed: int, epochs: int) -> Json:
    """Compare our training with the textbook's: pairs per second at the same widths, and seconds to its quality."""
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415  # slow to import, and not every part needs it
    from tests.benchmarks import ours  # noqa: PLC0415  # slow to import, and not every part needs it
    from tests.benchmarks.textbook import Textbook  # noqa: PLC0415  # slow to import, and not every part needs it

    loaded = load(data, _path(folder))
    recipe = Recipe()
    dims = ours.train(loaded.train, recipe, seed=seed, has_times=loaded.has_times).result.dims
    pairs_per_s = ours.pairs_per_second(loaded, recipe, seed=seed)
    started = time.perf_counter()
    textbook = Textbook(loaded.train).fit(
        {"widths": (dims.gmf_dim, dims.mlp_dim, dims.hidden_dims), "epochs": epochs}, seed
    )
    textbook_s = time.perf_counter() - started
    assert textbook.n_pairs is not None
    textbook_ndcg = measure(textbook.scores, loaded).ndcg_at_20
    reached_s, reached_ndcg = ours.seconds_to_reach(loaded, textbook_ndcg, seed=seed)
    return {
        "widths": [dims.gmf_dim, dims.mlp_dim, *dims.hidden_dims],
        "ours_pairs_per_s": pairs_per_s,
        "textbook_pairs_per_s": textbook.n_pairs / textbook_s,
        "textbook_s": textbook_s,
        "textbook_ndcg_at_20": textbook_ndcg,
        "reached_s": reached_s,
        "reached_ndcg_at_20": reached_ndcg,
    }


def newcomers(data: str, folder: str | None, seed: int) -> Json:
    """Remove a fifth of the users from training and compare NDCG@20.

    It is measured for these users, for the others, and for the same users after a training run that includes them.
    """
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415  # slow to import, and not every part needs it
    from tests.benchmarks import ours  # noqa: PLC0415  # slow to import, and not every part needs it

    loaded = load(data, _path(folder))
    others, removed = without_newcomers(loaded.train, NEWCOMER_SHARE, np.random.default_rng(seed))
    is_removed = np.isin(np.arange(loaded.train.n_users), removed)
    as_newcomers, as_others = loaded.with_test_of(removed), loaded.with_test_of(np.flatnonzero(~is_removed))

    def scores_after(interactions: Interactions) -> Scores:
        timed = ours.train(interactions, Recipe(), seed=seed, has_times=loaded.has_times)
        return ours.scorer(timed.result, loaded.train)

    scores = scores_after(others)
    popularity = peers.Popularity(others).fit({}, seed).scores
    return {
        "n_newcomers": len(np.unique(as_newcomers.test_users)),
        "trained": measure(scores, as_others).ndcg_at_20,
        "newcomers": measure(scores, as_newcomers).ndcg_at_20,
        "newcomers_if_trained": measure(scores_after(loaded.train), as_newcomers).ndcg_at_20,
        "newcomers_popularity": measure(popularity, as_newcomers).ndcg_at_20,
    }


def short_histories(data: str, folder: str | None, seed: int) -> Json:
    """Compare our model with popularity for users with one, two and three interactions in the training part."""
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415  # slow to import, and not every part needs it
    from tests.benchmarks import ours  # noqa: PLC0415  # slow to import, and not every part needs it

    loaded = load(data, _path(folder))
    timed = ours.train(loaded.train, Recipe(), seed=seed, has_times=loaded.has_times)
    scores = ours.scorer(timed.result, loaded.train)
    popularity = peers.Popularity(loaded.train).fit({}, seed).scores
    counts = np.bincount(loaded.train.users, minlength=loaded.train.n_users)
    rows = []
    for length in SHORT_LENGTHS:
        part = loaded.with_test_of(np.flatnonzero(counts == length))
        rows.append({
            "length": length,
            "n_users": len(np.unique(part.test_users)),
            "ndcg_at_20": measure(scores, part).ndcg_at_20,
            "popularity": measure(popularity, part).ndcg_at_20,
        })  # fmt: skip
    return {"rows": rows}


def generated_set(path: str, size: str) -> Json:
    """Write a generated data set, in a process of its own because its memory must not count for the training."""
    write_generated_set(Path(path), GENERATED_SETS[size])
    return {}


def scale(path: str, seed: int, budget_s: float) -> Json:
    """Read a generated data set, train within a budget, and measure."""
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415  # slow to import, and not every part needs it
    from tests.benchmarks import ours  # noqa: PLC0415  # slow to import, and not every part needs it

    started = time.perf_counter()
    data = leave_last_out("generated", Path(path), max_users=MEASURED_GENERATED_USERS)
    read_s = time.perf_counter() - started
    timed = ours.train(data.train, Recipe(), seed=seed, has_times=data.has_times, budget_s=budget_s)
    chosen = timed.result.hyperparameters
    return {
        "read_s": read_s,
        "train_s": timed.seconds,
        "phases": timed.phases,
        "ndcg_at_20": measure(ours.scorer(timed.result, data.train), data).ndcg_at_20,
        "popularity": measure(peers.Popularity(data.train).fit({}, seed).scores, data).ndcg_at_20,
        "popularity_weight": chosen.popularity,
        "epochs": chosen.epochs,
    }


def _peer(method: str) -> type[peers.Peer]:
    if method in PEERS:
        return PEERS[method]
    from tests.benchmarks.sasrec import SasRec  # noqa: PLC0415  # the other peers run without TensorFlow
    from tests.benchmarks.textbook import Textbook  # noqa: PLC0415  # as above

    return SasRec if method == SASREC else Textbook


def _path(folder: str | None) -> Path | None:
    return None if folder is None else Path(folder)


TASKS: dict[str, Callable[..., Json]] = {
    task.__name__: task for task in (quality, contribution, speed, newcomers, short_histories, generated_set, scale)
}

if __name__ == "__main__":
    main()
