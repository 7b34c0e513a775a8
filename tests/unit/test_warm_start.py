"""The closed-form models against their formulas, in float64 and at full rank."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from recsys_train.model.calibration import calibrate
from recsys_train.model.warm_start import (
    ItemWeights,
    LinearModel,
    LinearSettings,
    balance,
    decompose,
    invert_gram,
    reduce_rank,
)

NORMALISED = LinearSettings(0.25, 0.2, ridge=2.0, diagonal=0.3, score_exponent=-0.2, history_exponent=0.1)


def ease(matrix: sp.csr_matrix, ridge: float) -> ItemWeights:
    """Plain EASE with a ridge in units of the mean diagonal."""
    settings = LinearSettings(0.0, 0.0, ridge=ridge)
    return invert_gram(matrix, settings).model(settings)


def normalised(matrix: sp.csr_matrix, settings: LinearSettings) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The normalised matrix and the factors of its columns, by their definition."""
    dense = matrix.toarray().astype(np.float64)
    rows = dense / np.maximum(dense.sum(axis=1, keepdims=True), 1) ** settings.user_exponent
    scales = np.square(rows).sum(axis=0) ** -settings.item_exponent
    return rows * scales, scales


@pytest.fixture
def matrix() -> sp.csr_matrix:
    generator = np.random.default_rng(0)
    return sp.csr_matrix((generator.random((40, 12)) < 0.3).astype(np.float32))


def test_without_exponents_it_is_ease_equation_8(matrix: sp.csr_matrix) -> None:
    dense = matrix.toarray().astype(np.float64)
    gram = dense.T @ dense
    inverse = np.linalg.inv(gram + 0.5 * np.diag(gram).mean() * np.eye(12))
    expected = np.eye(12) - inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    assert_allclose(ease(matrix, 0.5).weights, expected, atol=1e-5)


def test_a_relaxed_diagonal_solves_its_constrained_ridge_regression(matrix: sp.csr_matrix) -> None:
    # Each column minimises |N (e_j - b)|² + λ|b|² with the diagonal at most ξ: free where that holds, else at ξ.
    data, _ = normalised(matrix, NORMALISED)
    gram = data.T @ data
    ridge = NORMALISED.ridge * np.diag(gram).mean()
    free = np.linalg.solve(gram + ridge * np.eye(12), gram)
    expected = free.copy()
    for column in np.flatnonzero(np.diag(free) > NORMALISED.diagonal):
        others = np.arange(12) != column
        right = gram[others, column] * (1 - NORMALISED.diagonal)
        expected[others, column] = np.linalg.solve((gram + ridge * np.eye(12))[np.ix_(others, others)], right)
    np.fill_diagonal(expected, 0)
    plain = LinearSettings(0.25, 0.2, ridge=2.0, diagonal=0.3)
    _, scales = normalised(matrix, plain)
    weights = invert_gram(matrix, plain).model(plain).weights
    assert_allclose(weights / scales[:, None] * scales, expected, atol=1e-4)


def test_exponents_of_counts_scale_histories_and_scores(matrix: sp.csr_matrix) -> None:
    plain = LinearSettings(0.25, 0.2, ridge=2.0, diagonal=0.3)
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    inverse = invert_gram(matrix, NORMALISED)
    expected = inverse.model(plain).weights * counts[:, None] ** 0.1 * counts**-0.2
    assert_allclose(inverse.model(NORMALISED).weights, expected, rtol=1e-4, atol=1e-6)


def test_an_inverse_knows_which_settings_it_serves(matrix: sp.csr_matrix) -> None:
    inverse, spectrum = invert_gram(matrix, NORMALISED), decompose(matrix, NORMALISED, 4, np.random.default_rng(0))
    other_ridge, other_score = LinearSettings(0.25, 0.2, ridge=3.0), LinearSettings(0.25, 0.2, 2.0, score_exponent=0.1)
    assert inverse.is_for(other_score)
    assert not inverse.is_for(other_ridge)
    assert spectrum.is_for(other_ridge)
    assert not spectrum.is_for(LinearSettings(0.5, 0.2, ridge=2.0))


def test_ease_survives_items_that_always_come_together() -> None:
    twins = sp.csr_matrix(np.ones((30, 4), dtype=np.float32))
    assert np.isfinite(ease(twins, 0.003).weights).all()


def test_at_full_rank_nothing_is_lost(matrix: sp.csr_matrix) -> None:
    weights = ease(matrix, 0.5).weights
    model = reduce_rank(ItemWeights(weights), matrix, 12, np.random.default_rng(1))
    assert_allclose((matrix @ model.item_map) @ model.item_vectors.T, matrix @ weights, atol=1e-4)


def test_a_lower_rank_is_as_near_as_the_singular_values_allow(matrix: sp.csr_matrix) -> None:
    weights = ease(matrix, 0.5).weights
    scores = matrix @ weights
    model = reduce_rank(ItemWeights(weights), matrix, 4, np.random.default_rng(1))
    error = np.linalg.norm(scores - (matrix @ model.item_map) @ model.item_vectors.T)
    assert error == pytest.approx(np.linalg.norm(np.linalg.svd(scores, compute_uv=False)[4:]), rel=1e-3)


def test_the_full_spectrum_is_ridge_regression(matrix: sp.csr_matrix) -> None:
    model = decompose(matrix, NORMALISED, 12, np.random.default_rng(1)).model(NORMALISED)
    data, scales = normalised(matrix, NORMALISED)
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    gram = data.T @ data
    hat = np.linalg.solve(gram + 2.0 * np.diag(gram).mean() * np.eye(12), gram)
    expected = (matrix.toarray() * scales * counts**0.1) @ hat / scales * counts**-0.2
    assert_allclose((matrix @ model.item_map) @ model.item_vectors.T, expected, atol=1e-3)


def test_items_nobody_had_do_no_harm() -> None:
    matrix = sp.csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32))
    for model in (
        decompose(matrix, NORMALISED, 2, np.random.default_rng(0)).model(NORMALISED),
        reduce_rank(invert_gram(matrix, NORMALISED).model(NORMALISED), matrix, 2, np.random.default_rng(0)),
    ):
        assert np.isfinite(model.item_map).all()
        assert np.isfinite(model.item_vectors).all()


def test_balancing_keeps_the_scores_and_evens_the_sizes() -> None:
    generator = np.random.default_rng(2)
    vectors = (generator.normal(size=(50, 3)) * [100, 1, 0.01]).astype(np.float32)
    model = LinearModel(np.eye(3, dtype=np.float32), generator.normal(size=(20, 3)).astype(np.float32))
    balanced = balance(model, vectors)
    mapped = vectors @ balanced.item_map
    assert_allclose(mapped @ balanced.item_vectors.T, vectors @ model.item_vectors.T, rtol=1e-3, atol=1e-3)
    assert_allclose(np.square(mapped).mean(axis=0), np.square(balanced.item_vectors).mean(axis=0), rtol=1e-3)


def test_calibration_finds_the_logistic_regression() -> None:
    generator = np.random.default_rng(3)
    positives, negatives = generator.normal(0.5, 1, 4000), generator.normal(-0.5, 1, 4000)
    slope, bias = calibrate(alike(positives), alike(negatives), 1.0)
    # Two normals of one width a unit apart: the log odds are the score itself.
    assert slope == pytest.approx(1.0, abs=0.1)
    assert bias == pytest.approx(0.0, abs=0.1)


def test_the_weight_of_negatives_moves_the_bias_by_its_logarithm() -> None:
    generator = np.random.default_rng(4)
    positives, negatives = alike(generator.normal(0.5, 1, 4000)), alike(generator.normal(-0.5, 1, 4000))
    _, even = calibrate(positives, negatives, 1.0)
    _, heavy = calibrate(positives, negatives, 16.0)
    assert even - heavy == pytest.approx(np.log(16), abs=0.15)


def test_calibration_counts_scores_by_their_weights() -> None:
    generator = np.random.default_rng(5)
    positives, negatives = alike(generator.normal(0.5, 1, 500)), generator.normal(-0.5, 1, 500).astype(np.float32)
    twice = np.where(np.arange(500) < 100, 2.0, 1.0).astype(np.float32)
    repeated = np.append(negatives, negatives[:100])
    assert calibrate(positives, (negatives, twice), 4.0) == pytest.approx(
        calibrate(positives, alike(repeated), 4.0), rel=1e-3
    )


def alike(scores: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Scores that count the same."""
    return scores.astype(np.float32), np.ones(len(scores), dtype=np.float32)
