"""Models for the serving benchmarks: trained on real data, or resized by sampling items like the trained ones."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArtifactDamaged
from recsys.model import artifact
from recsys.model.neumf import Floats
from recsys.model.pruned_search import Bounds
from recsys.model.recommender import ServingModel
from recsys.model.vocabulary import Vocabulary
from tests.benchmarks.protocol import BUNDLED, ROOT, train_file

FOLDER = ROOT / ".build" / "bench-serve"
SAMPLE = train_file(BUNDLED, None)
DEEP = {"gmf_dim": 64, "hidden_dims": (64, 32, 16, 8), "max_epochs": 2}
"""Arguments of `Recipe` for a model whose MLP dominates the time of a search. Two epochs suffice to train its MLP."""


def trained(name: str, source: Path = SAMPLE, **recipe: object) -> tuple[ServingModel, Path]:
    """Return a model trained on a CSV and the folder of its files. It is trained once and kept in `.build`."""
    folder = FOLDER / name
    try:
        return artifact.read_folder(folder), folder
    except ArtifactDamaged:  # there is no model yet, or one of an older format
        # Train in another process, because TensorFlow would stay in this one and count as its memory.
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            process.submit(_train, folder, source, recipe).result()
    return artifact.read_folder(folder), folder


def _train(folder: Path, source: Path, recipe: dict[str, object]) -> None:
    from recsys_train.build import describe_metrics, write_version  # noqa: PLC0415  # TensorFlow takes seconds
    from recsys_train.data.reader import read_interactions  # noqa: PLC0415  # slow to import, and not every part needs it
    from recsys_train.fitting.fit import fit  # noqa: PLC0415  # slow to import, and not every part needs it
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415  # slow to import, and not every part needs it

    print(f"Training {folder.name} on {source.name}, once: a few minutes …", flush=True)
    with source.open("rb") as stream:
        interactions, report = read_interactions(stream, max_unpacked_bytes=2**30)
    chosen = Recipe(**recipe)  # type: ignore[arg-type]  # keyword arguments from a table
    fitted = fit(
        interactions, chosen, seed=0, budget_s=300, on_progress=lambda _: None, has_times=report.has_timestamps
    )
    assert fitted.hyperparameters.epochs > 0, "the MLP was not trained: its bounds would look too good"
    folder.mkdir(parents=True, exist_ok=True)
    metrics = describe_metrics(fitted, report, recipe=chosen, seed=0)
    write_version(folder, folder.name, interactions, fitted, metrics)


def resized(model: ServingModel, n_items: int, n_users: int) -> ServingModel:
    """Return a model of another size, with the kernels of the trained one.

    A smaller catalogue consists of the first items. A larger one starts with the trained items. Each further item is
    sampled from a trained one: its GMF row is that of the trained item plus noise of half the standard deviation, and
    its MLP row is drawn from the normal distribution with the mean and covariance of the trained rows, so that the
    bounds find no more clusters than training makes. The users are repeated copies of the trained users; each item of
    a copied history is replaced by an item that was sampled from it.
    """
    if n_items < model.network.n_items:
        model = _first_items(model, n_items)
    generator = np.random.default_rng(0)
    network = model.network
    n_trained = network.n_items
    drawn = generator.integers(0, n_trained, max(0, n_items - n_trained))
    source = np.append(np.arange(min(n_items, n_trained)), drawn)
    n_new = len(drawn)

    def with_noise(table: Floats) -> Floats:
        rows = table[source]
        deviation = (0.5 * table.std(axis=0)).astype(np.float32)
        rows[n_trained:] += generator.standard_normal((n_new, table.shape[1]), dtype=np.float32) * deviation
        return rows

    mlp_item = network.item_hidden_1[source]
    variances, directions = np.linalg.eigh(np.cov(network.item_hidden_1.T))
    mixing = (directions * np.sqrt(np.maximum(variances, 0))).T.astype(np.float32)
    mlp_item[n_trained:] = generator.standard_normal((n_new, len(mixing)), dtype=np.float32) @ mixing
    mlp_item[n_trained:] += network.item_hidden_1.mean(axis=0)
    larger = replace(
        network,
        item_gmf=with_noise(network.item_gmf),
        history_gmf=with_noise(network.history_gmf),
        item_hidden_1=mlp_item,
        history_hidden_1=network.history_hidden_1[source],
    )
    starts, items = _histories(model, source, n_users, generator)
    popularity = (np.bincount(items, minlength=len(source)) / n_users).astype(np.float32)
    return ServingModel(
        version="resized.1",
        users=Vocabulary.of([f"user-{row:07d}" for row in range(n_users)]),
        items=Vocabulary.of([f"item-{row:07d}" for row in range(len(source))]),
        network=larger,
        bounds=Bounds.of(larger),
        seen_starts=starts,
        seen_items=items,
        popularity=popularity,
        size_bytes=1,
    )


def _first_items(model: ServingModel, n_items: int) -> ServingModel:
    """Return the model of the first items alone; histories lose the others."""
    tables = ("item_gmf", "history_gmf", "item_hidden_1", "history_hidden_1")
    network = replace(model.network, **{name: getattr(model.network, name)[:n_items] for name in tables})
    is_kept = model.seen_items < n_items
    kept_before = np.append(0, np.cumsum(is_kept))
    return replace(
        model,
        items=Vocabulary.of(model.items[:n_items]),
        network=network,
        bounds=Bounds.of(network),
        seen_starts=kept_before[model.seen_starts],
        seen_items=model.seen_items[is_kept],
        popularity=model.popularity[:n_items],
    )


def _histories(
    model: ServingModel, source: NDArray[np.int64], n_users: int, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return `seen_starts` and `seen_items` of repeated trained users; the first repetition is unchanged."""
    by_source = np.argsort(source, kind="stable")
    counts = np.bincount(source, minlength=len(model.items))
    first = np.cumsum(counts) - counts
    n_trained = len(model.users)
    repeats = -(-n_users // n_trained)
    lengths = np.tile(np.diff(model.seen_starts), repeats)[:n_users]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    items = np.tile(model.seen_items, repeats)[: starts[-1]]
    clone = (generator.random(len(items)) * counts[items]).astype(np.int64)
    clone[: len(model.seen_items)] = 0
    return starts, by_source[first[items] + clone].astype(np.int32)
