"""Recommending to many users: equal to one by one, in order, computed a few batches ahead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from recsys.model import batch_ranking
from recsys.model.batch_ranking import recommend_all
from recsys.model.batch_search import best_items_of_each
from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel, recommend
from tests.made_models import random_network, serving_model


@pytest.fixture(scope="module")
def many() -> ServingModel:
    """A model of 600 users, whose histories hold none to nearly all of 300 items."""
    network = random_network(Dims(n_users=1, n_items=300, gmf_dim=8, mlp_dim=4, hidden_dims=(8, 4)))
    generator = np.random.default_rng(0)
    return serving_model(
        network, [generator.permutation(300)[: generator.integers(0, 300)].tolist() for _ in range(600)]
    )


@pytest.mark.parametrize("n_threads", [1, 2, 5, None])
def test_several_batches_equal_recommending_one_by_one(
    many: ServingModel, n_threads: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_ranking, "MAX_USERS", 100)
    users = [f"u{user}" for user in np.random.default_rng(1).integers(0, 610, 620).tolist()]
    expected = [recommend(many, user, n=20) for user in users]
    assert list(recommend_all(many, users, n=20, n_threads=n_threads)) == expected


def test_only_a_few_batches_are_computed_ahead_of_the_consumer(
    many: ServingModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_ranking, "MAX_USERS", 10)
    started: list[int] = []

    def recording(*arguments: Any, **options: Any) -> Any:
        started.append(1)
        return best_items_of_each(*arguments, **options)

    monkeypatch.setattr(batch_ranking, "best_items_of_each", recording)
    results = recommend_all(many, list(many.users), n=5, n_threads=2)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert len(started) <= 3


def test_few_users_known_or_unknown_equal_recommending_one_by_one(many: ServingModel) -> None:
    users = ["u1", "unknown", "u0", "u2", "u1", ""]
    assert list(recommend_all(many, users, n=2)) == [recommend(many, user, n=2) for user in users]
    assert list(recommend_all(many, [], n=2)) == []
