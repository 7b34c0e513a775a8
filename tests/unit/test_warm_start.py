"""The closed-form models, compared with their formulas in float64 and at full rank."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from numpy.testing import assert_allclose
from numpy.typing import NDArray

from recsys_train.model import autoencoder, warm_start
from recsys_train.model.autoencoder import LinearSettings, UserSpaceWeights, invert_gram
from recsys_train.model.calibration import calibrate
from recsys_train.model.spectral import SPECTRAL_EXPONENTS, Exponents, spectral
from recsys_train.model.warm_start import ItemWeights, LinearModel, WeightedSum, balance, reduce_rank, row_importance

NORMALISED = LinearSettings(0.25, 0.2, ridge=2.0, diagonal=0.3, score_exponent=-0.2)


def ease(matrix: sp.csr_matrix, ridge: float) -> ItemWeights:
    """Plain EASE with a ridge in units of the mean diagonal."""
    settings = LinearSettings(0.0, 0.0, ridge=ridge)
    return invert_gram(matrix, settings).model(settings)


def dense(weights: ItemWeights) -> NDArray[np.float32]:
    """The weights as a matrix: the scores of histories of one item."""
    return weights.scores(sp.identity(weights.n_items, dtype=np.float32, format="csr"))


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


@pytest.fixture(params=["items", "users"])
def gram_of(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Invert the Gram matrix of the items, then that of the users."""
    monkeypatch.setattr(autoencoder, "MAX_EXACT_SIZE", 100 if request.param == "items" else 11)


@pytest.mark.usefixtures("gram_of")
def test_without_exponents_it_is_equation_8_of_ease(matrix: sp.csr_matrix) -> None:
    values = matrix.toarray().astype(np.float64)
    gram = values.T @ values
    inverse = np.linalg.inv(gram + 0.5 * np.diag(gram).mean() * np.eye(12))
    expected = np.eye(12) - inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    assert_allclose(dense(ease(matrix, 0.5)), expected, atol=1e-5)


@pytest.mark.usefixtures("gram_of")
def test_a_relaxed_diagonal_solves_its_constrained_ridge_regression(matrix: sp.csr_matrix) -> None:
    # Each column minimises |N (e_j - b)|² + λ|b|² with a diagonal of at most ξ: free where that holds, otherwise ξ.
    data, scales = normalised(matrix, NORMALISED)
    gram = data.T @ data
    ridge = NORMALISED.ridge * np.diag(gram).mean()
    expected = np.linalg.solve(gram + ridge * np.eye(12), gram)
    limited = np.flatnonzero(np.diag(expected) > NORMALISED.diagonal)
    assert 0 < len(limited) < 12
    for column in limited:
        others = np.arange(12) != column
        right = gram[others, column] * (1 - NORMALISED.diagonal)
        expected[others, column] = np.linalg.solve((gram + ridge * np.eye(12))[np.ix_(others, others)], right)
    np.fill_diagonal(expected, 0)
    plain = replace(NORMALISED, score_exponent=0.0)
    weights = dense(invert_gram(matrix, plain).model(plain))
    assert_allclose(weights / scales[:, None] * scales, expected, atol=1e-4)


@pytest.mark.usefixtures("gram_of")
def test_the_score_exponent_scales_scores_by_counts(matrix: sp.csr_matrix) -> None:
    counts = np.asarray(matrix.sum(axis=0)).ravel()
    inverse = invert_gram(matrix, NORMALISED)
    expected = dense(inverse.model(replace(NORMALISED, score_exponent=0.0))) * counts**-0.2
    assert_allclose(dense(inverse.model(NORMALISED)), expected, rtol=1e-4, atol=1e-6)


def test_weights_in_user_space_are_those_in_item_space(matrix: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = dense(invert_gram(matrix, NORMALISED).model(NORMALISED))
    monkeypatch.setattr(autoencoder, "MAX_EXACT_SIZE", 11)
    model = invert_gram(matrix, NORMALISED).model(NORMALISED)
    assert isinstance(model, UserSpaceWeights)
    vectors = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
    assert_allclose(dense(model), expected, atol=1e-5)
    assert_allclose(model.times(vectors), expected @ vectors, atol=1e-5)
    assert_allclose(model.transposed_times(vectors), expected.T @ vectors, atol=1e-5)
    assert_allclose(model.scores(matrix), matrix @ expected, atol=1e-5)


def test_an_inverse_is_reused_unless_the_gram_matrix_or_the_ridge_differ(matrix: sp.csr_matrix) -> None:
    inverse = invert_gram(matrix, NORMALISED)
    assert inverse.is_for(replace(NORMALISED, diagonal=0.5, score_exponent=0.1))
    assert not inverse.is_for(replace(NORMALISED, ridge=3.0))
    assert not inverse.is_for(replace(NORMALISED, item_exponent=0.1))


def test_ease_is_finite_if_items_always_occur_together() -> None:
    identical = sp.csr_matrix(np.ones((30, 4), dtype=np.float32))
    assert np.isfinite(dense(ease(identical, 0.003))).all()


def test_full_rank_factors_give_the_same_scores(matrix: sp.csr_matrix) -> None:
    weights = ease(matrix, 0.5)
    model = reduce_rank(weights, row_importance(matrix), 12, np.random.default_rng(1))
    factors, expected = model.item_map @ model.item_vectors.T, dense(weights)
    np.fill_diagonal(factors, 0)
    assert_allclose(factors, expected, atol=1e-4)


def off_diagonal_error(approximation: NDArray[np.floating], expected: NDArray[np.floating]) -> float:
    return float(np.linalg.norm((approximation - expected)[~np.eye(12, dtype=bool)]))


def test_lower_rank_factors_are_nearer_than_the_truncated_svd_except_on_the_diagonal(
    matrix: sp.csr_matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm_start, "OVERSAMPLING", 0)  # the default exceeds the 12 items
    weights = ease(matrix, 0.5)
    model = reduce_rank(weights, np.ones(12, dtype=np.float32), 4, np.random.default_rng(1))
    left, values, right = np.linalg.svd(dense(weights))
    truncated = (left[:, :4] * values[:4]) @ right[:4]
    error = off_diagonal_error(model.item_map @ model.item_vectors.T, dense(weights))
    assert error < 0.95 * off_diagonal_error(truncated, dense(weights))


def test_important_rows_are_approximated_better(matrix: sp.csr_matrix) -> None:
    weights = ease(matrix, 0.5)

    def error_of_first_row(importance: float) -> float:
        rows = np.ones(12, dtype=np.float32)
        rows[0] = importance
        model = reduce_rank(weights, rows, 4, np.random.default_rng(1))
        return float(np.linalg.norm((model.item_map @ model.item_vectors.T - dense(weights))[0, 1:]))

    assert error_of_first_row(100.0) < 0.5 * error_of_first_row(0.01)


def test_importance_grows_with_the_root_of_the_squared_weights() -> None:
    histories = sp.csr_matrix(np.array([[1, 2, 0], [0, 2, 0]], dtype=np.float32))
    importance = row_importance(histories)
    assert importance[1] / importance[0] == pytest.approx(np.sqrt(8), rel=0.01)
    assert 0 < importance[2] < 0.1 * importance[0]
    assert row_importance(sp.csr_matrix((2, 3), dtype=np.float32)).tolist() == [1.0, 1.0, 1.0]


def test_a_weighted_sum_is_the_sum_of_its_terms(matrix: sp.csr_matrix) -> None:
    factors = spectral(matrix, 3, np.random.default_rng(0))
    total = WeightedSum(((1.0, ease(matrix, 0.5)), (0.5, factors)))
    expected = dense(ease(matrix, 0.5)) + 0.5 * factors.item_map @ factors.item_vectors.T
    vectors = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
    assert_allclose(total.scores(matrix), matrix @ expected, atol=1e-5)
    assert_allclose(total.times(vectors), expected @ vectors, atol=1e-5)
    assert_allclose(total.transposed_times(vectors), expected.T @ vectors, atol=1e-5)


@pytest.mark.parametrize("exponents", [SPECTRAL_EXPONENTS, Exponents(user=0.5, item=0.4, score=0.2, smoothing=1.0)])
def test_the_full_spectrum_is_the_square_root_of_the_normalised_gram_matrix(
    matrix: sp.csr_matrix, exponents: Exponents
) -> None:
    model = spectral(matrix, 12, np.random.default_rng(1), exponents)
    values = matrix.toarray()
    counts = np.maximum(values.sum(axis=0), 1)
    users = np.maximum(values.sum(axis=1, keepdims=True), 1)
    counts += exponents.smoothing * counts.mean()
    root_of = values / users**exponents.user / counts**exponents.item
    squares, vectors = np.linalg.eigh(root_of.T @ root_of)
    root = (vectors * np.maximum(squares, 0.0) ** 0.25) @ vectors.T
    expected = values / counts**exponents.item @ root * counts**exponents.score
    assert_allclose((matrix @ model.item_map) @ model.item_vectors.T, expected, atol=1e-3)


def test_items_without_interactions_give_finite_factors() -> None:
    matrix = sp.csr_matrix(np.array([[1, 1, 0], [1, 0, 0], [0, 1, 0]], dtype=np.float32))
    for model in (
        spectral(matrix, 2, np.random.default_rng(0)),
        reduce_rank(ease(matrix, 0.5), row_importance(matrix), 2, np.random.default_rng(0)),
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
