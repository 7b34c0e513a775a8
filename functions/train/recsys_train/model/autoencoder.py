"""Fit linear autoencoders, the closed-form models from which training starts for small and medium-sized shops.

The model is EASE (Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019) with a relaxed diagonal
(Moon, Kim & Lee, "It's Enough: Relaxing Diagonal Constraints in Linear Autoencoders for Recommendation", SIGIR 2023) on
a matrix whose rows and columns are normalised (Park et al., "Why is Normalization Necessary for Linear Recommenders?",
SIGIR 2025).

If there are at most `MAX_EXACT_SIZE` items, the Gram matrix of the items is inverted. Otherwise, the Gram matrix of the
users is inverted, which gives the same weights (Woodbury's identity).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from recsys.model.neumf import Floats
from recsys_train.model.warm_start import DenseWeights, ItemWeights

MAX_EXACT_SIZE: Final = 6_000
"""Maximum number of rows of a Gram matrix that is inverted. For n rows, the inversion takes n³ operations and 8 n²
bytes, which are at most about 5 s on one core and 300 MB."""
COLUMNS_PER_CHUNK: Final = 1_000
"""Number of items whose products with the inverse of the users' Gram matrix are in memory at once. The products take at
most 24 MB."""
MIN_REMAINDER: Final = 1e-6
"""Lower limit of the divisor `1 - q`, where q is the weight of an item for itself. If q is close to 1, rounding errors
would otherwise be large."""


@dataclass(frozen=True, slots=True)
class LinearSettings:
    """Hyperparameters of the linear autoencoder. If all except `ridge` are 0, the model is plain EASE.

    Parameters
    ----------
    user_exponent
        The row of a user with n items is divided by `n ** user_exponent`, so that long histories do not dominate.
    item_exponent
        After the division of the rows, an item's column is divided by its squared norm to this power.
    ridge
        L2 regularisation in units of the mean diagonal of the Gram matrix, so that one value suits data of any size.
    diagonal
        Upper limit of an item's weight for itself during the fit, from 0 (EASE) to 1 (ridge regression).
    score_exponent
        The scores of an item are multiplied by the item's number of users to this power. A negative exponent favours
        rare items.
    """

    user_exponent: float
    item_exponent: float
    ridge: float
    diagonal: float = 0.0
    score_exponent: float = 0.0


@dataclass(frozen=True, slots=True)
class _Normalised:
    """The normalised interaction matrix N, (n_users, n_items) sparse float32, with its scales and statistics.

    Parameters
    ----------
    exponents
        The settings `user_exponent` and `item_exponent`.
    item_scales
        Factors by which the columns were multiplied, (n_items,).
    counts
        Number of users of each item, at least 1, (n_items,).
    mean_diagonal
        Mean of the diagonal of `NᵀN`.
    """

    exponents: tuple[float, float]
    matrix: Any
    item_scales: Floats
    counts: Floats
    mean_diagonal: float

    @classmethod
    def of(cls, matrix: Any, settings: LinearSettings) -> Self:
        """Normalise the rows and the columns of a sparse matrix whose stored entries are all 1."""
        lengths = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
        counts = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0)
        row_scales = lengths**-settings.user_exponent
        squared_norms = np.asarray(matrix.T @ row_scales**2).ravel()
        item_scales = np.where(squared_norms > 0, squared_norms, 1.0) ** -settings.item_exponent
        scaled = sp.csr_matrix(sp.diags(row_scales) @ matrix @ sp.diags(item_scales), dtype=np.float32)
        mean_diagonal = float((squared_norms * item_scales**2).mean())
        exponents = settings.user_exponent, settings.item_exponent
        return cls(exponents, scaled, item_scales.astype(np.float32), counts.astype(np.float32), mean_diagonal)

    def score_scales(self, settings: LinearSettings) -> Floats:
        """Return the factor by which the scores of each item are multiplied, (n_items,).

        The factors undo the scaling of the columns and apply `score_exponent`.
        """
        return (self.counts**settings.score_exponent / self.item_scales).astype(np.float32)


@dataclass(frozen=True, slots=True)
class GramInverse:
    """The inverse of a regularised Gram matrix, from which `model` derives item weights for several settings.

    Parameters
    ----------
    normalised
        The normalised interaction matrix N, with its scales.
    inverse
        `(NᵀN + λI)⁻¹`, (n_items, n_items). If `of_users` is true, `(NNᵀ + λI)⁻¹`, (n_users, n_users).
    explained
        Diagonal q of `NᵀN (NᵀN + λI)⁻¹`, (n_items,), the weight of each item for itself in ridge regression.
    ridge
        λ, the L2 regularisation.
    of_users
        Whether the Gram matrix of the users was inverted.
    """

    normalised: _Normalised
    inverse: Floats
    explained: Floats
    ridge: float
    of_users: bool

    def is_for(self, settings: LinearSettings) -> bool:
        """Return whether `settings` has the exponents and the ridge with which this inverse was computed."""
        exponents = settings.user_exponent, settings.item_exponent
        return exponents == self.normalised.exponents and settings.ridge * self.normalised.mean_diagonal == self.ridge

    def model(self, settings: LinearSettings) -> ItemWeights:
        """Return the item weights of the autoencoder, which map unnormalised histories to unnormalised scores.

        Ridge regression has the weights `H = NᵀN (NᵀN + λI)⁻¹`. If the diagonal element q of a column of H exceeds the
        limit ξ (`settings.diagonal`), the column is multiplied by `(1 - ξ) / (1 - q)`. The result solves the regression
        with the constraint that q is at most ξ (Moon et al. 2023). With ξ = 0, the result is EASE (Steck 2019, equation
        8). Finally, the diagonal is set to 0, because items of the history are not recommended.
        """
        return self._scaled(self.column_scales(settings))

    def unscaled(self) -> ItemWeights:
        """Return the item weights before the multiplication by `column_scales`.

        The weights are the same for all settings for which `is_for` is true.
        """
        return self._scaled(np.ones_like(self.explained))

    def column_scales(self, settings: LinearSettings) -> Floats:
        """Return the factors by which `model` multiplies the columns, (n_items,).

        Each factor is the product of the factor of the relaxed diagonal and the factor of the item's scores.
        """
        limit = settings.diagonal
        remainder = np.maximum(1 - self.explained, MIN_REMAINDER)
        columns = np.where(self.explained > limit, (1 - limit) / remainder, 1.0)
        scales: Floats = (columns * self.normalised.score_scales(settings)).astype(np.float32)
        return scales

    def _scaled(self, scales: Floats) -> ItemWeights:
        if self.of_users:
            return UserSpaceWeights(
                self.normalised.matrix, self.inverse, self.explained, self.normalised.item_scales, scales
            )
        weights: Floats = self.inverse * (-np.float32(self.ridge) * scales)
        weights *= self.normalised.item_scales[:, None]
        np.fill_diagonal(weights, 0.0)
        return DenseWeights(weights)


@dataclass(frozen=True, slots=True)
class UserSpaceWeights:
    """Item weights `B = diag(m) (NᵀKN - diag(q)) diag(c)`, of which only the factors are stored.

    Parameters
    ----------
    matrix
        N, the normalised interaction matrix, sparse, (n_users, n_items) float32.
    inverse
        K, the inverse of the users' regularised Gram matrix, (n_users, n_users) float32.
    explained
        q, the diagonal of `NᵀKN`, (n_items,) float32.
    map_scales, score_scales
        m and c, the factors of the rows and of the columns of B, (n_items,) float32.
    """

    matrix: Any
    inverse: Floats
    explained: Floats
    map_scales: Floats
    score_scales: Floats

    @property
    def n_items(self) -> int:
        """Number of items, which is the number of rows and of columns of the item weights."""
        return int(self.matrix.shape[1])

    def scores(self, histories: Any) -> Floats:
        """Return the scores of all items, (n, n_items), for sparse histories of the same shape."""
        scaled = sp.csr_matrix(histories @ sp.diags(self.map_scales), dtype=np.float32)
        similarities = (scaled @ self.matrix.T).toarray()  # between the histories and the users, (n, n_users)
        scores: Floats = np.ascontiguousarray((self.matrix.T @ (similarities @ self.inverse).T).T)
        rows = np.repeat(np.arange(scaled.shape[0]), np.diff(scaled.indptr))
        scores[rows, scaled.indices] -= scaled.data * self.explained[scaled.indices]
        scores *= self.score_scales
        return scores

    def times(self, vectors: Floats) -> Floats:
        """Return the product of the item weights, (n_items, n_items), and `vectors`, (n_items, dim)."""
        return self._core(vectors * self.score_scales[:, None]) * self.map_scales[:, None]

    def transposed_times(self, vectors: Floats) -> Floats:
        """Return the product of the transposed item weights, (n_items, n_items), and `vectors`, (n_items, dim)."""
        return self._core(vectors * self.map_scales[:, None]) * self.score_scales[:, None]

    def _core(self, vectors: Floats) -> Floats:
        """Return `(NᵀKN - diag(q)) @ vectors`, the product without the factors m and c."""
        product: Floats = np.asarray(self.matrix.T @ (self.inverse @ (self.matrix @ vectors)))
        product -= self.explained[:, None] * vectors
        return product


def can_invert(n_users: int, n_items: int) -> bool:
    """Return whether the Gram matrix of the users or that of the items is small enough for `invert_gram`."""
    return min(n_users, n_items) <= MAX_EXACT_SIZE


def invert_gram(matrix: Any, settings: LinearSettings) -> GramInverse:
    """Invert the regularised Gram matrix of the items, or of the users if there are more than `MAX_EXACT_SIZE` items.

    Parameters
    ----------
    matrix
        Interactions, a sparse matrix whose stored entries are all 1, (n_users, n_items) float32.
    settings
        Exponents and ridge. The other settings have no influence.

    Examples
    --------
    >>> purchases = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32))
    >>> settings = LinearSettings(user_exponent=0.0, item_exponent=0.0, ridge=0.6)  # λ = 1, as the mean count is 5/3
    >>> invert_gram(purchases, settings).model(settings).scores(purchases[:1]).round(2) + 0.0
    array([[0.67, 0.67, 0.  ]], dtype=float32)
    """
    normalised = _Normalised.of(matrix, settings)
    ridge = settings.ridge * normalised.mean_diagonal
    rows = normalised.matrix
    of_users = rows.shape[1] > MAX_EXACT_SIZE
    gram = (rows @ rows.T if of_users else rows.T @ rows).toarray()
    gram[np.diag_indices_from(gram)] += np.float32(ridge)
    inverse = _inverse(gram)
    explained = _explained(rows, inverse) if of_users else 1 - np.float32(ridge) * np.diag(inverse)
    return GramInverse(normalised, inverse, explained, ridge, of_users)


def _explained(rows: Any, inverse: Floats) -> Floats:
    """Return the diagonal of `NᵀKN`, (n_items,), for N = `rows` and K = `inverse`."""
    columns = rows.T.tocsr()
    parts = []
    for begin in range(0, columns.shape[0], COLUMNS_PER_CHUNK):
        chunk = columns[begin : begin + COLUMNS_PER_CHUNK]
        parts.append(np.asarray(chunk.multiply(chunk @ inverse).sum(axis=1)).ravel())
    explained: Floats = np.concatenate(parts).astype(np.float32)
    return explained


def _inverse(matrix: Floats) -> Floats:
    """Invert a symmetric positive definite matrix by Cholesky decomposition in float32.

    This method is four times as fast as `scipy.linalg.inv`. The ridge keeps the condition number in the
    thousands, so that at least three digits are correct. If Cholesky fails because of rounding, the inverse is computed
    in float64.
    """
    factor, failed = scipy.linalg.lapack.spotrf(matrix)
    if failed:
        return np.asarray(scipy.linalg.inv(matrix.astype(np.float64), assume_a="pos"), dtype=np.float32)
    triangle, _ = scipy.linalg.lapack.spotri(factor)
    triangle = np.triu(triangle)
    inverse: Floats = triangle + np.triu(triangle, 1).T
    return inverse
