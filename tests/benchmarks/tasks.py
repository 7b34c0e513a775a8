"""What `tests.benchmarks.training` runs in a process of its own, so that seconds and peak memory are one method's.

python -m tests.benchmarks.tasks NAME ARGUMENTS, the latter as JSON; the last line printed is the result as JSON.
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
from tests.benchmarks.made_data import write_made_set
from tests.benchmarks.protocol import DataSet, Scores, leave_last_out, load, measure, without_newcomers

OURS = "recsys"
TEXTBOOK = "Keras NeuMF"
PEERS: dict[str, type[peers.Peer]] = {
    "popularity": peers.Popularity,
    "BPR": peers.Bpr,
    "ALS": peers.Als,
    "EASE": peers.Ease,
    "EASE, recent": peers.EaseRecent,
    "GF-CF": peers.GfCf,
}
NEWCOMER_SHARE = 0.2
MEASURED_MADE_USERS = 10_000

Json = dict[str, Any]


def main() -> None:
    """Run the task that is named on the command line."""
    name, arguments = sys.argv[1:]
    result = TASKS[name](**json.loads(arguments))
    print(json.dumps(result))


def quality(method: str, data: str, folder: str | None, seed: int, settings: Json | None) -> Json:
    """One method on one set; a peer chooses its settings first where none are given."""
    loaded = load(data, _path(folder))
    if method == OURS:
        return _quality_of_ours(loaded, seed, {})
    peer = _peer(method)
    started = time.perf_counter()
    chosen = settings if settings is not None else peers.choose(peer, loaded)
    chosen_at = time.perf_counter()
    fit = peer(loaded.train).fit(chosen, seed)
    fit_s = time.perf_counter() - chosen_at
    return {
        **asdict(measure(fit.scores, loaded)),
        "settings": chosen,
        "choosing_s": chosen_at - started if settings is None else None,
        "fit_s": fit_s,
        "pairs_per_s": fit.n_pairs / fit_s if fit.n_pairs else None,
    }


def contribution(variant: str, data: str, folder: str | None, seed: int) -> Json:
    """Ours with one part of the recipe switched off."""
    from tests.benchmarks.ours import VARIANTS  # noqa: PLC0415

    return _quality_of_ours(load(data, _path(folder)), seed, VARIANTS[variant])


def _quality_of_ours(data: DataSet, seed: int, changes: Json) -> Json:
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415
    from tests.benchmarks import ours  # noqa: PLC0415

    trained = ours.train(data.train, replace(Recipe(), **changes), seed=seed, has_times=data.has_times)
    return {
        **asdict(measure(ours.scorer(trained.fitted, data.train), data)),
        "settings": asdict(trained.fitted.choice),
        "choosing_s": None,
        "fit_s": trained.seconds,
        "pairs_per_s": None,
        "phases": trained.phases,
    }


def speed(data: str, folder: str | None, seed: int, epochs: int) -> Json:
    """Pairs per second of ours and the textbook at the same widths, and the time to the textbook's quality."""
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415
    from tests.benchmarks import ours  # noqa: PLC0415
    from tests.benchmarks.textbook import Textbook  # noqa: PLC0415

    loaded = load(data, _path(folder))
    recipe = Recipe()
    dims = ours.train(loaded.train, recipe, seed=seed, has_times=loaded.has_times).fitted.dims
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
    """NDCG@20 of a fifth of the users, left out of training, beside the others' and their own where they were in it."""
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415
    from tests.benchmarks import ours  # noqa: PLC0415

    loaded = load(data, _path(folder))
    others, left_out = without_newcomers(loaded.train, NEWCOMER_SHARE, np.random.default_rng(seed))
    is_left_out = np.isin(np.arange(loaded.train.n_users), left_out)
    as_newcomers, as_others = loaded.with_test_of(left_out), loaded.with_test_of(np.flatnonzero(~is_left_out))

    def scores_after(interactions: Interactions) -> Scores:
        trained = ours.train(interactions, Recipe(), seed=seed, has_times=loaded.has_times)
        return ours.scorer(trained.fitted, loaded.train)

    scores = scores_after(others)
    popularity = peers.Popularity(others).fit({}, seed).scores
    return {
        "n_newcomers": len(np.unique(as_newcomers.test_users)),
        "trained": measure(scores, as_others).ndcg_at_20,
        "newcomers": measure(scores, as_newcomers).ndcg_at_20,
        "newcomers_had_they_been_trained": measure(scores_after(loaded.train), as_newcomers).ndcg_at_20,
        "newcomers_popularity": measure(popularity, as_newcomers).ndcg_at_20,
    }


def made_set(path: str, n_pairs: int) -> Json:
    """Write it; in a process of its own, since it takes memory that training must not be blamed for."""
    write_made_set(Path(path), n_pairs)
    return {}


def scale(path: str, seed: int, budget_s: float) -> Json:
    """Read a made set, train within a budget, measure."""
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415
    from tests.benchmarks import ours  # noqa: PLC0415

    started = time.perf_counter()
    data = leave_last_out("made", Path(path))
    read_s = time.perf_counter() - started
    trained = ours.train(data.train, Recipe(), seed=seed, has_times=data.has_times, budget_s=budget_s)
    some = np.random.default_rng(0).permutation(np.unique(data.test_users))[:MEASURED_MADE_USERS]
    measured = data.with_test_of(some)
    return {
        "read_s": read_s,
        "train_s": trained.seconds,
        "phases": trained.phases,
        "ndcg_at_20": measure(ours.scorer(trained.fitted, data.train), measured).ndcg_at_20,
        "popularity": measure(peers.Popularity(data.train).fit({}, seed).scores, measured).ndcg_at_20,
    }


def _peer(method: str) -> type[peers.Peer]:
    if method != TEXTBOOK:
        return PEERS[method]
    from tests.benchmarks.textbook import Textbook  # noqa: PLC0415  # TensorFlow counts for those who use it alone

    return Textbook


def _path(folder: str | None) -> Path | None:
    return None if folder is None else Path(folder)


TASKS: dict[str, Callable[..., Json]] = {
    task.__name__: task for task in (quality, contribution, speed, newcomers, made_set, scale)
}

if __name__ == "__main__":
    main()
