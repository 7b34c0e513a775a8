"""Limits per group and diversity: greedy lists equal a scan of the whole ranking."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from recsys.model.choosing import Constraints, GroupLimit
from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel, popular, recommend
from tests.made_models import network_of, random_network, serving_model

N_ITEMS = 2000


def random_model(seed: int) -> ServingModel:
    dims = Dims(n_users=1, n_items=N_ITEMS, gmf_dim=6, mlp_dim=4, hidden_dims=(6,))
    return serving_model(random_network(dims, seed), [[1, 2, 3]])


def scan(ranking: list[str], limits: list[tuple[NDArray[np.int32], int]], n: int) -> list[str]:
    """Read a ranking from its beginning and leave out items of full groups."""
    chosen: list[str] = []
    counts: list[dict[int, int]] = [{} for _ in limits]
    for item in ranking:
        groups = [int(group_of[int(item[1:])]) for group_of, _ in limits]
        is_full = [
            group >= 0 and count.get(group, 0) >= most
            for group, count, (_, most) in zip(groups, counts, limits, strict=True)
        ]
        if len(chosen) < n and not any(is_full):
            chosen.append(item)
            for group, count in zip(groups, counts, strict=True):
                count[group] = count.get(group, 0) + 1
    return chosen


@pytest.mark.parametrize("n", [1, 10, 150])
@pytest.mark.parametrize("n_groups", [1, 3, 40, 1500])
@pytest.mark.parametrize("eligible_share", [None, 0.3])
def test_limited_lists_equal_a_scan_of_the_ranking(n: int, n_groups: int, eligible_share: float | None) -> None:
    generator = np.random.default_rng(n_groups + n)
    model = random_model(n)
    # Most items are in few groups, and some are in none.
    first = np.minimum(generator.geometric(0.3, N_ITEMS) - 1, n_groups - 1).astype(np.int32)
    second = generator.integers(-1, n_groups, N_ITEMS).astype(np.int32)
    eligible = None if eligible_share is None else generator.random(N_ITEMS) < eligible_share
    limits = (GroupLimit(first, 2), GroupLimit(second, 3))

    found = recommend(model, "u0", n=n, constraints=Constraints(eligible, limits))

    ranking = recommend(model, "u0", n=N_ITEMS, constraints=Constraints(eligible)).items
    expected = scan([item.item_id for item in ranking], [(first, 2), (second, 3)], n)
    assert [item.item_id for item in found.items] == expected
    scores = {item.item_id: item.score for item in ranking}
    assert [(item.rank, item.score) for item in found.items] == [
        (rank, scores[item]) for rank, item in enumerate(expected, start=1)
    ]


def test_popular_items_are_limited_too() -> None:
    model = serving_model(network_of([[0.0] * 4]), [[0, 1, 2], [0, 1], [0]])
    limits = (GroupLimit(np.array([5, 5, 5, 6], dtype=np.int32), 1),)
    assert [item.item_id for item in popular(model, n=4, constraints=Constraints(limits=limits)).items] == ["i0", "i3"]


def test_diversity_zero_is_the_ranking_itself() -> None:
    model = random_model(0)
    plain = recommend(model, "u0", n=20)
    assert recommend(model, "u0", n=20, constraints=Constraints(diversity=0.0)) == plain


def test_a_diverse_list_prefers_a_different_item_to_a_copy() -> None:
    # Items 1 and 2 have the same embedding, item 3 a different one with a slightly lower score.
    network = network_of([[0, 3, 2.9, 2.8]])
    item_gmf = np.array([[0, 0], [1, 0], [1, 0.01], [0, 1]], dtype=np.float32)
    history = np.array([[3, 2.8], [0, 0], [0, 0], [0, 0]], dtype=np.float32)
    model = serving_model(replace(network, item_gmf=item_gmf, history_gmf=history), [[0]])
    plain = [item.item_id for item in recommend(model, "u0", n=2).items]
    diverse = [item.item_id for item in recommend(model, "u0", n=2, constraints=Constraints(diversity=0.5)).items]
    assert plain == ["i2", "i1"]
    assert diverse == ["i2", "i3"]


def mean_similarity(model: ServingModel, items: list[Any]) -> float:
    rows = model.network.item_gmf[[int(item.item_id[1:]) for item in items]].astype(np.float64)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return float((unit @ unit.T)[np.triu_indices(len(rows), 1)].mean())


def test_more_diversity_makes_the_items_of_a_list_less_similar() -> None:
    model = random_model(4)
    lists = [recommend(model, "u0", n=20, constraints=Constraints(diversity=each)).items for each in (0.0, 0.3, 0.9)]
    similarities = [mean_similarity(model, items) for items in lists]
    assert similarities == sorted(similarities, reverse=True)
    assert similarities[2] < 0.8 * similarities[0]
    assert lists[1][0] == lists[0][0]  # the best item stays the first


def test_a_diverse_list_keeps_its_limits_and_is_as_long_as_possible() -> None:
    model = random_model(5)
    groups = (np.arange(N_ITEMS) % 30).astype(np.int32)
    found = recommend(model, "u0", n=100, constraints=Constraints(None, (GroupLimit(groups, 2),), 0.5)).items
    chosen = [int(item.item_id[1:]) for item in found]
    assert len(set(chosen)) == 60
    assert np.bincount(groups[chosen]).max() == 2
