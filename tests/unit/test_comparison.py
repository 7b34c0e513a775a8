"""Versions are compared with the current one: what holds a version, and what must not."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.model.recommender import ServingModel
from recsys_train.comparison import MIN_COMPARED_USERS, compare, rank_same_users, ranks_significantly_worse
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.evaluation import HeldOutTest
from tests.made_interactions import made_interactions
from tests.made_models import network_of, serving_model

N_ITEMS = 30
GOOD_METRICS: dict[str, Any] = {
    "quality": {"ndcg_at_20": 0.4},
    "lift_over_popularity": 2.0,
    "lift_interval_95": [1.6, 2.4],
}


def with_lift(low: float, high: float) -> dict[str, Any]:
    return GOOD_METRICS | {"lift_interval_95": [low, high]}


def next_item_model(seen: list[list[int]], *, hit: float = 1.0) -> ServingModel:
    """Return a model that recommends item j + 1 after item j; with a negative `hit`, it ranks that item last."""
    return serving_model(network_of((hit * np.roll(np.eye(N_ITEMS), 1, axis=1)).tolist()), seen)


def shop(n_users: int = 40) -> Interactions:
    """Users with two items each: item u, then item u + 1."""
    pairs = [(user, (user + step) % N_ITEMS) for step in (0, 1) for user in range(n_users)]
    return made_interactions(pairs, n_users=n_users, n_items=N_ITEMS)


def held_out_test(interactions: Interactions, *, hits: bool = True, beats_popularity: bool = True) -> HeldOutTest:
    """Hold out the last items; the measured network ranks them first, or last, and popularity does the opposite."""
    train, held_out = interactions.split_last()
    target_of = dict(zip(held_out.users.tolist(), held_out.items.tolist(), strict=True))

    def score_users(users: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        scores = np.zeros((len(users), interactions.n_items), dtype=np.float32)
        for row, user in enumerate(users.tolist()):
            scores[row, target_of[user]] = 1.0 if hits else -1.0
        return scores

    gains, popularity_gains = np.full((2, len(held_out)), [[beats_popularity], [not beats_popularity]], dtype=float)
    return HeldOutTest(train, held_out, score_users, gains, popularity_gains)


def reasons(
    interactions: Interactions,
    current: ServingModel,
    *,
    hits: bool = True,
    beats_popularity: bool = True,
    metrics: dict[str, Any] = GOOD_METRICS,
    current_metrics: dict[str, Any] = GOOD_METRICS,
    erased_users: set[str] | None = None,
) -> list[str]:
    test = held_out_test(interactions, hits=hits, beats_popularity=beats_popularity)
    _figures, found = compare(interactions, test, metrics, current, current_metrics, erased_users=erased_users)
    return [reason["code"] for reason in found]


def first_items(n_users: int = 40) -> list[list[int]]:
    return [[user % N_ITEMS] for user in range(n_users)]


def test_equally_good_version_is_not_held() -> None:
    assert reasons(shop(), next_item_model(first_items())) == []


def test_version_that_ranks_worse_on_the_same_users_is_held() -> None:
    assert reasons(shop(), next_item_model(first_items()), hits=False) == ["worse-than-current"]


def test_version_is_not_held_for_ranking_better() -> None:
    assert reasons(shop(), next_item_model(first_items(), hit=-1.0)) == []


def test_pairs_that_the_current_version_was_trained_on_are_not_compared() -> None:
    interactions = shop()
    seen = [[user % N_ITEMS, (user + 1) % N_ITEMS] for user in range(40)]
    compared = rank_same_users(interactions, held_out_test(interactions), next_item_model(seen))
    assert len(compared.new) == 0
    assert reasons(interactions, next_item_model(seen), hits=False) == []


def test_items_that_only_one_version_knows_do_not_compete() -> None:
    interactions = shop()
    renamed = Interactions(
        interactions.user_ids,
        [f"new{index}" if index < 5 else item_id for index, item_id in enumerate(interactions.item_ids)],
        interactions.users,
        interactions.items,
    )
    compared = rank_same_users(renamed, held_out_test(renamed), next_item_model(first_items()))
    # Of the 40 users, those with one of the five renamed items, in the history or held out, are left out.
    known = [user for user in range(40) if user % N_ITEMS >= 5 and (user + 1) % N_ITEMS >= 5]
    assert len(compared.new) == len(known)
    assert compared.current.tolist() == [1.0] * len(known)


def test_few_users_decide_nothing() -> None:
    n_users = MIN_COMPARED_USERS - 1
    assert reasons(shop(n_users), next_item_model(first_items(n_users)), hits=False) == []


def test_small_drop_is_tolerated_however_certain() -> None:
    current = np.tile([1.0, 0.5, 0.0, 0.6], 1000)
    assert not ranks_significantly_worse(0.92 * current, current)
    assert ranks_significantly_worse(0.8 * current, current)


@pytest.mark.parametrize("n_users", [2, 5, 20, 40])
@pytest.mark.parametrize("share_of_hits", [0.3, 0.7])
def test_drop_that_is_noise_is_tolerated(n_users: int, share_of_hits: float) -> None:
    generator = np.random.default_rng(0)
    equally_good = [(generator.random((2, n_users)) < share_of_hits).astype(float) for _ in range(1000)]
    assert sum(ranks_significantly_worse(new, baseline) for new, baseline in equally_good) <= 5


@pytest.mark.parametrize(("n_kept", "held"), [(20, False), (19, True)])
def test_version_that_loses_more_than_half_of_the_users_is_held(n_kept: int, held: bool) -> None:
    assert ("loses-users" in reasons(shop(n_kept), next_item_model(first_items()))) == held


def test_version_that_loses_more_than_half_of_the_items_is_held() -> None:
    interactions = made_interactions([(user, user % 14) for user in range(40)], n_users=40, n_items=14)
    assert reasons(interactions, next_item_model(first_items())) == ["loses-items"]


def test_erased_users_and_the_items_of_no_other_users_do_not_count_as_lost() -> None:
    interactions = made_interactions([(user, user % 14) for user in range(14)], n_users=14, n_items=14)
    current = next_item_model(first_items())
    erased = set(list(current.users)[14:])
    assert reasons(interactions, current) == ["loses-users", "loses-items"]
    assert reasons(interactions, current, erased_users=erased) == []
    half = set(sorted(erased)[:8])
    assert "loses-users" in reasons(interactions, current, erased_users=half)


@pytest.mark.parametrize(
    ("new", "current", "code"),
    [
        ((0.7, 1.1), (1.6, 2.4), "no-better-than-popularity"),
        ((0.7, 0.9), (1.6, 2.4), "no-better-than-popularity"),
        ((0.7, 1.7), (1.6, 2.4), None),
        ((0.9, 0.99), (1.05, 1.3), None),  # a drop of less than 10%
        ((1.1, 1.3), (1.6, 2.4), None),
        ((0.7, 1.1), (0.9, 2.4), None),
    ],
)
def test_version_that_is_no_better_than_popularity_is_held_by_the_intervals_of_the_lift(
    new: tuple[float, float], current: tuple[float, float], code: str | None
) -> None:
    found = reasons(
        shop(), next_item_model(first_items()), metrics=with_lift(*new), current_metrics=with_lift(*current)
    )
    assert found == ([code] if code else [])


@pytest.mark.parametrize(
    ("n_users", "current", "code"),
    [
        (2 * MIN_COMPARED_USERS, (1.6, 2.4), "worse-than-popularity"),
        (2 * MIN_COMPARED_USERS, (0.8, 1.2), "worse-than-popularity"),
        (2 * MIN_COMPARED_USERS, (0.6, 0.8), None),  # no better, so that nothing would ever replace the current version
        (MIN_COMPARED_USERS - 1, (1.6, 2.4), None),  # few users: noise
    ],
)
def test_version_that_ranks_worse_than_popularity_is_held_if_enough_users_show_it(
    n_users: int, current: tuple[float, float], code: str | None
) -> None:
    found = reasons(
        shop(n_users),
        next_item_model(first_items(n_users)),
        beats_popularity=False,
        metrics=with_lift(0.0, 0.0),
        current_metrics=with_lift(*current),
    )
    assert found == ([code] if code else [])


def test_unknown_lift_holds_nothing() -> None:
    for metrics in ({}, {"lift_interval_95": None}):
        assert reasons(shop(), next_item_model(first_items()), metrics=metrics, current_metrics=metrics) == []


def test_figures_count_both_versions() -> None:
    interactions = shop(35)
    test = held_out_test(interactions)
    figures, _ = compare(interactions, test, GOOD_METRICS, next_item_model(first_items()), GOOD_METRICS)
    assert figures["current"]["version"] == "job.1"
    assert (figures["current"]["users"], figures["new"]["users"], figures["new"]["users_kept"]) == (40, 35, 35)
    assert (figures["new"]["compared_users"], figures["new"]["compared_ndcg_at_20"]) == (35, 1.0)
