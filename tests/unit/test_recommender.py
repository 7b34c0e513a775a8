"""Rules of recommending, on models with known logits."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ItemNotFound
from recsys.model.recommender import (
    RankedItem,
    Recommendations,
    ServingModel,
    Strategy,
    popular,
    recommend,
    similar,
)
from recsys.model.top_n import top_n
from tests.made_models import network_of, serving_model

NOTHING = np.array([], dtype=np.int64)


def stable_sort(values: list[float], n: int, excluded: set[int]) -> list[int]:
    """Sort plainly: larger values first, ties to the lower index, without the excluded indices."""
    eligible = [index for index in range(len(values)) if index not in excluded]
    return sorted(eligible, key=lambda index: (-values[index], index))[:n]


def test_top_n_equals_a_stable_sort_in_a_thousand_random_cases() -> None:
    generator = np.random.default_rng(0)
    for _ in range(1000):
        n_items = int(generator.integers(1, 60))
        few_values = int(generator.integers(1, 8))  # so that ties are common, also at the cut
        values = generator.integers(0, few_values, n_items).astype(np.float32) - 2
        excluded = generator.integers(0, n_items, int(generator.integers(0, n_items + 3)))
        n = int(generator.integers(1, n_items + 5))
        expected = stable_sort(values.tolist(), n, set(excluded.tolist()))
        assert top_n(values, n, excluded=excluded).tolist() == expected


@settings(deadline=None)
@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
    n=st.integers(0, 40),
    data=st.data(),
)
def test_top_n_equals_a_stable_sort_of_any_finite_values(values: list[float], n: int, data: st.DataObject) -> None:
    excluded = data.draw(st.sets(st.integers(0, len(values) - 1)))
    result = top_n(np.array(values, dtype=np.float32), n, excluded=np.array(sorted(excluded), dtype=np.int64))
    assert result.tolist() == stable_sort(values, n, excluded)


@pytest.mark.parametrize(
    ("n", "excluded", "expected"),
    [
        pytest.param(0, [], [], id="n-zero"),
        pytest.param(1, [], [2], id="one"),
        pytest.param(3, [], [2, 1, 3], id="tie-at-the-cut"),
        pytest.param(5, [], [2, 1, 3, 4, 0], id="all"),
        pytest.param(10**9, [], [2, 1, 3, 4, 0], id="n-above-item-count"),
        pytest.param(2, [2, 2, 1], [3, 4], id="excluded-twice"),
        pytest.param(5, [2, 4], [1, 3, 0], id="fewer-eligible-than-n"),
        pytest.param(3, [0, 1, 2, 3, 4], [], id="all-excluded"),
    ],
)
def test_top_n_handles_edge_cases(n: int, excluded: list[int], expected: list[int]) -> None:
    values = np.array([-1.0, 0.5, 2.0, 0.5, 0.5], dtype=np.float32)
    assert top_n(values, n, excluded=np.array(excluded, dtype=np.int64)).tolist() == expected


def test_top_n_does_not_modify_the_values() -> None:
    values = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    top_n(values, 2, excluded=np.array([1]))
    assert values.tolist() == [1.0, 2.0, 3.0]


@pytest.fixture
def model() -> ServingModel:
    """Histories: u0 i0, i3; u1 i3; u2 all items. Popularity: i3 1, i0 2/3, i1 1/3, i2 1/3.

    The logits for a history are the sum of its items' rows divided by the square root of their number. The logits of
    u0 are therefore 0.5, ln 3, -1, 2.
    """
    row_3 = np.array([1.0, 1.0, 1.0, 1.0])
    row_0 = np.array([0.5, math.log(3), -1.0, 2.0]) * math.sqrt(2) - row_3
    rows = [row_0.tolist(), [0.0, 2.0, 1.0, 3.0], [2.0, 0.0, 0.0, 5.0], row_3.tolist()]
    return serving_model(network_of(rows), seen=[[0, 3], [3], [0, 1, 2, 3]])


def ids(result: Recommendations | list[RankedItem]) -> list[str]:
    items = result.items if isinstance(result, Recommendations) else result
    return [item.item_id for item in items]


def test_known_user_gets_the_best_items_outside_the_history(model: ServingModel) -> None:
    result = recommend(model, "u0", n=10)
    assert (result.user_id, result.strategy, result.model_version) == ("u0", Strategy.PERSONAL, "job.1")
    assert [(item.item_id, item.rank) for item in result.items] == [("i1", 1), ("i2", 2)]
    assert [item.score for item in result.items] == pytest.approx([0.75, 1 / (1 + math.e)])


def test_items_of_the_history_can_be_included(model: ServingModel) -> None:
    assert ids(recommend(model, "u0", n=10, exclude_seen=False)) == ["i3", "i1", "i0", "i2"]


def test_n_limits_the_list(model: ServingModel) -> None:
    assert ids(recommend(model, "u0", n=1)) == ["i1"]


# -- recent items


def test_recent_items_count_like_items_of_the_training_data(model: ServingModel) -> None:
    # History of u1: i3, then i1: (1, 1, 1, 1) + (0, 2, 1, 3) = (1, 3, 2, 4), divided by √2.
    result = recommend(model, "u1", n=10, recent_items=["i1"])
    assert (result.strategy, ids(result)) == (Strategy.PERSONAL, ["i2", "i0"])
    assert [item.score for item in result.items] == pytest.approx([sigmoid(2 / 2**0.5), sigmoid(1 / 2**0.5)])
    kept = recommend(model, "u1", n=10, recent_items=["i1"], exclude_seen=False)
    assert ids(kept) == ["i3", "i1", "i2", "i0"]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def with_decay(model: ServingModel) -> ServingModel:
    """Return the model with decay 1: the next to last item has half the weight of the last one."""
    return replace(model, network=replace(model.network, decay=1.0))


def scores(result: Recommendations) -> dict[str, float]:
    return {item.item_id: item.score for item in result.items}


def test_the_latest_item_has_the_largest_weight(model: ServingModel) -> None:
    # (2, 0, 0, 5) + (0, 2, 1, 3) / 2 = (2, 1, 0.5, 6.5), divided by √1.5.
    result = recommend(with_decay(model), None, n=10, recent_items=["i1", "i2"])
    expected = {"i0": sigmoid(2 / 1.5**0.5), "i3": sigmoid(6.5 / 1.5**0.5)}
    assert scores(result) == pytest.approx(expected)


def test_repeated_item_counts_at_its_last_position(model: ServingModel) -> None:
    model = with_decay(model)
    once = recommend(model, None, n=10, recent_items=["i2", "i1"], exclude_seen=False)
    assert recommend(model, None, n=10, recent_items=["i1", "i2", "i1"], exclude_seen=False) == once
    # History of u0: i0, i3. The recent item i0 moves to the end.
    again = recommend(model, "u0", n=10, recent_items=["i0"], exclude_seen=False)
    assert scores(again) == scores(recommend(model, None, n=10, recent_items=["i3", "i0"], exclude_seen=False))


@pytest.mark.parametrize("user_id", ["unknown", None])
def test_unknown_user_with_a_known_recent_item_gets_session_recommendations(
    model: ServingModel, user_id: str | None
) -> None:
    result = recommend(model, user_id, n=10, recent_items=["never sold", "i2"])
    assert (result.user_id, result.strategy, ids(result)) == (user_id, Strategy.SESSION, ["i3", "i0", "i1"])
    assert ids(recommend(model, user_id, n=10, recent_items=["i2"], exclude_seen=False)) == ["i3", "i0", "i1", "i2"]


def test_session_with_a_known_users_history_gets_that_users_list(model: ServingModel) -> None:
    assert recommend(model, None, n=10, recent_items=["i0", "i3"]).items == recommend(model, "u0", n=10).items


@pytest.mark.parametrize("recent_items", [[], ["never sold"]])
@pytest.mark.parametrize("user_id", ["unknown", None])
def test_unknown_user_without_a_known_recent_item_gets_popular_items(
    model: ServingModel, user_id: str | None, recent_items: list[str]
) -> None:
    result = recommend(model, user_id, n=2, recent_items=recent_items)
    assert (result.user_id, result.strategy, ids(result)) == (user_id, Strategy.POPULAR, ["i3", "i0"])


# -- candidates


@pytest.mark.parametrize(
    ("user_id", "recent_items", "expected"),
    [("u1", [], ["i0", "i1"]), (None, ["i2"], ["i0", "i1"]), ("unknown", [], ["i3", "i0", "i1"])],
    ids=["personal", "session", "popular"],
)
def test_only_candidates_are_ranked(
    model: ServingModel, user_id: str | None, recent_items: list[str], expected: list[str]
) -> None:
    candidates = ["i1", "never sold", "i0", "i1", "i3"]
    result = recommend(
        model,
        user_id,
        n=10,
        recent_items=recent_items,
        candidates=candidates,
        exclude_items=["i3"] * bool(recent_items),
    )
    assert ids(result) == expected
    assert ids(recommend(model, user_id, n=1, recent_items=recent_items, candidates=["i1"])) == ["i1"]


@pytest.mark.parametrize("user_id", ["u0", "unknown"])
@pytest.mark.parametrize("candidates", [[], ["never sold"]])
def test_candidates_without_a_known_item_yield_an_empty_list(
    model: ServingModel, user_id: str, candidates: list[str]
) -> None:
    assert ids(recommend(model, user_id, n=10, candidates=candidates)) == []


def test_seen_and_excluded_candidates_are_left_out(model: ServingModel) -> None:
    assert ids(recommend(model, "u0", n=10, candidates=["i0", "i1", "i2"], exclude_items=["i2"])) == ["i1"]


# -- similar and popular items


def test_similar_items_equal_a_session_of_that_single_item(model: ServingModel) -> None:
    assert similar(model, "i2", n=10) == recommend(model, None, n=10, recent_items=["i2"]).items
    assert [(item.item_id, item.rank) for item in similar(model, "i2", n=2)] == [("i3", 1), ("i0", 2)]
    assert ids(similar(model, "i2", n=10, exclude_items=["i3", "never sold"])) == ["i0", "i1"]


def test_similar_items_of_an_unknown_item_raise_item_not_found(model: ServingModel) -> None:
    with pytest.raises(ItemNotFound, match=r"Item 'never sold' is not in model version job\.1"):
        similar(model, "never sold", n=10)


def test_popular_items_are_ordered_by_their_share_of_users(model: ServingModel) -> None:
    result = popular(model, n=3, exclude_items=["i0", "never sold"])
    assert (result.user_id, result.strategy, result.model_version) == (None, Strategy.POPULAR, "job.1")
    assert [(item.item_id, item.rank) for item in result.items] == [("i3", 1), ("i1", 2), ("i2", 3)]
    assert [item.score for item in result.items] == pytest.approx([1, 1 / 3, 1 / 3])


def test_equal_scores_are_ordered_by_item_index(model: ServingModel) -> None:
    assert ids(recommend(model, "u1", n=2)) == ["i0", "i1"]


def test_excluded_items_are_left_out_and_unknown_ids_ignored(model: ServingModel) -> None:
    assert ids(recommend(model, "u1", n=10, exclude_items=["i1", "never sold", "i1", ""])) == ["i0", "i2"]


def test_user_with_every_item_in_the_history_gets_an_empty_list(model: ServingModel) -> None:
    result = recommend(model, "u2", n=10)
    assert (result.strategy, result.items) == (Strategy.PERSONAL, [])


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_unknown_user_gets_popular_items(model: ServingModel, exclude_seen: bool) -> None:
    result = recommend(model, "unknown", n=10, exclude_seen=exclude_seen)
    assert (result.user_id, result.strategy) == ("unknown", Strategy.POPULAR)
    assert [(item.item_id, item.rank) for item in result.items] == [("i3", 1), ("i0", 2), ("i1", 3), ("i2", 4)]
    assert [item.score for item in result.items] == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("user_id", ["", "U0", " u0", "u0 ", "\x00", "日本"])
def test_user_ids_are_compared_without_normalisation(model: ServingModel, user_id: str) -> None:
    assert recommend(model, user_id, n=1).strategy is Strategy.POPULAR


def test_unknown_user_gets_the_last_eligible_item(model: ServingModel) -> None:
    assert ids(recommend(model, "unknown", n=5, exclude_items=["i3", "i0", "i1"])) == ["i2"]
    assert ids(recommend(model, "unknown", n=5, exclude_items=["i3", "i0", "i1", "i2"])) == []


def test_item_without_interactions_is_eligible() -> None:
    model = serving_model(network_of([[0.0, 0.0, 0.0]]), seen=[[1]])
    assert ids(recommend(model, "unknown", n=3)) == ["i1", "i0", "i2"]
    assert [item.score for item in recommend(model, "unknown", n=3).items] == [1.0, 0.0, 0.0]


@settings(deadline=None)
@given(
    logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=20),
    user_id=st.sampled_from(["u0", "unknown"]),
    n=st.integers(1, 25),
)
def test_ranks_count_from_one_and_scores_descend_within_zero_and_one(logits: list[float], user_id: str, n: int) -> None:
    model = serving_model(network_of([logits]), seen=[[0]])
    result = recommend(model, user_id, n=n, exclude_seen=False)
    scores = [item.score for item in result.items]
    assert len(result.items) == min(n, len(logits))
    assert [item.rank for item in result.items] == list(range(1, len(scores) + 1))
    assert len(set(ids(result))) == len(result.items)
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
