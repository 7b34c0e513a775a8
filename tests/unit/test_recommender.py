"""The rules of recommending, on models whose logits are written down."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
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
    top_n,
)
from tests.made_models import network_of, serving_model

NOTHING = np.array([], dtype=np.int64)


def stable_full_sort(values: list[float], n: int, excluded: set[int]) -> list[int]:
    """The rule, plainly: larger first, ties to the lower index, excluded ones out."""
    eligible = [index for index in range(len(values)) if index not in excluded]
    return sorted(eligible, key=lambda index: (-values[index], index))[:n]


def test_top_n_equals_a_stable_full_sort_in_a_thousand_random_cases() -> None:
    generator = np.random.default_rng(0)
    for _ in range(1000):
        n_items = int(generator.integers(1, 60))
        few_values = int(generator.integers(1, 8))  # so that ties are common, also at the cut
        values = generator.integers(0, few_values, n_items).astype(np.float32) - 2
        excluded = generator.integers(0, n_items, int(generator.integers(0, n_items + 3)))
        n = int(generator.integers(1, n_items + 5))
        expected = stable_full_sort(values.tolist(), n, set(excluded.tolist()))
        assert top_n(values, n, excluded=excluded).tolist() == expected


@given(
    values=st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=1, max_size=30),
    n=st.integers(0, 40),
    data=st.data(),
)
def test_top_n_equals_a_stable_full_sort_of_any_finite_values(values: list[float], n: int, data: st.DataObject) -> None:
    excluded = data.draw(st.sets(st.integers(0, len(values) - 1)))
    got = top_n(np.array(values, dtype=np.float32), n, excluded=np.array(sorted(excluded), dtype=np.int64))
    assert got.tolist() == stable_full_sort(values, n, excluded)


@pytest.mark.parametrize(
    ("n", "excluded", "expected"),
    [
        pytest.param(0, [], [], id="none-asked"),
        pytest.param(1, [], [2], id="one"),
        pytest.param(3, [], [2, 1, 3], id="tie-at-the-cut"),
        pytest.param(5, [], [2, 1, 3, 4, 0], id="all"),
        pytest.param(10**9, [], [2, 1, 3, 4, 0], id="more-than-there-are"),
        pytest.param(2, [2, 2, 1], [3, 4], id="excluded-twice"),
        pytest.param(5, [2, 4], [1, 3, 0], id="fewer-left-than-asked"),
        pytest.param(3, [0, 1, 2, 3, 4], [], id="all-excluded"),
    ],
)
def test_top_n_at_its_limits(n: int, excluded: list[int], expected: list[int]) -> None:
    values = np.array([-1.0, 0.5, 2.0, 0.5, 0.5], dtype=np.float32)
    assert top_n(values, n, excluded=np.array(excluded, dtype=np.int64)).tolist() == expected


def test_top_n_leaves_the_values_as_they_are() -> None:
    values = np.array([1.0, 2.0, 3.0], dtype=np.float32)
    top_n(values, 2, excluded=np.array([1]))
    assert values.tolist() == [1.0, 2.0, 3.0]


@pytest.fixture
def model() -> ServingModel:
    """u0 had i0 and then i3; u1 had i3; u2 had everything. Shares: i3 1, i0 2/3, i1 1/3, i2 1/3.

    Somebody who had one item has the logits of its row; of several, the sum of their rows divided by the root of their
    number. So u0 has 0.5, ln 3, -1, 2.
    """
    row_3 = np.array([1.0, 1.0, 1.0, 1.0])
    row_0 = np.array([0.5, math.log(3), -1.0, 2.0]) * math.sqrt(2) - row_3
    rows = [row_0.tolist(), [0.0, 2.0, 1.0, 3.0], [2.0, 0.0, 0.0, 5.0], row_3.tolist()]
    return serving_model(network_of(rows), seen=[[0, 3], [3], [0, 1, 2, 3]])


def ids(answer: Recommendations | list[RankedItem]) -> list[str]:
    items = answer.items if isinstance(answer, Recommendations) else answer
    return [item.item_id for item in items]


def test_a_known_user_gets_the_best_of_what_is_new_to_them(model: ServingModel) -> None:
    answer = recommend(model, "u0", n=10)
    assert (answer.user_id, answer.strategy, answer.model_version) == ("u0", Strategy.PERSONAL, "job.1")
    assert [(item.item_id, item.rank) for item in answer.items] == [("i1", 1), ("i2", 2)]
    assert [item.score for item in answer.items] == pytest.approx([0.75, 1 / (1 + math.e)])


def test_what_the_user_had_can_be_asked_for(model: ServingModel) -> None:
    assert ids(recommend(model, "u0", n=10, exclude_seen=False)) == ["i3", "i1", "i0", "i2"]


def test_n_cuts_the_list(model: ServingModel) -> None:
    assert ids(recommend(model, "u0", n=1)) == ["i1"]


# -- what came since


def test_what_a_user_had_since_counts_as_if_it_had_been_in_the_data(model: ServingModel) -> None:
    # u1 had i3 and then i1: (1, 1, 1, 1) + (0, 2, 1, 3) = (1, 3, 2, 4), divided by √2.
    answer = recommend(model, "u1", n=10, recent_items=["i1"])
    assert (answer.strategy, ids(answer)) == (Strategy.PERSONAL, ["i2", "i0"])
    assert [item.score for item in answer.items] == pytest.approx([sigmoid(2 / 2**0.5), sigmoid(1 / 2**0.5)])
    kept = recommend(model, "u1", n=10, recent_items=["i1"], exclude_seen=False)
    assert ids(kept) == ["i3", "i1", "i2", "i0"]


def sigmoid(logit: float) -> float:
    return 1 / (1 + math.exp(-logit))


def forgetful(model: ServingModel) -> ServingModel:
    """The item before counts half as much."""
    return replace(model, network=replace(model.network, decay=1.0))


def scores(answer: Recommendations) -> dict[str, float]:
    return {item.item_id: item.score for item in answer.items}


def test_the_last_item_counts_most(model: ServingModel) -> None:
    # (2, 0, 0, 5) + (0, 2, 1, 3) / 2 = (2, 1, 0.5, 6.5), divided by √1.5.
    answer = recommend(forgetful(model), None, n=10, recent_items=["i1", "i2"])
    expected = {"i0": sigmoid(2 / 1.5**0.5), "i3": sigmoid(6.5 / 1.5**0.5)}
    assert scores(answer) == pytest.approx(expected)


def test_an_item_that_comes_again_counts_where_it_came_last(model: ServingModel) -> None:
    model = forgetful(model)
    once = recommend(model, None, n=10, recent_items=["i2", "i1"], exclude_seen=False)
    assert recommend(model, None, n=10, recent_items=["i1", "i2", "i1"], exclude_seen=False) == once
    # u0 had i0 and then i3; i0 again moves to the end.
    again = recommend(model, "u0", n=10, recent_items=["i0"], exclude_seen=False)
    assert scores(again) == scores(recommend(model, None, n=10, recent_items=["i3", "i0"], exclude_seen=False))


@pytest.mark.parametrize("user_id", ["nobody", None])
def test_somebody_unknown_with_a_known_item_is_a_session(model: ServingModel, user_id: str | None) -> None:
    answer = recommend(model, user_id, n=10, recent_items=["never sold", "i2"])
    assert (answer.user_id, answer.strategy, ids(answer)) == (user_id, Strategy.SESSION, ["i3", "i0", "i1"])
    assert ids(recommend(model, user_id, n=10, recent_items=["i2"], exclude_seen=False)) == ["i3", "i0", "i1", "i2"]


def test_a_session_with_a_known_users_items_gets_that_users_list(model: ServingModel) -> None:
    assert recommend(model, None, n=10, recent_items=["i0", "i3"]).items == recommend(model, "u0", n=10).items


@pytest.mark.parametrize("recent_items", [[], ["never sold"]])
@pytest.mark.parametrize("user_id", ["nobody", None])
def test_without_a_known_item_popular_items_answer(
    model: ServingModel, user_id: str | None, recent_items: list[str]
) -> None:
    answer = recommend(model, user_id, n=2, recent_items=recent_items)
    assert (answer.user_id, answer.strategy, ids(answer)) == (user_id, Strategy.POPULAR, ["i3", "i0"])


# -- candidates


@pytest.mark.parametrize(
    ("user_id", "recent_items", "expected"),
    [("u1", [], ["i0", "i1"]), (None, ["i2"], ["i0", "i1"]), ("nobody", [], ["i3", "i0", "i1"])],
    ids=["personal", "session", "popular"],
)
def test_candidates_are_all_that_is_ranked(
    model: ServingModel, user_id: str | None, recent_items: list[str], expected: list[str]
) -> None:
    candidates = ["i1", "never sold", "i0", "i1", "i3"]
    answer = recommend(
        model,
        user_id,
        n=10,
        recent_items=recent_items,
        candidates=candidates,
        exclude_items=["i3"] * bool(recent_items),
    )
    assert ids(answer) == expected
    assert ids(recommend(model, user_id, n=1, recent_items=recent_items, candidates=["i1"])) == ["i1"]


@pytest.mark.parametrize("user_id", ["u0", "nobody"])
@pytest.mark.parametrize("candidates", [[], ["never sold"]])
def test_no_known_candidates_make_an_empty_list(model: ServingModel, user_id: str, candidates: list[str]) -> None:
    assert ids(recommend(model, user_id, n=10, candidates=candidates)) == []


def test_seen_and_excluded_candidates_stay_out(model: ServingModel) -> None:
    assert ids(recommend(model, "u0", n=10, candidates=["i0", "i1", "i2"], exclude_items=["i2"])) == ["i1"]


# -- other questions


def test_similar_items_are_those_of_a_session_of_that_item_alone(model: ServingModel) -> None:
    assert similar(model, "i2", n=10) == recommend(model, None, n=10, recent_items=["i2"]).items
    assert [(item.item_id, item.rank) for item in similar(model, "i2", n=2)] == [("i3", 1), ("i0", 2)]
    assert ids(similar(model, "i2", n=10, exclude_items=["i3", "never sold"])) == ["i0", "i1"]


def test_an_unknown_item_has_no_similar_ones(model: ServingModel) -> None:
    with pytest.raises(ItemNotFound, match="knows no item 'never sold'"):
        similar(model, "never sold", n=10)


def test_popular_items_are_those_of_most_users(model: ServingModel) -> None:
    answer = popular(model, n=3, exclude_items=["i0", "never sold"])
    assert (answer.user_id, answer.strategy, answer.model_version) == (None, Strategy.POPULAR, "job.1")
    assert [(item.item_id, item.rank) for item in answer.items] == [("i3", 1), ("i1", 2), ("i2", 3)]
    assert [item.score for item in answer.items] == pytest.approx([1, 1 / 3, 1 / 3])


def test_equal_scores_keep_the_order_of_the_training_data(model: ServingModel) -> None:
    assert ids(recommend(model, "u1", n=2)) == ["i0", "i1"]


def test_excluded_items_stay_out_and_unknown_ones_are_passed_over(model: ServingModel) -> None:
    assert ids(recommend(model, "u1", n=10, exclude_items=["i1", "never sold", "i1", ""])) == ["i0", "i2"]


def test_a_user_who_had_everything_gets_an_empty_list(model: ServingModel) -> None:
    answer = recommend(model, "u2", n=10)
    assert (answer.strategy, answer.items) == (Strategy.PERSONAL, [])


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_an_unknown_user_gets_popular_items(model: ServingModel, exclude_seen: bool) -> None:
    answer = recommend(model, "nobody", n=10, exclude_seen=exclude_seen)
    assert (answer.user_id, answer.strategy) == ("nobody", Strategy.POPULAR)
    assert [(item.item_id, item.rank) for item in answer.items] == [("i3", 1), ("i0", 2), ("i1", 3), ("i2", 4)]
    assert [item.score for item in answer.items] == pytest.approx([1, 2 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("user_id", ["", "U0", " u0", "u0 ", "\x00", "日本"])
def test_ids_are_compared_as_they_stand(model: ServingModel, user_id: str) -> None:
    assert recommend(model, user_id, n=1).strategy is Strategy.POPULAR


def test_an_unknown_user_gets_what_is_left_down_to_the_last_eligible_item(model: ServingModel) -> None:
    assert ids(recommend(model, "nobody", n=5, exclude_items=["i3", "i0", "i1"])) == ["i2"]
    assert ids(recommend(model, "nobody", n=5, exclude_items=["i3", "i0", "i1", "i2"])) == []


def test_an_item_nobody_had_is_still_eligible() -> None:
    model = serving_model(network_of([[0.0, 0.0, 0.0]]), seen=[[1]])
    assert ids(recommend(model, "nobody", n=3)) == ["i1", "i0", "i2"]
    assert [item.score for item in recommend(model, "nobody", n=3).items] == [1.0, 0.0, 0.0]


@given(
    logits=st.lists(st.floats(-80, 80, width=32), min_size=1, max_size=20),
    user_id=st.sampled_from(["u0", "nobody"]),
    n=st.integers(1, 25),
)
def test_ranks_count_from_one_and_scores_fall_within_zero_and_one(logits: list[float], user_id: str, n: int) -> None:
    model = serving_model(network_of([logits]), seen=[[0]])
    answer = recommend(model, user_id, n=n, exclude_seen=False)
    scores = [item.score for item in answer.items]
    assert len(answer.items) == min(n, len(logits))
    assert [item.rank for item in answer.items] == list(range(1, len(scores) + 1))
    assert len(set(ids(answer))) == len(answer.items)
    assert scores == sorted(scores, reverse=True)
    assert all(0 <= score <= 1 for score in scores)
