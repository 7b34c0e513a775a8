"""Reasons: the parts of the history items sum up to the GMF part of the logit."""

from __future__ import annotations

import numpy as np

from recsys.model.explanations import contributions, explain
from recsys.model.neumf import Dims
from recsys.model.recommender import history_of
from tests.made_models import network_of, random_network, serving_model


def test_contributions_sum_up_to_the_gmf_part_for_1000_users() -> None:
    generator = np.random.default_rng(0)
    dims = Dims(n_users=1000, n_items=500, gmf_dim=32, mlp_dim=8, hidden_dims=(16, 8))
    histories = [generator.permutation(500)[: generator.integers(1, 60)].tolist() for _ in range(1000)]
    model = serving_model(random_network(dims), histories)
    items = np.arange(0, 500, 25)
    for row in range(1000):
        _, history = history_of(model, f"u{row}")
        gmf = model.network.item_gmf[items] @ model.network.user(history).gmf
        np.testing.assert_allclose(contributions(model.network, history, items).sum(axis=1), gmf, atol=1e-4)


def test_the_three_largest_positive_contributions_are_reasons() -> None:
    network = network_of([[0, 2], [0, 8]])
    reasons = explain(network, np.array([0, 1]), np.array([1]))[0]
    assert [reason.item_index for reason in reasons] == [1, 0]
    np.testing.assert_allclose([reason.contribution for reason in reasons], np.array([8, 2]) / np.sqrt(2))


def test_an_item_that_lowers_the_logit_is_no_reason() -> None:
    network = network_of([[1, 0, 0, 0, 1], [0, 0, 0, 0, 2], [0, 0, 0, 0, 3], [0, 0, 0, 0, 4], [0, 0, 0, 0, -5]])
    reasons = explain(network, np.array([4, 3, 0, 2, 1]), np.array([4]))[0]
    assert [reason.item_index for reason in reasons] == [3, 2, 1]


def test_a_user_without_history_has_no_reasons() -> None:
    assert explain(network_of([[1, 2]]), np.zeros(0, dtype=np.int64), np.array([0, 1])) == [[], []]
