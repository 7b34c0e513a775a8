"""Build a model version by reading a file of interactions, fitting a model, and writing the version's files."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from recsys.file_options import FileOptions
from recsys.model import artifact
from recsys.model.neumf import Network
from recsys.registry.records import Progress
from recsys.settings import Settings
from recsys_train.data.history import KeyData, write_history
from recsys_train.data.interactions import Interactions
from recsys_train.data.report import DataReport
from recsys_train.data.upload import read_upload
from recsys_train.fitting.evaluation import HeldOutTest
from recsys_train.fitting.fit import FitResult, OnProgress, fit
from recsys_train.fitting.learning_curve import LearningCurve
from recsys_train.fitting.recipe import Recipe
from recsys_train.model.batches import final_histories
from recsys_train.model.keras_export import save_keras, user_tables

WriteContent = Callable[[Path, Sequence[str], Network], None]
"""Function that writes the content part of a model to a path, given the ids of the items and the network. The content
part recommends new items; see `recsys_train.catalogue`.
"""

_FITTING_SHARE: Final = 2 / 3
"""Largest share of the remaining time that fitting may take. The rest is for writing and uploading. Not tuned."""

_BETTER: Final = "The model ranks better than plain popularity."
_NOT_BETTER: Final = "The model does not rank better than plain popularity on this data. More interactions are needed."
_WORSE: Final = (
    "The model ranks worse than plain popularity. Check that each row has the user and the item of one interaction, "
    "and send more interactions per user."
)
_LAST_HELD_OUT: Final = "each user's last interaction held out, for users with two or more; ties in time in file order"
_RANDOM_HELD_OUT: Final = (
    "an interaction of each user with two or more held out at random, since the data has no timestamps"
)
_AMONG_SAMPLED: Final = "the held-out item among 99 that the user never interacted with; a tie counts against the model"
_RELIABILITY: Final = (
    "the 20 best items of each evaluated user, by score: the mean score, and the share of these items that were held "
    "out; fitted on other held-out interactions"
)
_AMONG_CATALOGUE: Final = "the held-out item among the whole catalogue, without the items of the user's history"


@dataclass(frozen=True, slots=True)
class BuiltVersion:
    """A version whose files have been written, with the data for comparing it with the current version.

    Parameters
    ----------
    manifest_sha256
        Hexadecimal SHA-256 of the manifest.
    metrics
        The contents of `metrics.json`.
    report
        The data report.
    interactions, test
        The training data, and the data on which the quality was measured. A comparison with another version uses both.
    """

    manifest_sha256: str
    metrics: dict[str, Any]
    report: DataReport
    interactions: Interactions
    test: HeldOutTest


def build_version(  # noqa: PLR0913  # one parameter per input of a training
    open_source: Callable[[], BinaryIO],
    folder: Path,
    version: str,
    settings: Settings,
    on_progress: OnProgress,
    *,
    options: FileOptions | None = None,
    time_left_s: Callable[[], float] = lambda: math.inf,
    key_data: KeyData | None = None,
    write_content: WriteContent | None = None,
) -> BuiltVersion:
    """Train on a file, and write all files of a model version.

    `recsys.model.artifact` lists these files.

    Parameters
    ----------
    open_source
        Function that opens the CSV or Parquet file. The file is closed before fitting starts.
    folder
        Destination, created after fitting.
    version
        Name of the version, recorded in the manifest.
    settings
        Settings, which define the seed, the time budget, the memory limit and the limits for reading.
    on_progress
        Function that is called at the start of each phase and after each epoch. An exception that it raises ends the
        training.
    options
        Options for reading the file. Options that are not set are detected.
    time_left_s
        Function that returns the seconds until the process is terminated from outside. Fitting takes at most two thirds
        of this time.
    key_data
        Interactions to which the file's interactions are added, and users whose rows in the file are skipped.
    write_content
        Function that writes `content.npz` if the key has an item catalogue.

    Returns
    -------
    BuiltVersion
        The digest of the manifest, the metrics, the data report, the training data and the test data.

    Raises
    ------
    InvalidData
        The file cannot be used for training. Nothing was written.
    """
    on_progress(Progress("reading"))
    interactions, report = read_upload(
        open_source, settings, options=options, time_left_s=time_left_s, key_data=key_data
    )
    recipe, curve = Recipe.for_memory(settings.train_memory_mb), LearningCurve(on_progress)
    result = fit(
        interactions,
        recipe,
        seed=settings.seed,
        budget_s=min(settings.train_budget_s, _FITTING_SHARE * time_left_s()),
        on_progress=curve.report,
        has_times=report.has_timestamps,
    )
    on_progress(Progress("publishing"))
    if result.lift_interval is not None and result.lift_interval[1] < 1:
        report.add_warning("worse-than-popularity", _WORSE)
    metrics = describe_metrics(result, report, recipe=recipe, seed=settings.seed)
    metrics["training"]["curve"] = curve.points
    folder.mkdir(parents=True, exist_ok=True)
    manifest_sha256 = write_version(folder, version, interactions, result, metrics, write_content)
    return BuiltVersion(manifest_sha256, metrics, report, interactions, result.test)


def write_version(
    folder: Path,
    version: str,
    interactions: Interactions,
    result: FitResult,
    metrics: dict[str, Any],
    write_content: WriteContent | None = None,
) -> str:
    """Write all files of a version. The manifest is written last.

    Parameters
    ----------
    folder
        Destination; it must exist.
    version
        Name of the version, recorded in the manifest.
    interactions
        The training data. All interactions are written for later trainings. The ids, the users' histories and the
        items' popularity are written for serving.
    result
        The network that was trained on `interactions`.
    metrics
        The contents of `metrics.json`.
    write_content
        Function that writes `content.npz`, if the version has such a file.

    Returns
    -------
    str
        Hexadecimal SHA-256 of the manifest.
    """
    starts, items = interactions.items_by_user()
    users = user_tables(result.weights, final_histories(interactions, result.hyperparameters.decay))
    save_keras(result.dims, result.weights | users, folder / artifact.MODEL)
    artifact.write_mappings(folder, interactions.user_ids, interactions.item_ids)
    network = Network.from_weights(result.dims, result.weights, decay=result.hyperparameters.decay)
    artifact.write_serving(
        folder,
        network,
        user_ids=interactions.user_ids,
        item_ids=interactions.item_ids,
        seen_starts=starts,
        seen_items=items,
        popularity=(interactions.users_per_item() / interactions.n_users).astype(np.float32),
    )
    artifact.write_metrics(folder, metrics)
    write_history(folder / artifact.INTERACTIONS, interactions)
    if write_content is not None:
        write_content(folder / artifact.CONTENT, interactions.item_ids, network)
    return artifact.write_manifest(folder, version)


def describe_metrics(result: FitResult, report: DataReport, *, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Return the contents of `metrics.json`.

    The contents describe the quality of the model and of the popularity baseline, the method by which the quality was
    measured, the training, and the data.

    Parameters
    ----------
    result
        The fitted model and its quality.
    report
        The data report.
    recipe, seed
        Settings of the training, recorded so that the training can be repeated.
    """
    model, popularity = result.quality, result.popularity
    lift = model.ndcg_at_20 / popularity.ndcg_at_20 if popularity.ndcg_at_20 else None
    return {
        "format": artifact.FORMAT,
        "quality": model.to_json(),
        "popularity_baseline": popularity.to_json(),
        "lift_over_popularity": round(lift, 3) if lift is not None else None,
        "lift_interval_95": [round(end, 3) for end in result.lift_interval] if result.lift_interval else None,
        "verdict": _BETTER if model.ndcg_at_20 > popularity.ndcg_at_20 else _NOT_BETTER,
        "breakdowns": result.breakdowns.to_json(),
        "reliability": result.reliability.to_json() if result.reliability else None,
        "protocol": _describe_protocol(result, has_times=report.has_timestamps),
        "training": {
            "chosen": asdict(result.hyperparameters),
            "fit_s": result.fit_s,
            "seed": seed,
            "recipe": recipe.to_json(),
        },
        "data": report.to_json(),
    }


def _describe_protocol(result: FitResult, *, has_times: bool) -> dict[str, Any]:
    """Describe in words how the data was split, which models were compared, and what each metric counts."""
    return {
        "split": _LAST_HELD_OUT if has_times else _RANDOM_HELD_OUT,
        "evaluated_users": result.evaluated_users,
        "measured_interactions": result.measured_interactions,
        "chosen_on": "other users' held-out interactions (the same users where fewer than 20 have one)",
        "reliability": _RELIABILITY,
        "hr_at_10": _AMONG_SAMPLED,
        "ndcg_at_10": _AMONG_SAMPLED,
        "recall_at_20": _AMONG_CATALOGUE,
        "ndcg_at_20": _AMONG_CATALOGUE,
        "coverage_at_20": "share of the catalogue in the top 20 of at least one evaluated user",
        "measured_model": f"trained on {result.measured_interactions:,} interactions that were not held out",
        "published_model": "the same recipe, trained again on all interactions",
    }
