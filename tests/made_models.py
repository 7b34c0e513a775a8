"""Models made by hand or by chance, without training, for tests of what uses a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys.model import artifact
from recsys.model.neumf import Dims, Floats, Network
from recsys.model.pruned_search import Bounds
from recsys.model.recommender import ServingModel
from recsys.model.vocabulary import Vocabulary


def random_weights(dims: Dims, seed: int = 0) -> dict[str, Floats]:
    """Trained arrays by chance that let both paths matter: logits of a few units either way."""
    generator = np.random.default_rng(seed)
    shapes = dims.weight_shapes() | dims.map_shapes()
    return {name: generator.normal(0.0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def random_network(dims: Dims, seed: int = 0, *, decay: float = 0.5) -> Network:
    """A network by chance as a server holds it; see `random_weights`."""
    return Network.from_weights(dims, random_weights(dims, seed), decay=decay)


def network_of(rows: Sequence[Sequence[float]]) -> Network:
    """The network in which somebody who had item j alone has the logits `rows[j]`: its GMF path looks them up.

    Its MLP is zero and nothing is forgotten: a history of h items has the sum of their rows, divided by √h. There
    are as many items as a row is long; the rows of the last ones may be left out, and are zero.
    """
    given = np.array(rows, dtype=np.float32)
    n_items = given.shape[1]
    gmf_map = np.zeros((n_items, n_items), dtype=np.float32)
    gmf_map[: len(given)] = given
    return Network(
        history_gmf=gmf_map,
        history_hidden_1=np.zeros((n_items, 1), dtype=np.float32),
        mlp_bias_1=np.zeros(1, dtype=np.float32),
        decay=0.0,
        item_gmf=np.eye(n_items, dtype=np.float32),
        item_hidden_1=np.zeros((n_items, 1), dtype=np.float32),
        mlp_kernels=(),
        mlp_biases=(),
        output_mlp=np.zeros(1, dtype=np.float32),
        output_bias=0.0,
    )


def serving_model(network: Network, seen: Sequence[Sequence[int]], *, version: str = "job.1") -> ServingModel:
    """A model of users `u0`, `u1`, … and items `i0`, `i1`, …; `seen[user]` are the items each had, oldest first."""
    n_items = network.n_items
    flat = np.array([item for items in seen for item in items], dtype=np.int32)
    return ServingModel(
        version=version,
        users=Vocabulary.of([f"u{user}" for user in range(len(seen))]),
        items=Vocabulary.of([f"i{item}" for item in range(n_items)]),
        network=network,
        bounds=Bounds.of(network),
        seen_starts=np.cumsum([0, *map(len, seen)], dtype=np.int64),
        seen_items=flat,
        popularity=(np.bincount(flat, minlength=n_items) / len(seen)).astype(np.float32),
        size_bytes=1,
    )


def write_model(folder: Path, model: ServingModel) -> str:
    """Write `model` as an artifact whose `model.h5` is no model; returns the manifest's SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / artifact.MODEL).write_bytes(b"no server reads it")
    artifact.write_mappings(folder, model.users, model.items)
    artifact.write_serving(
        folder,
        model.network,
        user_ids=model.users,
        item_ids=model.items,
        seen_starts=model.seen_starts,
        seen_items=model.seen_items,
        popularity=model.popularity,
    )
    artifact.write_metrics(folder, {"quality": {"ndcg_at_20": 0.5}})
    return artifact.write_manifest(folder, model.version)
