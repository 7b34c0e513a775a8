"""Platt scaling on held-out items, and the table that says how well it holds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.special import expit

from recsys.model.neumf import Dims, Network
from recsys_train.fitting.calibration import (
    IDENTITY,
    Platt,
    TopLogits,
    fit_platt,
    measure_reliability,
    top_logits,
)
from tests.made_interactions import made_interactions
from tests.made_models import random_weights


def drawn(slope: float, intercept: float, n_users: int = 20_000) -> TopLogits:
    """Candidates whose true logits are `slope * logit + intercept`."""
    generator = np.random.default_rng(0)
    logits = -np.sort(-generator.normal(0, 2, (n_users, 20)), axis=1)
    return TopLogits(logits, generator.random(logits.shape) < expit(slope * logits + intercept))


def test_it_finds_slope_and_intercept() -> None:
    slope, intercept = fit_platt(drawn(0.5, -4.0))
    assert slope == pytest.approx(0.5, abs=0.03)
    assert intercept == pytest.approx(-4.0, abs=0.1)


def test_calibrated_scores_of_the_first_20_sum_to_the_recall() -> None:
    top = drawn(0.5, -4.0)
    reliability = measure_reliability(top, fit_platt(top))
    assert reliability.expected_recall == pytest.approx(float(top.is_held_out.sum(axis=1).mean()), rel=0.01)
    uncalibrated = measure_reliability(top, IDENTITY)
    assert uncalibrated.expected_recall > 5 * reliability.expected_recall
    assert uncalibrated.above_99 < 1
    for row in reliability.table:
        if row.n_pairs > 3000:
            assert row.observed == pytest.approx(row.mean_score, rel=0.3)


def test_few_hits_calibrate_nothing() -> None:
    logits = np.zeros((10, 3))
    assert fit_platt(TopLogits(logits, np.zeros((10, 3), dtype=np.bool_))) == IDENTITY
    assert fit_platt(TopLogits(logits, np.ones((10, 3), dtype=np.bool_))) == IDENTITY


def test_both_parameters_fold_into_the_output_unit() -> None:
    dims = Dims(n_users=3, n_items=9, gmf_dim=4, mlp_dim=3, hidden_dims=(6, 4))
    weights = random_weights(dims)
    before = Network.from_weights(dims, weights, decay=0.5)
    after = Network.from_weights(dims, Platt(0.25, -1.5).fold(weights), decay=0.5)
    history = np.array([1, 4, 2])
    assert_allclose(
        after.logits(after.user(history)), 0.25 * before.logits(before.user(history)) - 1.5, rtol=1e-4, atol=1e-5
    )


def test_candidates_are_the_best_unseen_items() -> None:
    seen = made_interactions([(0, 0), (1, 3)], n_users=2, n_items=4)
    held_out = made_interactions([(0, 2), (1, 0)], n_users=2, n_items=4)
    scores = np.array([[9, 1, 2, 3], [1, 2, 3, 9]], dtype=np.float32)
    top = top_logits(lambda users: scores[users], seen, held_out)
    assert top.logits.tolist() == [[3, 2, 1, -np.inf], [3, 2, 1, -np.inf]]
    assert top.is_held_out.tolist() == [[False, True, False, False], [False, False, True, False]]
