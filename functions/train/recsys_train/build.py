"""From a CSV to the files of a version in a folder: read, fit, write. Whoever calls it publishes them, or not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from recsys.model import artifact
from recsys.model.neumf import Network
from recsys.registry.records import Progress
from recsys.settings import Settings
from recsys_train.data.csv_reader import read_interactions
from recsys_train.data.interactions import Interactions
from recsys_train.data.report import DataReport
from recsys_train.fitting.fit import FitResult, OnProgress, fit
from recsys_train.fitting.recipe import Recipe
from recsys_train.model.batches import final_histories
from recsys_train.model.keras_export import save_keras, user_tables

_FITTING_SHARE: Final = 2 / 3
"""Of the time that is left after reading; the rest is for evaluating, writing and uploading."""


_AMONG_SAMPLED: Final = "the held-out item among 99 that the user never interacted with; a tie counts against the model"
_AMONG_CATALOGUE: Final = "the held-out item among the whole catalogue, without the items of the user's history"


@dataclass(frozen=True, slots=True)
class Built:
    """The files of a version are written. `metrics` is what `metrics.json` holds."""

    manifest_sha256: str
    metrics: dict[str, Any]
    report: DataReport


def build_version(
    open_source: Callable[[], BinaryIO],
    folder: Path,
    version: str,
    settings: Settings,
    on_progress: OnProgress,
    *,
    time_left_s: Callable[[], float] = lambda: math.inf,
) -> Built:
    """Train on a CSV and write every file of the artifact; `recsys.model.artifact` says which.

    Parameters
    ----------
    open_source
        Opens the CSV, gzipped or not; it is closed once it was read.
    folder
        Is made once the CSV was found fit to train on.
    time_left_s
        Seconds until the program is ended from outside.

    Raises
    ------
    InvalidData
        The CSV cannot be trained on; nothing was written.
    """
    on_progress(Progress("reading"))
    with open_source() as stream:
        interactions, report = read_interactions(stream, max_unpacked_bytes=settings.max_unpacked_bytes)
    recipe = Recipe()
    fitted = fit(
        interactions,
        recipe,
        seed=settings.seed,
        budget_s=min(settings.train_budget_s, _FITTING_SHARE * time_left_s()),
        on_progress=on_progress,
        has_times=report.has_timestamps,
    )
    on_progress(Progress("publishing"))
    metrics = describe_metrics(fitted, report, recipe=recipe, seed=settings.seed)
    folder.mkdir(parents=True, exist_ok=True)
    return Built(write_version(folder, version, interactions, fitted, metrics), metrics, report)


def write_version(
    folder: Path, version: str, interactions: Interactions, fitted: FitResult, metrics: dict[str, Any]
) -> str:
    """Write every file of a version into `folder`; returns the SHA-256 of its manifest."""
    starts, items = interactions.items_by_user()
    users = user_tables(fitted.weights, final_histories(interactions, fitted.hyperparameters.decay))
    save_keras(fitted.dims, fitted.weights | users, folder / artifact.MODEL)
    artifact.write_mappings(folder, interactions.user_ids, interactions.item_ids)
    artifact.write_serving(
        folder,
        Network.from_weights(fitted.dims, fitted.weights, decay=fitted.hyperparameters.decay),
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
        seen_starts=starts,
        seen_items=items,
        popularity=(interactions.users_per_item() / interactions.n_users).astype(np.float32),
    )
    artifact.write_metrics(folder, metrics)
    return artifact.write_manifest(folder, version)


def describe_metrics(fitted: FitResult, report: DataReport, *, recipe: Recipe, seed: int) -> dict[str, Any]:
    """What `metrics.json` holds: quality beside the popularity baseline, how it was measured, data report, training."""
    lift = fitted.quality.ndcg_at_20 / fitted.popularity.ndcg_at_20 if fitted.popularity.ndcg_at_20 else None
    beats_popularity = fitted.quality.ndcg_at_20 > fitted.popularity.ndcg_at_20
    return {
        "format": artifact.FORMAT,
        "quality": fitted.quality.to_json(),
        "popularity_baseline": fitted.popularity.to_json(),
        "lift_over_popularity": round(lift, 3) if lift is not None else None,
        "lift_interval_95": [round(end, 3) for end in fitted.lift_interval] if fitted.lift_interval else None,
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
            "hr_at_10": _AMONG_SAMPLED,
            "ndcg_at_10": _AMONG_SAMPLED,
            "recall_at_20": _AMONG_CATALOGUE,
            "ndcg_at_20": _AMONG_CATALOGUE,
            "measured_model": f"trained on {fitted.measured_interactions:,} interactions that were not held out",
            "published_model": "the same recipe, trained again on all interactions",
        },
        "training": {
            "chosen": asdict(fitted.hyperparameters),
            "fit_s": fitted.fit_s,
            "seed": seed,
            "recipe": recipe.to_json(),
        },
        "data": report.to_json(),
    }
