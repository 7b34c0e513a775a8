"""Models made by hand or by chance, without training, for tests of what uses a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recsys import artifact
from recsys.neumf import Dims, Floats, Network
from recsys.ranking import ServingModel


def random_weights(dims: Dims, seed: int = 0) -> dict[str, Floats]:
    """Weights that let both paths matter: logits of a few units either way."""
    generator = np.random.default_rng(seed)
    return {name: generator.normal(0.0, 0.5, shape).astype(np.float32) for name, shape in dims.weight_shapes().items()}


def network_of(logits: Sequence[Sequence[float]]) -> Network:
    """The network whose `logits(user)` are `logits[user]`: its GMF path looks them up, its MLP is zero."""
    rows = np.array(logits, dtype=np.float32)
    n_users, n_items = rows.shape
    return Network(
        gmf_user=rows,
        gmf_item=np.eye(n_items, dtype=np.float32),
        mlp_user=np.zeros((n_users, 1), dtype=np.float32),
        mlp_item=np.zeros((n_items, 1), dtype=np.float32),
        mlp_kernels=(),
        mlp_biases=(),
        output_mlp=np.zeros(1, dtype=np.float32),
        output_bias=0.0,
    )


def serving_model(network: Network, seen: Sequence[Sequence[int]], *, version: str = "job.1") -> ServingModel:
    """A model of users `u0`, `u1`, … and items `i0`, `i1`, …; `seen[user]` are the items each had."""
    n_items = network.n_items
    flat = np.array([item for items in seen for item in items], dtype=np.int32)
    return ServingModel(
        version=version,
        users={f"u{user}": user for user in range(network.n_users)},
        items={f"i{item}": item for item in range(n_items)},
        item_ids=[f"i{item}" for item in range(n_items)],
        network=network,
        seen_starts=np.cumsum([0, *map(len, seen)], dtype=np.int64),
        seen_items=flat,
        popularity=(np.bincount(flat, minlength=n_items) / len(seen)).astype(np.float32),
        size_bytes=1,
    )


def write_model(folder: Path, model: ServingModel) -> str:
    """Write `model` as an artifact whose `model.h5` is no model; returns the manifest's SHA-256."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / artifact.MODEL).write_bytes(b"no server reads it")
    artifact.write_mappings(folder, list(model.users), model.item_ids)
    artifact.write_serving(
        folder,
        model.network,
        seen_starts=model.seen_starts,
        seen_items=model.seen_items,
        popularity=model.popularity,
    )
    artifact.write_metrics(folder, {"quality": {"ndcg_at_20": 0.5}})
    return artifact.write_manifest(folder, model.version)
