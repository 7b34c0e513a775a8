"""The closed-form item-item model that training starts from, reduced to the width of the GMF path.

He et al. initialise NeuMF with pre-trained models (§3.4.1). A linear model in closed form serves the same purpose and
takes seconds. If the catalogue is small enough for an item-item matrix, it is EASE (Steck, "Embarrassingly Shallow
Autoencoders for Sparse Data", WWW 2019, equation 8); otherwise it is the leading part of the spectrum of the normalised
interaction matrix (GF-CF: Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.linalg
import scipy.optimize
import scipy.sparse as sp
from scipy.special import expit

from recsys.model.neumf import Floats
from recsys_train.data.interactions import Interactions

MAX_EASE_ITEMS: Final = 6_000
"""Largest catalogue for EASE: its inverse takes n_items³ operations and 8 n_items² bytes, at most 15 s and 300 MB."""
OVERSAMPLING: Final = 32
"""Extra columns of a random basis. Halko et al. (§4.2) recommend 5 or 10; more, because the singular values of
interactions decay slowly. Not tuned."""
POWER_STEPS: Final = 3
"""Subspace iterations of a random basis. Halko et al. (§4.5) recommend 1 or 2; more for the same reason. Not tuned."""
MIN_SQUARED_LENGTH: Final = 1e-6
"""Directions shorter than a thousandth of the longest (a millionth, squared) are rounding noise in float32."""
CALIBRATION_RIDGE: Final = 1e-6
"""Keeps slope and bias finite if a threshold separates positives from negatives; negligible otherwise. Not tuned."""
CALIBRATION_START: Final = (1.0, -2.0)
"""Slope and bias at which the optimiser starts. The loss is convex, so that only the number of steps depends on it."""
MIN_SLOPE: Final = 1e-3
"""Lower limit of the calibrated slope, since a slope of 0 or less would invert the ranking. Not tuned."""


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A linear model in factored form: `history @ item_map @ item_vectors.T` scores all items.

    Parameters
    ----------
    item_map, item_vectors
        Factors of shape (n_items, dim), float32.
    """

    item_map: Floats
    item_vectors: Floats

    def scores(self, histories: Any) -> Floats:
        """Return the scores of all items, (n, n_items), for sparse histories of the same shape."""
        scores: Floats = (histories @ self.item_map) @ self.item_vectors.T
        return scores


@dataclass(frozen=True, slots=True)
class ItemWeights:
    """A linear model as an item-item matrix: `history @ weights` scores all items.

    Parameters
    ----------
    weights
        Shape (n_items, n_items), float32.
    """

    weights: Floats

    def scores(self, histories: Any) -> Floats:
        """Return the scores of all items, (n, n_items), for sparse histories of the same shape."""
        return np.asarray(histories @ self.weights)


WarmStart = LinearModel | ItemWeights
"""A closed-form model. Validation compares several; `reduce_rank` turns item weights into factors for training."""


@dataclass(frozen=True, slots=True)
class Exponents:
    """Exponents of the interaction counts by which `spectral` normalises the interaction matrix X.

    Parameters
    ----------
    user, item
        The matrix `D_u^-user X D_i^-item` is decomposed, where D_u and D_i are the diagonal matrices of counts.
    score
        Scores are multiplied by `D_i^score`.
    """

    user: float
    item: float
    score: float


SPECTRAL_EXPONENTS: Final = Exponents(user=0.3, item=0.5, score=0.3)
"""Tuned: `python -m tests.benchmarks.exponents` prints the comparison. In GF-CF, all three are 0.5."""


def to_matrix(interactions: Interactions) -> Any:
    """Return a sparse matrix (n_users, n_items), float32, with a 1 for every interaction."""
    ones = np.ones(len(interactions), dtype=np.float32)
    shape = (interactions.n_users, interactions.n_items)
    return sp.csr_matrix((ones, (interactions.users, interactions.items)), shape=shape)


def ease(matrix: Any, ridge: float) -> ItemWeights:
    """Fit EASE: `B = I - P / diag(P)` with `P = (XᵀX + λI)⁻¹` and a zero diagonal (Steck 2019, equation 8).

    Parameters
    ----------
    matrix
        Sparse interactions X, (n_users, n_items) float32.
    ridge
        L2 regularisation λ, greater than 0.

    Returns
    -------
    ItemWeights
        B, which minimises `‖X - XB‖² + λ‖B‖²`.

    Examples
    --------
    >>> purchases = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32))
    >>> ease(purchases, ridge=1.0).weights.round(2) + 0.0
    array([[0.  , 0.67, 0.  ],
           [0.67, 0.  , 0.  ],
           [0.  , 0.  , 0.  ]], dtype=float32)
    """
    gram = (matrix.T @ matrix).toarray()
    gram[np.diag_indices_from(gram)] += np.float32(ridge)
    inverse = _inverse(gram)
    weights: Floats = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return ItemWeights(weights)


def _inverse(matrix: Floats) -> Floats:
    """Invert a symmetric positive definite matrix by Cholesky in float32.

    This is four times as fast as `scipy.linalg.inv`.

    The ridge keeps the condition number in the thousands, which leaves at least three correct digits. If Cholesky fails
    because of rounding, the inverse is computed in float64.
    """
    factor, failed = scipy.linalg.lapack.spotrf(matrix)
    if failed:
        return np.asarray(scipy.linalg.inv(matrix.astype(np.float64), assume_a="pos"), dtype=np.float32)
    triangle, _ = scipy.linalg.lapack.spotri(factor)
    triangle = np.triu(triangle)
    inverse: Floats = triangle + np.triu(triangle, 1).T
    return inverse


def reduce_rank(linear: ItemWeights, histories: Any, dim: int, generator: np.random.Generator) -> LinearModel:
    """Approximate an item-item model by factors of width `dim`.

    The factors minimise the squared error of the scores of `histories` (Eckart & Young 1936). They are computed by
    randomised subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4).

    Parameters
    ----------
    linear
        The model to approximate.
    histories
        Sparse matrix (n_users, n_items) of the histories for which the error is minimised.
    dim
        Width of the factors; at most n_items.
    generator
        Source of the random basis.

    Returns
    -------
    LinearModel
        The best `dim` dimensions first.

    Examples
    --------
    >>> purchases = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=np.float32))
    >>> weights = ease(purchases, ridge=1.0)
    >>> model = reduce_rank(weights, purchases, 3, np.random.default_rng(0))
    >>> bool(np.allclose(model.scores(purchases), weights.scores(purchases), atol=1e-5))
    True
    """
    weights = linear.weights
    basis = generator.standard_normal((len(weights), min(dim + OVERSAMPLING, len(weights))), dtype=np.float32)
    for _ in range(POWER_STEPS):
        scores = histories @ (weights @ basis)
        basis, _ = np.linalg.qr(weights.T @ (histories.T @ scores))
    mapped = weights @ basis
    scores = histories @ mapped
    _, rotation = np.linalg.eigh(scores.T @ scores)
    rotation = rotation[:, ::-1][:, :dim]
    return LinearModel(mapped @ rotation, basis @ rotation)


def spectral(
    matrix: Any, dim: int, generator: np.random.Generator, exponents: Exponents = SPECTRAL_EXPONENTS
) -> LinearModel:
    """Fit a low-pass filter on the item graph, a variant of GF-CF.

    Let V be the `dim` leading right singular vectors of the normalised matrix and S their singular values. The factors
    are `D_i^-item V S^½` and `D_i^score V`. GF-CF's ideal filter does not contain S, and its linear filter contains S².
    Of the powers between them, the square root gives the best ranking.

    Parameters
    ----------
    matrix
        Sparse interactions, (n_users, n_items) float32.
    dim
        Width of the factors; at most n_items.
    generator
        Source of the random basis (Halko, Martinsson & Tropp 2011, algorithm 4.4).
    exponents
        Normalisation, see `Exponents`.

    Returns
    -------
    LinearModel
        The largest singular value first. Items without an interaction have the score 0.

    Examples
    --------
    >>> purchases = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32))
    >>> model = spectral(purchases, 2, np.random.default_rng(0))
    >>> model.scores(purchases[:1]).round(2) + 0.0
    array([[0.93, 0.93, 0.  ]], dtype=float32)
    """
    user_counts = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
    item_counts = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0)
    user_scale, item_scale = user_counts**-exponents.user, item_counts**-exponents.item
    normalised = sp.csr_matrix(sp.diags(user_scale) @ matrix @ sp.diags(item_scale), dtype=np.float32)
    transposed = normalised.T.tocsr()  # multiplies twice as fast as a transposed view
    n_items = normalised.shape[1]
    basis = generator.standard_normal((n_items, min(dim + OVERSAMPLING, n_items)), dtype=np.float32)
    for _ in range(2 * POWER_STEPS):  # one product with the normalised Gram matrix each, half of `reduce_rank`'s step
        basis = _orthonormal(transposed @ (normalised @ basis))
    projected = normalised @ basis
    squares, rotation = np.linalg.eigh(projected.T @ projected)
    vectors: Floats = basis @ rotation[:, ::-1][:, :dim]
    filtered: Floats = vectors * np.maximum(squares[::-1][:dim], 0.0) ** 0.25
    map_scale = item_scale.astype(np.float32)[:, None]
    rank_scale = (item_counts**exponents.score).astype(np.float32)[:, None]
    return LinearModel(filtered * map_scale, vectors * rank_scale)


def _orthonormal(vectors: Floats) -> Floats:
    """Return an orthonormal basis of the columns' span, (n, rank), without directions that consist of rounding errors.

    It is computed from the eigenvectors of the Gram matrix, because these matrix products are 15 times as fast as QR.
    """
    squares, rotation = np.linalg.eigh(vectors.T @ vectors)
    kept = squares > MIN_SQUARED_LENGTH * squares[-1]
    basis: Floats = vectors @ (rotation[:, kept] / np.sqrt(squares[kept]))
    return basis


def balance(model: LinearModel, vectors: Floats) -> LinearModel:
    """Rescale each dimension so that user vectors and item vectors have the same root mean square.

    Parameters
    ----------
    model
        The model to rescale.
    vectors
        User vectors `history @ item_map` of representative histories, (n, dim).

    Returns
    -------
    LinearModel
        Factors with the same scores. Dimensions in which either side is 0 stay unchanged.

    Examples
    --------
    >>> model = LinearModel(np.array([[8.0]], "f4"), np.array([[0.5]], "f4"))
    >>> balance(model, model.item_map)
    LinearModel(item_map=array([[2.]], dtype=float32), item_vectors=array([[2.]], dtype=float32))
    """
    user_size, item_size = _rms(vectors), _rms(model.item_vectors)
    ratio: Floats = np.sqrt(np.divide(item_size, user_size, out=np.ones_like(user_size), where=user_size > 0))
    ratio[ratio == 0] = 1.0
    return LinearModel(model.item_map * ratio, model.item_vectors / ratio)


def calibrate(
    positives: tuple[Floats, Floats], negatives: tuple[Floats, Floats], negative_weight: float
) -> tuple[float, float]:
    """Find the slope and bias that minimise the loss of the logits `slope * score + bias` (logistic regression).

    Parameters
    ----------
    positives, negatives
        Scores and their weights in the loss, both (n,). Each side's loss is a weighted mean.
    negative_weight
        Weight of the negatives' mean loss relative to the positives' mean loss.

    Returns
    -------
    slope : float
        At least `MIN_SLOPE` divided by the standard deviation of the scores.
    bias : float
        The best bias for this slope.

    Examples
    --------
    >>> positives, negatives = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0])
    >>> slope, bias = calibrate((positives, np.ones(4)), (negatives, np.ones(4)), 1.0)
    >>> bool(np.isclose(slope, np.log(9), rtol=0.01) and np.isclose(bias, -np.log(3), rtol=0.01))  # odds 1:3 and 3:1
    True
    """
    (up, up_weights), (down, down_weights) = positives, negatives
    unit = float(np.concatenate([up, down]).std()) or 1.0
    up, down = up / unit, down / unit
    up_weights, down_weights = up_weights / up_weights.sum(), negative_weight * down_weights / down_weights.sum()

    def loss_and_gradient(theta: Any) -> tuple[float, Any]:
        logits_up, logits_down = theta[0] * up + theta[1], theta[0] * down + theta[1]
        loss = up_weights @ np.logaddexp(0, -logits_up) + down_weights @ np.logaddexp(0, logits_down)
        pull_up, pull_down = -up_weights * expit(-logits_up), down_weights * expit(logits_down)
        gradient = np.array([pull_up @ up + pull_down @ down, pull_up.sum() + pull_down.sum()])
        return loss + CALIBRATION_RIDGE * theta @ theta, gradient + 2 * CALIBRATION_RIDGE * theta

    result = scipy.optimize.minimize(loss_and_gradient, np.array(CALIBRATION_START), jac=True, method="L-BFGS-B")
    slope, bias = result.x.tolist()
    return max(slope, MIN_SLOPE) / unit, bias


def _rms(vectors: Floats) -> Floats:
    mean: Floats = np.sqrt(np.mean(np.square(vectors), axis=0))
    return mean
