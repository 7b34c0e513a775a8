"""The closed-form models, compared with their formulas in float64 and at full rank."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from recsys_train.model.warm_start import (
    SPECTRAL_EXPONENTS,
    Exponents,
    ItemWeights,
    LinearModel,
    balance,
    calibrate,
    ease,
    reduce_rank,
    spectral,
)


@pytest.fixture
def matrix() -> sp.csr_matrix:
    generator = np.random.default_rng(0)
    return sp.csr_matrix((generator.random((40, 12)) < 0.3).astype(np.float32))


def test_ease_is_equation_8_of_the_paper(matrix: sp.csr_matrix) -> None:
    dense = matrix.toarray().astype(np.float64)
    inverse = np.linalg.inv(dense.T @ dense + 5.0 * np.eye(12))
    expected = np.eye(12) - inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    assert_allclose(ease(matrix, 5.0).weights, expected, atol=1e-5)


def test_ease_is_finite_if_items_always_occur_together() -> None:
    identical = sp.csr_matrix(np.ones((30, 4), dtype=np.float32))
    assert np.isfinite(ease(identical, 0.1).weights).all()


def test_full_rank_factors_give_the_same_scores(matrix: sp.csr_matrix) -> None:
    weights = ease(matrix, 5.0).weights
    model = reduce_rank(ItemWeights(weights), matrix, 12, np.random.default_rng(1))
    assert_allclose((matrix @ model.item_map) @ model.item_vectors.T, matrix @ weights, atol=1e-4)


def test_lower_rank_factors_have_the_smallest_possible_error(matrix: sp.csr_matrix) -> None:
    weights = ease(matrix, 5.0).weights
    scores = matrix @ weights
    model = reduce_rank(ItemWeights(weights), matrix, 4, np.random.default_rng(1))
    error = np.linalg.norm(scores - (matrix @ model.item_map) @ model.item_vectors.T)
    assert error == pytest.approx(np.linalg.norm(np.linalg.svd(scores, compute_uv=False)[4:]), rel=1e-3)


@pytest.mark.parametrize("exponents", [SPECTRAL_EXPONENTS, Exponents(user=0.5, item=0.4, score=0.2)])
def test_the_full_spectrum_is_the_square_root_of_the_normalised_gram_matrix(
    matrix: sp.csr_matrix, exponents: Exponents
) -> None:
    model = spectral(matrix, 12, np.random.default_rng(1), exponents)
    dense = matrix.toarray()
    counts = np.maximum(dense.sum(axis=0), 1)
    users = np.maximum(dense.sum(axis=1, keepdims=True), 1)
    normalised = dense / users**exponents.user / counts**exponents.item
    squares, vectors = np.linalg.eigh(normalised.T @ normalised)
    root = (vectors * np.maximum(squares, 0.0) ** 0.25) @ vectors.T
    expected = dense / counts**exponents.item @ root * counts**exponents.score
    assert_allclose((matrix @ model.item_map) @ model.item_vectors.T, expected, atol=1e-3)


def test_items_without_interactions_give_finite_factors() -> None:
    matrix = sp.csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32))
    for model in (
        spectral(matrix, 2, np.random.default_rng(0)),
        reduce_rank(ease(matrix, 1.0), matrix, 2, np.random.default_rng(0)),
    ):
        assert np.isfinite(model.item_map).all()
        assert np.isfinite(model.item_vectors).all()


def test_balancing_keeps_the_scores_and_equalises_the_sizes() -> None:
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
    slope, bias = calibrate(equally_weighted(positives), equally_weighted(negatives), 1.0)
    # For two normal distributions of variance 1 whose means differ by 1, the log odds are the score itself.
    assert slope == pytest.approx(1.0, abs=0.1)
    assert bias == pytest.approx(0.0, abs=0.1)


def test_the_weight_of_negatives_shifts_the_bias_by_its_logarithm() -> None:
    generator = np.random.default_rng(4)
    positives, negatives = (
        equally_weighted(generator.normal(0.5, 1, 4000)),
        equally_weighted(generator.normal(-0.5, 1, 4000)),
    )
    _, even = calibrate(positives, negatives, 1.0)
    _, heavy = calibrate(positives, negatives, 16.0)
    assert even - heavy == pytest.approx(np.log(16), abs=0.15)


def test_a_score_of_weight_two_counts_like_two_scores() -> None:
    generator = np.random.default_rng(5)
    positives, negatives = (
        equally_weighted(generator.normal(0.5, 1, 500)),
        generator.normal(-0.5, 1, 500).astype(np.float32),
    )
    twice = np.where(np.arange(500) < 100, 2.0, 1.0).astype(np.float32)
    repeated = np.append(negatives, negatives[:100])
    assert calibrate(positives, (negatives, twice), 4.0) == pytest.approx(
        calibrate(positives, equally_weighted(repeated), 4.0), rel=1e-3
    )


def equally_weighted(scores: NDArray[np.floating]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the scores with weights of 1."""
    return scores.astype(np.float32), np.ones(len(scores), dtype=np.float32)
