"""Models with chosen or random weights, for tests that need a model but no training."""

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
    """Return random weights. Their logits lie within a few units of 0, and both paths contribute to them."""
    generator = np.random.default_rng(seed)
    shapes = dims.weight_shapes() | dims.map_shapes()
    return {name: generator.normal(0.0, 0.5, shape).astype(np.float32) for name, shape in shapes.items()}


def random_network(dims: Dims, seed: int = 0, *, decay: float = 0.5) -> Network:
    """Return a serving network with `random_weights`."""
    return Network.from_weights(dims, random_weights(dims, seed), decay=decay)


def network_of(rows: Sequence[Sequence[float]]) -> Network:
    """Return a network with chosen logits: those for a history of item j alone are `rows[j]`.

    The GMF path looks them up; the MLP is zero. There is no decay, so the logits for a history of h items are the sum
    of their rows divided by √h. A row has one entry per item. Missing rows of the last items are zero.
    """
    first_rows = np.array(rows, dtype=np.float32)
    n_items = first_rows.shape[1]
    history_gmf = np.zeros((n_items, n_items), dtype=np.float32)
    history_gmf[: len(first_rows)] = first_rows
    return Network(
        history_gmf=history_gmf,
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
    """Return a model of users `u0`, `u1`, … and items `i0`, `i1`, …; `seen[user]` is a history, oldest item first."""
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
    """Write `model` as an artifact and return the SHA-256 of its manifest. Files that no server reads are fakes."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (artifact.MODEL, artifact.INTERACTIONS):
        (folder / name).write_bytes(b"no server reads it")
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
