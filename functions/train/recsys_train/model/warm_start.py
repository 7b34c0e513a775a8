"""Where training starts: a linear model of which items go together, in closed form, cut down to the GMF's width.

He et al. start NeuMF from models trained before (§3.4.1); starting from the best linear model is the same idea and
takes seconds. For catalogues whose item-item matrix fits, that is EASE (Steck, "Embarrassingly Shallow Autoencoders for
Sparse Data", WWW 2019, equation 8); for larger ones the leading part of the normalised interaction matrix's spectrum
(GF-CF: Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021).
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
"""The inverse takes n_items³ operations and 8 n_items² bytes: at most about 15 s and 300 MB."""
OVERSAMPLING: Final = 32
POWER_STEPS: Final = 3


@dataclass(frozen=True, slots=True)
class LinearModel:
    """`history @ item_map @ item_vectors.T` scores items; both arrays (n_items, dim) float32."""

    item_map: Floats
    item_vectors: Floats

    def scores(self, histories: Any) -> Floats:
        """Of all items, (n, n_items), for sparse histories (n, n_items)."""
        scores: Floats = (histories @ self.item_map) @ self.item_vectors.T
        return scores


@dataclass(frozen=True, slots=True)
class ItemWeights:
    """`history @ weights` scores items; (n_items, n_items) float32."""

    weights: Floats

    def scores(self, histories: Any) -> Floats:
        """Of all items, (n, n_items), for sparse histories (n, n_items)."""
        return np.asarray(histories @ self.weights)


WarmStart = LinearModel | ItemWeights
"""What validation chooses from; cut down to factors (`reduce_rank`), it is where training starts."""


@dataclass(frozen=True, slots=True)
class Exponents:
    """How much counts weigh in `spectral`: `D_u^-user X D_i^-item` is decomposed, `D_i^score` scales what is ranked."""

    user: float
    item: float
    score: float


SPECTRAL_EXPONENTS: Final = Exponents(user=0.3, item=0.5, score=0.3)
"""`python -m tests.benchmarks.exponents` prints what they rest on; GF-CF's are all ½."""


def to_matrix(interactions: Interactions) -> Any:
    """Who had what, as a sparse matrix (n_users, n_items) of ones, float32."""
    ones = np.ones(len(interactions), dtype=np.float32)
    shape = (interactions.n_users, interactions.n_items)
    return sp.csr_matrix((ones, (interactions.users, interactions.items)), shape=shape)


def ease(matrix: Any, ridge: float) -> ItemWeights:
    """EASE's item-item weights: `B = I - P / diag(P)`, `P = (XᵀX + λI)⁻¹`, with a zero diagonal."""
    gram = (matrix.T @ matrix).toarray()
    gram[np.diag_indices_from(gram)] += np.float32(ridge)
    inverse = _inverse(gram)
    weights: Floats = inverse / -np.diag(inverse)
    np.fill_diagonal(weights, 0.0)
    return ItemWeights(weights)


def _inverse(matrix: Floats) -> Floats:
    """Of a symmetric positive definite matrix, by Cholesky; single precision takes a quarter of the time of `inv`.

    The ridge keeps the condition number at some thousands, so three or more digits are right, and a float64 is taken
    where that is not enough for Cholesky.
    """
    factor, failed = scipy.linalg.lapack.spotrf(matrix)
    if failed:
        return np.asarray(scipy.linalg.inv(matrix.astype(np.float64), assume_a="pos"), dtype=np.float32)
    triangle, _ = scipy.linalg.lapack.spotri(factor)
    triangle = np.triu(triangle)
    inverse: Floats = triangle + np.triu(triangle, 1).T
    return inverse


def reduce_rank(linear: ItemWeights, histories: Any, dim: int, generator: np.random.Generator) -> LinearModel:
    """The model of width `dim` whose scores for `histories` are nearest to those of `linear` (Eckart-Young).

    By a randomised range finder (Halko, Martinsson & Tropp 2011, algorithm 4.4).
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
    """The `dim` leading right singular vectors V of the normalised matrix, as `D_i^-item V S^½` and `D_i^score V`.

    S are the singular values. GF-CF's ideal filter has no S, its linear one S²; in between ranks best.
    """
    user_counts = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
    item_counts = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0)
    user_scale, item_scale = user_counts**-exponents.user, item_counts**-exponents.item
    normalised = sp.csr_matrix(sp.diags(user_scale) @ matrix @ sp.diags(item_scale), dtype=np.float32)
    transposed = normalised.T.tocsr()  # twice as fast to multiply with as a view
    n_items = normalised.shape[1]
    basis = generator.standard_normal((n_items, min(dim + OVERSAMPLING, n_items)), dtype=np.float32)
    for _ in range(2 * POWER_STEPS):
        basis = _orthonormal(transposed @ (normalised @ basis))
    projected = normalised @ basis
    squares, rotation = np.linalg.eigh(projected.T @ projected)
    vectors: Floats = basis @ rotation[:, ::-1][:, :dim]
    filtered: Floats = vectors * np.maximum(squares[::-1][:dim], 0.0) ** 0.25
    map_scale = item_scale.astype(np.float32)[:, None]
    rank_scale = (item_counts**exponents.score).astype(np.float32)[:, None]
    return LinearModel(filtered * map_scale, vectors * rank_scale)


def _orthonormal(vectors: Floats) -> Floats:
    """A basis of what the columns span, (n, at most as many columns).

    Through the eigenvectors of their Gram matrix: matrix products are fifteen times as fast as QR here. What is lost in
    single precision, directions of less than a thousandth of the longest, is noise to what comes next.
    """
    squares, rotation = np.linalg.eigh(vectors.T @ vectors)
    kept = squares > 1e-6 * squares[-1]
    basis: Floats = vectors @ (rotation[:, kept] / np.sqrt(squares[kept]))
    return basis


def balance(model: LinearModel, vectors: Floats) -> LinearModel:
    """The same scores with both sides of each dimension of one size; `vectors` are examples of `history @ item_map`."""
    left, right = _rms(vectors), _rms(model.item_vectors)
    ratio: Floats = np.sqrt(np.divide(right, left, out=np.ones_like(left), where=left > 0))
    ratio[ratio == 0] = 1.0
    return LinearModel(model.item_map * ratio, model.item_vectors / ratio)


def calibrate(
    positives: tuple[Floats, Floats], negatives: tuple[Floats, Floats], negative_weight: float
) -> tuple[float, float]:
    """`(slope, bias)` that make `slope * score + bias` the best logit: two-parameter logistic regression.

    `positives` and `negatives` are scores and what each counts; the mean loss over negatives counts `negative_weight`
    times.
    """
    (up, up_weights), (down, down_weights) = positives, negatives
    unit = float(np.concatenate([up, down]).std()) or 1.0
    up, down = up / unit, down / unit
    up_weights, down_weights = up_weights / up_weights.sum(), negative_weight * down_weights / down_weights.sum()

    def loss(theta: Any) -> tuple[float, Any]:
        logits_up, logits_down = theta[0] * up + theta[1], theta[0] * down + theta[1]
        value = up_weights @ np.logaddexp(0, -logits_up) + down_weights @ np.logaddexp(0, logits_down)
        pull_up, pull_down = -up_weights * expit(-logits_up), down_weights * expit(logits_down)
        slope = np.array([pull_up @ up + pull_down @ down, pull_up.sum() + pull_down.sum()])
        return value + 1e-6 * theta @ theta, slope + 2e-6 * theta

    found = scipy.optimize.minimize(loss, np.array([1.0, -2.0]), jac=True, method="L-BFGS-B").x
    return max(float(found[0]), 1e-3) / unit, float(found[1])


def _rms(vectors: Floats) -> Floats:
    mean: Floats = np.sqrt(np.mean(np.square(vectors), axis=0))
    return mean
