"""Closed-form item-item models: the starting point of training.

He et al. initialise NeuMF from pre-trained models (§3.4.1). Here the GMF path starts from a linear autoencoder, which
takes seconds and needs no gradient:

- `invert_gram` is EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019) with a relaxed diagonal
  (Moon, Kim & Lee, "It's Enough: Relaxing Diagonal Constraints in Linear Autoencoders for Recommendation", SIGIR 2023)
  on a matrix whose rows and columns are normalised (Park et al., "Why is Normalization Necessary for Linear
  Recommenders?", SIGIR 2025). For catalogues up to `MAX_EXACT_ITEMS`.
- `decompose` takes the leading part of the same matrix's spectrum (GF-CF: Shen et al., "How Powerful is Graph
  Convolution for Recommendation?", CIKM 2021), for larger catalogues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from recsys.model.neumf import Floats

MAX_EXACT_ITEMS: Final = 6_000
"""The inverse takes n_items³ operations and 8 n_items² bytes: at most about 5 s and 300 MB on one core."""
OVERSAMPLING: Final = 32
POWER_STEPS: Final = 3


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A factorised item-item model: `history @ item_map @ item_vectors.T` scores items.

    Both arrays have the shape (n_items, dim), float32.
    """

    item_map: Floats
    item_vectors: Floats

    def scores(self, histories: Any) -> Floats:
        """Return scores (n, n_items) for sparse histories (n, n_items)."""
        scores: Floats = (histories @ self.item_map) @ self.item_vectors.T
        return scores


@dataclass(frozen=True, slots=True)
class ItemWeights:
    """A full item-item model: `history @ weights` scores items; (n_items, n_items) float32."""

    weights: Floats

    def scores(self, histories: Any) -> Floats:
        """Return scores (n, n_items) for sparse histories (n, n_items)."""
        return np.asarray(histories @ self.weights)


WarmStart = LinearModel | ItemWeights


@dataclass(frozen=True, slots=True)
class LinearSettings:
    """Hyperparameters of the closed-form models. With all but `ridge` at 0, `invert_gram` is plain EASE.

    Parameters
    ----------
    user_exponent
        A user's row is divided by its length to this power, so that long histories do not dominate.
    item_exponent
        An item's column is divided by its squared norm to this power.
    ridge
        L2 regularisation in units of the Gram matrix's mean diagonal, so that a value suits data of any size.
    diagonal
        How far an item may explain itself during the fit, 0 (EASE) to 1 (ridge regression).
    score_exponent
        Scores are multiplied by the item's count to this power; a negative one favours rare items.
    history_exponent
        The items of a history are weighted by their count to this power.
    """

    user_exponent: float
    item_exponent: float
    ridge: float
    diagonal: float = 0.0
    score_exponent: float = 0.0
    history_exponent: float = 0.0


@dataclass(frozen=True, slots=True)
class _Normalised:
    """`matrix` is the interaction matrix (n_users, n_items) with rows and columns scaled, float32.

    `item_scales` (n_items,) are the factors of its columns, `counts` (n_items,) the interactions per item, at least 1.
    """

    exponents: tuple[float, float]
    matrix: Any
    item_scales: Floats
    counts: Floats

    @classmethod
    def of(cls, matrix: Any, settings: LinearSettings) -> _Normalised:
        lengths = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
        counts = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0)
        row_scales = lengths**-settings.user_exponent
        squared_norms = np.asarray(matrix.T @ row_scales**2).ravel()  # entries are ones
        item_scales = np.where(squared_norms > 0, squared_norms, 1.0) ** -settings.item_exponent
        scaled = sp.csr_matrix(sp.diags(row_scales) @ matrix @ sp.diags(item_scales), dtype=np.float32)
        exponents = settings.user_exponent, settings.item_exponent
        return cls(exponents, scaled, item_scales.astype(np.float32), counts.astype(np.float32))

    def map_scales(self, settings: LinearSettings) -> Floats:
        """Return the factors (n_items, 1) of a history's items."""
        return (self.item_scales * self.counts**settings.history_exponent)[:, None].astype(np.float32)

    def score_scales(self, settings: LinearSettings) -> Floats:
        """Return the factors (n_items,) of the scores, which undo the scaling of the columns."""
        return (self.counts**settings.score_exponent / self.item_scales).astype(np.float32)


@dataclass(frozen=True, slots=True)
class GramInverse:
    """The inverse of the regularised Gram matrix, from which `model` derives item-item weights in O(n_items²)."""

    normalised: _Normalised
    inverse: Floats
    ridge: float
    mean_diagonal: float

    def is_for(self, settings: LinearSettings) -> bool:
        """Whether `model` applies: other exponents or another ridge need another inverse."""
        exponents = settings.user_exponent, settings.item_exponent
        return exponents == self.normalised.exponents and settings.ridge * self.mean_diagonal == self.ridge

    def model(self, settings: LinearSettings) -> ItemWeights:
        """Return `B = -P diag(μ + λ)` off the diagonal and 0 on it, scaled back to plain histories and scores.

        `μ_j = (1 - ξ) / P_jj - λ` where the diagonal would exceed ξ, otherwise 0 (Moon et al. 2023). With ξ = 0 that is
        EASE's `-P / diag(P)` (Steck 2019, equation 8).
        """
        diagonal = np.diag(self.inverse)
        exceeds = 1 - self.ridge * diagonal > settings.diagonal
        column = np.where(exceeds, (1 - settings.diagonal) / diagonal, self.ridge).astype(np.float32)
        weights: Floats = self.inverse * (-column * self.normalised.score_scales(settings))
        weights *= self.normalised.map_scales(settings)
        np.fill_diagonal(weights, 0.0)
        return ItemWeights(weights)


@dataclass(frozen=True, slots=True)
class Spectrum:
    """The leading right singular vectors (n_items, dim) of the normalised matrix and their squared singular values."""

    normalised: _Normalised
    vectors: Floats
    squares: Floats
    mean_diagonal: float

    def is_for(self, settings: LinearSettings) -> bool:
        """Whether `model` applies: the ridge only rescales a spectrum."""
        return (settings.user_exponent, settings.item_exponent) == self.normalised.exponents

    def model(self, settings: LinearSettings) -> LinearModel:
        """Return ridge regression within the spectrum: `V diag(s² / (s² + λ)) Vᵀ`, scaled back; ξ has no effect."""
        regularised = self.squares + settings.ridge * self.mean_diagonal
        strengths = np.sqrt(self.squares / np.maximum(regularised, np.finfo(np.float32).tiny))
        filtered: Floats = self.vectors * strengths.astype(np.float32)
        return LinearModel(
            filtered * self.normalised.map_scales(settings), filtered * self.normalised.score_scales(settings)[:, None]
        )


Decomposition = GramInverse | Spectrum


def invert_gram(matrix: Any, settings: LinearSettings) -> GramInverse:
    """Return `P = (NᵀN + λI)⁻¹` of the normalised matrix N.

    Parameters
    ----------
    matrix
        Interactions (n_users, n_items), sparse ones.
    """
    normalised = _Normalised.of(matrix, settings)
    gram = (normalised.matrix.T @ normalised.matrix).toarray()
    mean_diagonal = float(np.diag(gram).mean())
    ridge = settings.ridge * mean_diagonal
    gram[np.diag_indices_from(gram)] += np.float32(ridge)
    return GramInverse(normalised, _inverse(gram), ridge, mean_diagonal)


def decompose(matrix: Any, settings: LinearSettings, dim: int, generator: np.random.Generator) -> Spectrum:
    """Return the `dim` leading right singular vectors of the normalised matrix.

    By a randomised range finder (Halko, Martinsson & Tropp 2011, algorithm 4.4).
    """
    normalised = _Normalised.of(matrix, settings)
    rows = normalised.matrix
    columns = rows.T.tocsr()  # twice as fast to multiply with as a view
    n_items = rows.shape[1]
    basis = generator.standard_normal((n_items, min(dim + OVERSAMPLING, n_items)), dtype=np.float32)
    for _ in range(POWER_STEPS + 1):
        basis = _orthonormal(columns @ (rows @ basis))
    projected = rows @ basis
    squares, rotation = np.linalg.eigh(projected.T @ projected)
    vectors: Floats = basis @ rotation[:, ::-1][:, :dim]
    mean_diagonal = float(rows.multiply(rows).sum()) / n_items
    return Spectrum(normalised, vectors, np.maximum(squares[::-1][:dim], 0.0), mean_diagonal)


def _inverse(matrix: Floats) -> Floats:
    """Invert a symmetric positive definite matrix by Cholesky; single precision takes a quarter of the time of `inv`.

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


def _orthonormal(vectors: Floats) -> Floats:
    """Return an orthonormal basis of the columns' span, (n, at most as many columns).

    Through the eigenvectors of their Gram matrix: matrix products are fifteen times as fast as QR here. What is lost in
    single precision, directions of less than a thousandth of the longest, is noise to what comes next.
    """
    squares, rotation = np.linalg.eigh(vectors.T @ vectors)
    kept = squares > 1e-6 * squares[-1]
    basis: Floats = vectors @ (rotation[:, kept] / np.sqrt(squares[kept]))
    return basis


def reduce_rank(linear: ItemWeights, histories: Any, dim: int, generator: np.random.Generator) -> LinearModel:
    """Return the model of width `dim` whose scores for `histories` are nearest to those of `linear` (Eckart-Young).

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


def balance(model: LinearModel, vectors: Floats) -> LinearModel:
    """Return a model with the same scores whose factors have equal sizes in each dimension.

    `vectors` are examples of `history @ item_map`, (n, dim).
    """
    left, right = _rms(vectors), _rms(model.item_vectors)
    ratio: Floats = np.sqrt(np.divide(right, left, out=np.ones_like(left), where=left > 0))
    ratio[ratio == 0] = 1.0
    return LinearModel(model.item_map * ratio, model.item_vectors / ratio)


def _rms(vectors: Floats) -> Floats:
    mean: Floats = np.sqrt(np.mean(np.square(vectors), axis=0))
    return mean
