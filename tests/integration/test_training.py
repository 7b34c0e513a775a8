"""Fit networks to small generated data: they learn, training is reproducible, and it ends."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.model import artifact
from recsys.model.recommender import ServingModel, Strategy, recommend
from recsys.registry.records import Progress
from recsys_train.build import describe_metrics, write_version
from recsys_train.data.interactions import Interactions
from recsys_train.data.reader import read_interactions
from recsys_train.data.report import DataReport
from recsys_train.fitting import fit as fit_module
from recsys_train.fitting import split
from recsys_train.fitting.fit import FitResult
from recsys_train.fitting.recipe import Recipe
from recsys_train.fitting.selection import MAX_SERVING_BYTES, gmf_dim
from tests.markers import TENSORFLOW

pytestmark = list(TENSORFLOW)

Pairs = Iterable[tuple[int, int]]
N_USERS, N_ITEMS, N_PURCHASES = 400, 80, 12


def two_tastes() -> list[tuple[int, int]]:
    """Even users buy even items, odd users odd ones, each 12 of 40, in random order.

    All items are equally popular, so popularity cannot tell the users apart.
    """
    generator = np.random.default_rng(7)
    pairs = [
        (user, int(item))
        for user in range(N_USERS)
        for item in generator.choice(np.arange(user % 2, N_ITEMS, 2), N_PURCHASES, replace=False)
    ]
    return [pairs[index] for index in generator.permutation(len(pairs))]


def read(pairs: Pairs) -> Interactions:
    content = "user_id,item_id\n" + "".join(f"u{user},i{item}\n" for user, item in pairs)
    return read_interactions(io.BytesIO(content.encode()), max_unpacked_bytes=10**8)[0]


def fit(
    interactions: Interactions,
    *,
    has_times: bool = True,
    seed: int = 0,
    budget_s: float = 600.0,
    progress: list[Progress] | None = None,
    **recipe: Any,
) -> FitResult:
    return fit_module.fit(
        interactions,
        Recipe(**recipe),
        seed=seed,
        budget_s=budget_s,
        has_times=has_times,
        on_progress=(progress if progress is not None else []).append,
    )


def publish(interactions: Interactions, fitted: FitResult, folder: Path) -> ServingModel:
    """Write the version and read it as a server does."""
    metrics = describe_metrics(fitted, DataReport(), recipe=Recipe(), seed=0)
    write_version(folder, "job.1", interactions, fitted, metrics)
    return artifact.read_folder(folder)


@pytest.fixture(scope="module")
def tastes() -> Interactions:
    return read(two_tastes())


@pytest.fixture(scope="module")
def progress() -> list[Progress]:
    """The progress that the training of `fitted` reported."""
    return []


@pytest.fixture(scope="module")
def fitted(tastes: Interactions, progress: list[Progress]) -> FitResult:
    return fit(tastes, progress=progress)


# -- quality


def test_the_model_ranks_better_than_popularity_if_tastes_differ(fitted: FitResult) -> None:
    # 29 items of the user's taste are not in the history. Ranking these first in random order gives Recall@20 of
    # 20 / 29 = 0.69; without knowing the taste it is about half of that.
    assert fitted.quality.recall_at_20 > 0.6
    assert fitted.popularity.recall_at_20 < 0.4
    assert fitted.quality.ndcg_at_20 > 1.4 * fitted.popularity.ndcg_at_20
    assert fitted.quality.hr_at_10 > fitted.popularity.hr_at_10
    assert fitted.evaluated_users == N_USERS // 2  # the others are the validation users


def test_the_best_scores_of_a_user_sum_to_the_probability_of_a_hit(fitted: FitResult) -> None:
    # The level of scores that are not calibrated depends on the weight of the negatives.
    reliability = fitted.reliability
    assert reliability is not None
    assert reliability.expected_recall == pytest.approx(reliability.recall, rel=0.25)
    assert reliability.above_99 == 0


def test_recommendations_match_the_users_taste(tastes: Interactions, fitted: FitResult, tmp_path: Path) -> None:
    model = publish(tastes, fitted, tmp_path)
    purchases = {(f"u{user}", f"i{item}") for user, item in two_tastes()}
    hits = 0
    for user in range(N_USERS):
        result = recommend(model, f"u{user}", n=10)
        assert result.strategy is Strategy.PERSONAL
        assert not {(f"u{user}", item.item_id) for item in result.items} & purchases
        hits += sum(int(item.item_id[1:]) % 2 == user % 2 for item in result.items)
    assert hits / (10 * N_USERS) > 0.9


def test_progress_reports_phases_epochs_and_losses(fitted: FitResult, progress: list[Progress]) -> None:
    phases = [each.phase for each in progress]
    n_fitting, n_refitting = phases.count("fitting") - 1, fitted.hyperparameters.epochs
    expected = ["choosing", *["fitting"] * (1 + n_fitting), "evaluating", *["refitting"] * (1 + n_refitting)]
    assert phases == expected
    epochs = [each.epoch for each in progress if each.epoch is not None]
    assert epochs == [*range(1, n_fitting + 1), *range(1, n_refitting + 1)]
    assert all(each.loss is not None and each.loss > 0 for each in progress if each.epoch)


@pytest.mark.parametrize(
    ("ndcg_by_epoch", "expected_best", "expected_epochs"),
    [
        pytest.param([0.3, 0.2, 0.1, 0.4], 0, 2, id="the-warm-start-is-best"),
        pytest.param([0.1, 0.3, 0.2, 0.2, 0.4], 1, 3, id="the-first-epoch-is-best"),
        pytest.param([0.1, 0.05, 0.3, 0.2, 0.2, 0.4], 2, 4, id="a-worse-epoch-precedes-a-better-one"),
        pytest.param([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 5, 5, id="every-epoch-is-better"),
    ],
)
def test_training_stops_after_patience_epochs_without_a_better_validation(
    tastes: Interactions,
    monkeypatch: pytest.MonkeyPatch,
    ndcg_by_epoch: list[float],
    expected_best: int,
    expected_epochs: int,
) -> None:
    original = fit_module._validate

    def validate(training: Any, *arguments: Any) -> Any:
        return original(training, *arguments)._replace(ndcg=ndcg_by_epoch[training.n_epochs])

    monkeypatch.setattr(fit_module, "_validate", validate)
    progress: list[Progress] = []
    fitted = fit(tastes, progress=progress, max_epochs=5, patience=2)
    assert fitted.hyperparameters.epochs == expected_best
    assert [each.epoch for each in progress if each.phase == "fitting"] == [None, *range(1, expected_epochs + 1)]


def test_metrics_json_contains_the_model_and_the_popularity_baseline(
    tastes: Interactions, fitted: FitResult, tmp_path: Path
) -> None:
    publish(tastes, fitted, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["quality"] == fitted.quality.to_json()
    assert metrics["popularity_baseline"] == fitted.popularity.to_json()
    assert metrics["lift_over_popularity"] == pytest.approx(
        fitted.quality.ndcg_at_20 / fitted.popularity.ndcg_at_20, abs=0.001
    )
    assert metrics["verdict"] == "The model ranks better than plain popularity."
    assert metrics["protocol"]["evaluated_users"] == N_USERS // 2


def test_popularity_is_the_share_of_users_who_interacted_with_the_item(
    tastes: Interactions, fitted: FitResult, tmp_path: Path
) -> None:
    model = publish(tastes, fitted, tmp_path)
    for item in (0, 1, 79):
        share = sum(each == item for _user, each in two_tastes()) / N_USERS
        assert model.popularity[model.items.index(f"i{item}")] == pytest.approx(share)


# -- reproducibility


def test_the_same_seed_gives_the_same_weights_bit_for_bit(tastes: Interactions, fitted: FitResult) -> None:
    again = fit(tastes)
    assert again.hyperparameters == fitted.hyperparameters
    assert again.quality == fitted.quality
    assert {name: array.tobytes() for name, array in again.weights.items()} == {
        name: array.tobytes() for name, array in fitted.weights.items()
    }


def test_another_seed_gives_other_weights() -> None:
    interactions = read([(0, 0), (0, 1), (1, 1), (1, 2)])
    first, second = (fit(interactions, seed=seed, max_epochs=1) for seed in (1, 2))
    assert first.weights["mlp_item"].tobytes() != second.weights["mlp_item"].tobytes()


def test_global_random_state_is_neither_used_nor_changed() -> None:
    interactions = read([(0, 0), (0, 1), (1, 1), (1, 2)])
    np.random.seed(1)  # noqa: NPY002
    state = str(np.random.get_state(legacy=False))  # noqa: NPY002
    first = fit(interactions, max_epochs=1)
    assert str(np.random.get_state(legacy=False)) == state  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert fit(interactions, max_epochs=1).weights["mlp_item"].tobytes() == first.weights["mlp_item"].tobytes()


# -- small data, limits and errors


@pytest.mark.parametrize("has_times", [True, False], ids=["with-times", "without-times"])
@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([(0, 0), (1, 1)], id="nothing-to-hold-out"),
        pytest.param([(0, 0), (0, 1), (1, 0), (1, 1)], id="every-user-bought-every-item"),
        pytest.param(
            [(user, 0) for user in range(6)] + [(0, item) for item in range(1, 8)],
            id="an-item-of-all-users-and-a-user-of-all-items",
        ),
        pytest.param([(row % 7, row % 5) for row in range(20)], id="twenty-rows"),
    ],
)
def test_tiny_data_trains_and_recommends(pairs: list[tuple[int, int]], has_times: bool, tmp_path: Path) -> None:
    interactions = read(pairs)
    fitted = fit(interactions, has_times=has_times, max_epochs=1)
    assert all(np.isfinite(array).all() for array in fitted.weights.values())
    model = publish(interactions, fitted, tmp_path)
    items = {item for _user, item in pairs}
    for user in {user for user, _item in pairs}:
        history = {item for each, item in pairs if each == user}
        result = recommend(model, f"u{user}", n=100)
        assert {item.item_id for item in result.items} == {f"i{item}" for item in items - history}
    assert len(recommend(model, "an unknown user", n=100).items) == len(items)


@pytest.mark.parametrize("pairs", [[(0, 0), (1, 1)], [(user, user % 3) for user in range(9)]])
def test_the_quality_is_zero_if_nothing_can_be_held_out(pairs: list[tuple[int, int]]) -> None:
    fitted = fit(read(pairs), max_epochs=1)
    assert fitted.evaluated_users == 0
    assert set(fitted.quality.to_json().values()) == {0.0}


def test_a_budget_of_zero_publishes_the_warm_start(tastes: Interactions, tmp_path: Path) -> None:
    progress: list[Progress] = []
    fitted = fit(tastes, budget_s=0.0, progress=progress)
    assert [each.phase for each in progress] == ["choosing", "fitting", "evaluating", "refitting"]
    assert fitted.hyperparameters.epochs == 0
    assert len(recommend(publish(tastes, fitted, tmp_path), "u0", n=5).items) == 5


def test_the_gmf_width_is_reduced_so_that_the_tables_fit_into_memory() -> None:
    recipe = Recipe()
    assert gmf_dim(512, recipe, 5_000, 4_000) == 512
    assert gmf_dim(512, recipe, 5_000, 30) == 30
    assert gmf_dim(512, recipe, 10_000_000, 50_000) == 16
    dim = gmf_dim(512, recipe, 200_000, 500_000)
    assert dim < 512
    assert 2 * 4 * 500_000 * (dim + recipe.hidden_dims[0]) <= MAX_SERVING_BYTES
    assert gmf_dim(512, Recipe.for_memory(8192), 184_000, 50_000) == 512
    assert 192 < gmf_dim(512, Recipe.for_memory(3008), 184_000, 50_000) < 256
    assert gmf_dim(512, Recipe.for_memory(512), 184_000, 50_000) == 16


def test_a_large_data_set_is_evaluated_on_a_subset_of_users_and_published_with_all(
    tastes: Interactions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    whole = fit(tastes, max_epochs=0)
    monkeypatch.setattr(split, "MAX_SELECTION_INTERACTIONS", len(tastes) // 3)
    part = fit(tastes, max_epochs=0)
    assert 0 < part.measured_interactions < whole.measured_interactions / 2
    assert 0 < part.evaluated_users < whole.evaluated_users
    publish(tastes, part, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["protocol"]["measured_interactions"] == part.measured_interactions
    assert f" {part.measured_interactions:,} interactions" in metrics["protocol"]["measured_model"]
    # The published model knows every item.
    assert np.abs(part.weights["gmf_map"]).sum(axis=1).min() > 0


def test_max_epochs_limits_the_training(tastes: Interactions) -> None:
    progress: list[Progress] = []
    assert fit(tastes, progress=progress, max_epochs=2, patience=50).hyperparameters.epochs <= 2
    assert [each.phase for each in progress].count("fitting") == 3  # the first before the first epoch


def test_an_exception_of_on_progress_ends_the_training(tastes: Interactions) -> None:
    def lose_the_lease(_progress: Progress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit_module.fit(tastes, Recipe(), seed=0, budget_s=600, on_progress=lose_the_lease)
