"""Training for real, on small made data: what it learns, that it repeats, and that it comes to an end."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from recsys.model import artifact
from recsys.model.neumf import Dims, Network
from recsys.model.recommender import ServingModel, Strategy, recommend
from recsys.registry.records import Progress
from recsys_train.data.csv_reader import read_interactions
from recsys_train.data.interactions import Interactions
from tests.made_models import random_weights
from tests.markers import TENSORFLOW

if TYPE_CHECKING:
    from recsys_train.fitting.fit import FitResult

pytestmark = list(TENSORFLOW)

Pairs = Iterable[tuple[int, int]]
N_USERS, N_ITEMS, N_HAD = 400, 80, 12


def two_tastes() -> list[tuple[int, int]]:
    """Even users buy even items, odd users odd ones, each 12 of 40, in no order: popularity cannot tell them apart."""
    generator = np.random.default_rng(7)
    pairs = [
        (user, int(item))
        for user in range(N_USERS)
        for item in generator.choice(np.arange(user % 2, N_ITEMS, 2), N_HAD, replace=False)
    ]
    return [pairs[place] for place in generator.permutation(len(pairs))]


def read(pairs: Pairs) -> Interactions:
    content = "user_id,item_id\n" + "".join(f"u{user},i{item}\n" for user, item in pairs)
    return read_interactions(io.BytesIO(content.encode()), max_unpacked_bytes=10**8)[0]


def fit(
    interactions: Interactions,
    *,
    has_times: bool = True,
    seed: int = 0,
    budget_s: float = 600.0,
    told: list[Progress] | None = None,
    **recipe: Any,
) -> FitResult:
    from recsys_train.fitting import fit  # noqa: PLC0415
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415

    return fit.fit(
        interactions,
        Recipe(**recipe),
        seed=seed,
        budget_s=budget_s,
        has_times=has_times,
        on_progress=(told if told is not None else []).append,
    )


def publish(interactions: Interactions, fitted: FitResult, folder: Path) -> ServingModel:
    """Write the artifact and read it as a server does."""
    from recsys_train.build import describe_metrics, write_version  # noqa: PLC0415
    from recsys_train.data.report import DataReport  # noqa: PLC0415
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415

    metrics = describe_metrics(fitted, DataReport(), recipe=Recipe(), seed=0)
    write_version(folder, "job.1", interactions, fitted, metrics)
    return artifact.read_folder(folder)


@pytest.fixture(scope="module")
def tastes() -> Interactions:
    return read(two_tastes())


@pytest.fixture(scope="module")
def told() -> list[Progress]:
    """What the training of `fitted` reported."""
    return []


@pytest.fixture(scope="module")
def fitted(tastes: Interactions, told: list[Progress]) -> FitResult:
    return fit(tastes, told=told)


# -- what it learns


def test_it_ranks_far_better_than_popularity_where_tastes_differ(fitted: FitResult) -> None:
    # The held-out item is one of 29 of the user's taste that are left: ranking those first at random gives Recall@20
    # 20 / 29 = 0.69, not knowing the taste about half of it.
    assert fitted.quality.recall_at_20 > 0.6
    assert fitted.popularity.recall_at_20 < 0.4
    assert fitted.quality.ndcg_at_20 > 1.4 * fitted.popularity.ndcg_at_20
    assert fitted.quality.hr_at_10 > fitted.popularity.hr_at_10
    assert fitted.evaluated_users == N_USERS // 2  # the others were asked which settings to choose


def test_recommendations_follow_the_users_taste(tastes: Interactions, fitted: FitResult, tmp_path: Path) -> None:
    model = publish(tastes, fitted, tmp_path)
    had = {(f"u{user}", f"i{item}") for user, item in two_tastes()}
    hits = 0
    for user in range(N_USERS):
        answer = recommend(model, f"u{user}", n=10)
        assert answer.strategy is Strategy.PERSONAL
        assert not {(f"u{user}", item.item_id) for item in answer.items} & had
        hits += sum(int(item.item_id[1:]) % 2 == user % 2 for item in answer.items)
    assert hits / (10 * N_USERS) > 0.9


def test_progress_goes_from_choosing_to_refitting_with_numbers(fitted: FitResult, told: list[Progress]) -> None:
    phases = [progress.phase for progress in told]
    n_fitting, n_refitting = phases.count("fitting") - 1, fitted.hyperparameters.epochs
    expected = ["choosing", *["fitting"] * (1 + n_fitting), "evaluating", *["refitting"] * (1 + n_refitting)]
    assert phases == expected
    epochs = [progress.epoch for progress in told if progress.epoch is not None]
    assert epochs == [*range(1, n_fitting + 1), *range(1, n_refitting + 1)]
    assert all(progress.loss is not None and progress.loss > 0 for progress in told if progress.epoch)


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
    from recsys_train.fitting import fit as fit_module  # noqa: PLC0415

    really_validate = fit_module._validate

    def validate(training: Any, *arguments: Any) -> Any:
        return really_validate(training, *arguments)._replace(ndcg=ndcg_by_epoch[training.n_epochs])

    monkeypatch.setattr(fit_module, "_validate", validate)
    told: list[Progress] = []
    fitted = fit(tastes, told=told, max_epochs=5, patience=2)
    assert fitted.hyperparameters.epochs == expected_best
    assert [each.epoch for each in told if each.phase == "fitting"] == [None, *range(1, expected_epochs + 1)]


def test_metrics_stand_beside_those_of_popularity(tastes: Interactions, fitted: FitResult, tmp_path: Path) -> None:
    publish(tastes, fitted, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["quality"] == fitted.quality.to_json()
    assert metrics["popularity_baseline"] == fitted.popularity.to_json()
    assert metrics["lift_over_popularity"] == pytest.approx(
        fitted.quality.ndcg_at_20 / fitted.popularity.ndcg_at_20, abs=0.001
    )
    assert metrics["verdict"] == "The model ranks better than plain popularity."
    assert metrics["protocol"]["evaluated_users"] == N_USERS // 2


def test_popularity_is_the_share_of_users_who_had_the_item(
    tastes: Interactions, fitted: FitResult, tmp_path: Path
) -> None:
    model = publish(tastes, fitted, tmp_path)
    for item in (0, 1, 79):
        share = sum(each == item for _user, each in two_tastes()) / N_USERS
        assert model.popularity[model.items.index(f"i{item}")] == pytest.approx(share)


# -- that it repeats


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
    before = str(np.random.get_state(legacy=False))  # noqa: NPY002
    first = fit(interactions, max_epochs=1)
    assert str(np.random.get_state(legacy=False)) == before  # noqa: NPY002
    np.random.seed(2)  # noqa: NPY002
    assert fit(interactions, max_epochs=1).weights["mlp_item"].tobytes() == first.weights["mlp_item"].tobytes()


# -- that it comes to an end


@pytest.mark.parametrize("has_times", [True, False], ids=["with-times", "without"])
@pytest.mark.parametrize(
    "pairs",
    [
        pytest.param([(0, 0), (1, 1)], id="nothing-to-hold-out"),
        pytest.param([(0, 0), (0, 1), (1, 0), (1, 1)], id="everybody-had-everything"),
        pytest.param(
            [(user, 0) for user in range(6)] + [(0, item) for item in range(1, 8)],
            id="an-item-that-everybody-had-and-a-user-who-had-everything",
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
        had = {item for each, item in pairs if each == user}
        answer = recommend(model, f"u{user}", n=100)
        assert {item.item_id for item in answer.items} == {f"i{item}" for item in items - had}
    assert len(recommend(model, "a stranger", n=100).items) == len(items)


@pytest.mark.parametrize("pairs", [[(0, 0), (1, 1)], [(user, user % 3) for user in range(9)]])
def test_where_nothing_can_be_held_out_the_quality_is_zero(pairs: list[tuple[int, int]]) -> None:
    fitted = fit(read(pairs), max_epochs=1)
    assert fitted.evaluated_users == 0
    assert set(fitted.quality.to_json().values()) == {0.0}


def test_without_a_budget_the_warm_start_is_still_a_model(tastes: Interactions, tmp_path: Path) -> None:
    told: list[Progress] = []
    fitted = fit(tastes, budget_s=0.0, told=told)
    assert [progress.phase for progress in told] == ["choosing", "fitting", "evaluating", "refitting"]
    assert fitted.hyperparameters.epochs == 0
    assert len(recommend(publish(tastes, fitted, tmp_path), "u0", n=5).items) == 5


def test_the_width_shrinks_where_the_tables_would_not_fit_into_memory() -> None:
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415
    from recsys_train.fitting.selection import MAX_SERVING_BYTES, gmf_dim  # noqa: PLC0415

    recipe = Recipe()
    assert gmf_dim(recipe, 5_000, 4_000) == 512
    assert gmf_dim(recipe, 5_000, 30) == 30
    assert gmf_dim(recipe, 10_000_000, 50_000) == 16
    dim = gmf_dim(recipe, 200_000, 500_000)
    assert dim < 512
    assert 2 * 4 * 500_000 * (dim + recipe.hidden_dims[0]) <= MAX_SERVING_BYTES


def test_a_large_set_is_measured_with_some_of_its_users_and_published_with_all(
    tastes: Interactions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from recsys_train.fitting import split  # noqa: PLC0415

    whole = fit(tastes, max_epochs=0)
    monkeypatch.setattr(split, "MAX_SELECTION_INTERACTIONS", len(tastes) // 3)
    part = fit(tastes, max_epochs=0)
    assert 0 < part.measured_interactions < whole.measured_interactions / 2
    assert 0 < part.evaluated_users < whole.evaluated_users
    publish(tastes, part, tmp_path)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert f" {part.measured_interactions:,} interactions" in metrics["protocol"]["measured_model"]
    # What is published knows every item that somebody had.
    assert np.abs(part.weights["gmf_map"]).sum(axis=1).min() > 0


def test_a_step_moves_a_table_s_row_along_its_gradient() -> None:
    # One second moment a row: with one a number, the first step of Adam would move every number alike.
    _, after = take_steps(1, learning_rate=0.01, negative_weight=4.0)
    moved = after["gmf_item"] - trainable_weights()["gmf_item"]
    touched = np.abs(moved).max(axis=1) > 0
    assert touched.any()
    assert (np.abs(moved[touched]).std(axis=1) > 0.1 * np.abs(moved[touched]).mean(axis=1)).all()


def test_max_epochs_ends_the_training(tastes: Interactions) -> None:
    told: list[Progress] = []
    assert fit(tastes, told=told, max_epochs=2, patience=50).hyperparameters.epochs <= 2
    assert [progress.phase for progress in told].count("fitting") == 3  # one as it begins


def test_what_a_report_raises_ends_the_training(tastes: Interactions) -> None:
    from recsys_train.fitting import fit  # noqa: PLC0415
    from recsys_train.fitting.recipe import Recipe  # noqa: PLC0415

    def lose_the_lease(_progress: Progress) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        fit.fit(tastes, Recipe(), seed=0, budget_s=600, on_progress=lose_the_lease)


# -- one step of it

DIMS = Dims(n_users=3, n_items=9, gmf_dim=4, mlp_dim=3, hidden_dims=(6, 4))
HAD = [[1, 6, 3], [6, 2], [0, 1, 2, 3]]
"""What the users of the block had, oldest first."""
NEGATIVES = np.array([4, 4, 5, 0], dtype=np.int32)


def trainable_weights() -> dict[str, Any]:
    """Weights by chance."""
    return {name: array for name, array in random_weights(DIMS).items() if name not in ("gmf_user", "mlp_user")}


def made_model(decay: float) -> tuple[Any, Any]:
    """A network in training and the block of `HAD`."""
    from recsys_train.model.batches import UserBatch  # noqa: PLC0415
    from recsys_train.model.network import NeuMF  # noqa: PLC0415

    rows = np.zeros((len(HAD), 4), dtype=np.int32)
    for row, items in zip(rows, HAD, strict=True):
        row[: len(items)] = items
    lengths = np.array([len(items) for items in HAD], dtype=np.int32)
    return NeuMF(DIMS, trainable_weights(), decay=decay), UserBatch(rows, lengths)


def served_logits(weights: dict[str, Any], decay: float) -> tuple[list[Any], list[Any]]:
    """What a server says of the block: logits of positives and of `NEGATIVES` beside each."""
    network = Network.from_weights(DIMS, weights, decay=decay)
    positives, negatives = [], []
    for items in HAD:
        everything = network.logits(network.user(np.array(items)))
        for place, item in enumerate(items):
            seen = items[:place] if decay else items[:place] + items[place + 1 :]
            if seen:
                logits = network.logits(network.user(np.array(seen)))
                positives.append(logits[item])
                negatives.append((logits if decay else everything)[NEGATIVES])
    return positives, negatives


def take_steps(n_steps: int, *, learning_rate: float, negative_weight: float) -> tuple[list[float], dict[str, Any]]:
    """The loss before each step on the block, and the weights after the last."""
    from recsys_train.model.network import Objective  # noqa: PLC0415

    model, block = made_model(decay=0.5)
    objective = Objective(learning_rate, negative_weight)
    return [model.train_batch(block, NEGATIVES, objective) for _ in range(n_steps)], model.weights()


@pytest.mark.parametrize("decay", [0.0, 0.5, 1.0])
def test_a_positive_has_the_logit_that_a_server_gives_it_after_what_it_may_see(decay: float) -> None:
    model, block = made_model(decay)
    expected, expected_of_negatives = served_logits(trainable_weights(), decay)
    (positives, weights), (negatives, negative_weights) = model.logits(block, NEGATIVES)
    assert positives == pytest.approx(np.array(expected), abs=1e-5)
    assert weights == pytest.approx(np.full(len(expected), 1 / len(expected)))
    assert negative_weights @ negatives == pytest.approx(np.mean(expected_of_negatives, axis=0), abs=1e-5)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_the_loss_of_a_block_is_weighted_binary_cross_entropy(decay: float) -> None:
    from recsys_train.model.network import Objective  # noqa: PLC0415

    model, block = made_model(decay)
    loss = model.train_batch(block, NEGATIVES, Objective(0.1, 8.0))
    positives, negatives = served_logits(trainable_weights(), decay)
    up = np.logaddexp(0, -np.array(positives)).mean()
    down = np.logaddexp(0, np.array(negatives)).mean()
    assert loss == pytest.approx(up + 8 * down, rel=1e-5)


def test_steps_lower_the_loss_and_widen_the_gap_between_positives_and_negatives() -> None:
    losses, weights = take_steps(5, learning_rate=0.01, negative_weight=1)
    assert losses == sorted(losses, reverse=True)

    def gap(weights: dict[str, Any]) -> float:
        positives, negatives = served_logits(weights, 0.5)
        return float(np.mean(positives) - np.mean(negatives))

    assert gap(weights) > gap(trainable_weights())


def test_items_that_a_block_does_not_touch_stay_as_they_are() -> None:
    _losses, after = take_steps(1, learning_rate=0.01, negative_weight=1)
    before = trainable_weights()
    for table in ("gmf_item", "mlp_item"):  # the first item of a user is no positive here
        assert np.flatnonzero((after[table] != before[table]).any(axis=1)).tolist() == [0, 1, 2, 3, 4, 5, 6]
    for table in ("gmf_map", "mlp_map"):
        assert np.flatnonzero((after[table] != before[table]).any(axis=1)).tolist() == [0, 1, 2, 6]


def test_the_first_step_of_adam_moves_each_weight_by_the_learning_rate() -> None:
    # Kingma & Ba 2015, §2.1: with both moments corrected for their bias the first step is rate * g / (|g| + epsilon').
    _losses, after = take_steps(1, learning_rate=0.01, negative_weight=1)
    moved = np.abs(after["output_bias"] - trainable_weights()["output_bias"])
    assert moved.tolist() == [pytest.approx(0.01, rel=1e-3)]


# -- from one form of the weights to another


def test_a_network_starts_with_the_scores_of_the_linear_model_it_is_given() -> None:
    from recsys_train.model.network import initial_weights  # noqa: PLC0415

    generator = np.random.default_rng(0)
    items, item_map = generator.normal(size=(2, 9, 4)).astype(np.float32)
    network = Network.from_weights(DIMS, initial_weights(DIMS, item_map, items, generator), decay=0.0)
    for item in range(3):
        linear, logits = items @ item_map[item], network.logits(network.user(np.array([item])))
        # The MLP begins at nothing: a spectral score is so small that any noise would drown it.
        assert logits == pytest.approx(linear, abs=1e-5)


def test_user_tables_are_what_the_histories_make_of_the_maps() -> None:
    from recsys_train.model.keras_export import user_tables  # noqa: PLC0415

    weights = trainable_weights()
    tables = user_tables(weights, np.eye(3, 9, dtype=np.float32))
    assert np.array_equal(tables["gmf_user"], weights["gmf_map"][:3])
    assert np.array_equal(tables["mlp_user"], weights["mlp_map"][:3])
