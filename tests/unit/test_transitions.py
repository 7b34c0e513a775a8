"""Item transitions, compared with their ridge regression in float64."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from recsys.model.user_encoder import history_weights
from recsys_train.data.interactions import Interactions
from recsys_train.model import transitions
from recsys_train.model.transitions import TRANSITION_RIDGE, fit_transitions

N_ITEMS = 9
DECAY = 0.7


def drawn_histories(n_users: int = 30) -> list[list[int]]:
    generator = np.random.default_rng(0)
    return [
        generator.permutation(N_ITEMS)[:length].tolist() for length in generator.integers(1, N_ITEMS, n_users).tolist()
    ]


def interactions_of(histories: list[list[int]]) -> Interactions:
    users = np.repeat(np.arange(len(histories)), [len(history) for history in histories]).astype(np.int32)
    ids = [str(index) for index in range(max(N_ITEMS, len(histories)))]
    return Interactions(ids[: len(histories)], ids[:N_ITEMS], users, np.concatenate(histories).astype(np.int32))


def expected_weights(histories: list[list[int]], window: int) -> np.ndarray:
    earlier, following = [], []
    for history in histories:
        for position in range(1, len(history)):
            items = history[max(0, position - window) : position]
            earlier.append(np.zeros(N_ITEMS))
            earlier[-1][items] = history_weights(len(items), DECAY)
            following.append(np.eye(N_ITEMS)[history[position]])
    rows = np.array(earlier)
    gram = rows.T @ rows
    ridge = TRANSITION_RIDGE * np.diag(gram).mean() * np.eye(N_ITEMS)
    return np.linalg.solve(gram + ridge, rows.T @ np.array(following))


@pytest.mark.parametrize("window", [3, 20])
@pytest.mark.parametrize("chunk", [7, 1000])
def test_the_weights_are_those_of_the_ridge_regression(
    monkeypatch: pytest.MonkeyPatch, window: int, chunk: int
) -> None:
    monkeypatch.setattr(transitions, "WINDOW", window)
    monkeypatch.setattr(transitions, "TARGETS_PER_CHUNK", chunk)
    histories = drawn_histories()
    fitted = fit_transitions(interactions_of(histories), DECAY)
    assert_allclose(fitted.weights, expected_weights(histories, window), atol=1e-5)


def test_the_order_of_a_history_counts() -> None:
    fitted = fit_transitions(interactions_of([[0, 1, 2]] * 5), DECAY)
    forward, backward = fitted.weights[1, 2], fitted.weights[2, 1]
    assert forward > 0.1
    assert backward < 0.01


def test_a_large_data_set_uses_evenly_spaced_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transitions, "MAX_TARGETS", 2)
    fitted = fit_transitions(interactions_of([[0, 1, 2, 3, 4]]), DECAY)  # four targets: 1 and 3 remain
    followed = np.flatnonzero(np.abs(fitted.weights).sum(axis=0))
    assert followed.tolist() == [1, 3]


def test_histories_of_one_item_have_no_transitions() -> None:
    assert not fit_transitions(interactions_of([[0], [1]]), DECAY).weights.any()
