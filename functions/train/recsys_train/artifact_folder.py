"""A fitted network as the files of the artifact, in a folder."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from recsys import artifact
from recsys.neumf import Network
from recsys_train.fitting import Fitted, Recipe
from recsys_train.interactions import Interactions
from recsys_train.network import save_keras
from recsys_train.report import DataReport


def write_artifact(
    folder: Path,
    version: str,
    interactions: Interactions,
    report: DataReport,
    fitted: Fitted,
    *,
    recipe: Recipe,
    seed: int,
) -> tuple[str, dict[str, Any]]:
    """Write every file of a version; `recsys.artifact` says which.

    Returns
    -------
    The manifest's SHA-256, and the metrics as they stand in `metrics.json`.
    """
    metrics = describe_metrics(fitted, report, recipe=recipe, seed=seed)
    starts, items = interactions.items_by_user()
    save_keras(fitted.dims, fitted.weights, folder / artifact.MODEL)
    artifact.write_mappings(folder, interactions.user_ids, interactions.item_ids)
    artifact.write_serving(
        folder,
        Network.from_weights(fitted.dims, fitted.weights),
        seen_starts=starts,
        seen_items=items,
        popularity=(interactions.users_per_item() / interactions.n_users).astype(np.float32),
    )
    artifact.write_metrics(folder, metrics)
    return artifact.write_manifest(folder, version), metrics


def describe_metrics(fitted: Fitted, report: DataReport, *, recipe: Recipe, seed: int) -> dict[str, Any]:
    """What `metrics.json` holds: quality beside the popularity baseline, how it was measured, data report, training."""
    lift = fitted.quality.ndcg_at_20 / fitted.popularity.ndcg_at_20 if fitted.popularity.ndcg_at_20 else None
    beats_popularity = fitted.quality.ndcg_at_20 > fitted.popularity.ndcg_at_20
    return {
        "format": artifact.FORMAT,
        "quality": fitted.quality.to_json(),
        "popularity_baseline": fitted.popularity.to_json(),
        "lift_over_popularity": round(lift, 3) if lift is not None else None,
        "verdict": (
            "The model ranks better than plain popularity."
            if beats_popularity
            else "The model does not rank better than plain popularity on this data: more interactions are needed."
        ),
        "protocol": {
            "split": (
                "each user's last interaction held out, for users with two or more; ties in time in file order"
                if report.has_timestamps
                else "an interaction of each user with two or more held out at random, since the data has no timestamps"
            ),
            "evaluated_users": fitted.evaluated_users,
            "chosen_on": "other users' last interactions (the same users where fewer than 20 have one)",
            "hr_at_10, ndcg_at_10": "the held-out item among 99 the user never touched; a tie counts against the model",
            "recall_at_20, ndcg_at_20": "the held-out item among the whole catalogue without what the user had",
            "published_model": "the same recipe, trained again on all interactions",
        },
        "training": {
            "chosen": asdict(fitted.choice),
            "fit_s": fitted.fit_s,
            "seed": seed,
            "recipe": recipe.to_json(),
        },
        "data": report.to_json(),
    }
