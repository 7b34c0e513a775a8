"""Fit spectral models, from which training starts if there are too many users and items to invert a Gram matrix.

A spectral model consists of the singular vectors with the largest singular values of the normalised interaction matrix
(GF-CF: Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021). In smaller shops, a spectral
model of low rank can be added to the linear autoencoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import scipy.sparse as sp

from recsys.model.neumf import Floats
from recsys_train.model.warm_start import OVERSAMPLING, POWER_STEPS, LinearModel

MIN_SQUARED_LENGTH: Final = 1e-6
"""Minimum squared length of a direction, relative to the longest direction. In float32, directions that are shorter
than a thousandth of the longest direction are rounding noise."""


@dataclass(frozen=True, slots=True)
class Exponents:
    """Exponents of the interaction counts by which `spectral` normalises the interaction matrix X.

    Parameters
    ----------
    user, item
        The matrix `D_u^-user X D_i^-item` is decomposed, where D_u and D_i are the diagonal matrices of the interaction
        counts of users and items.
    score
        Scores are multiplied by `D_i^score`.
    smoothing
        The item counts in D_i are increased by this multiple of their mean, so that the spectrum does not consist of
        the noise of rare items (Qin & Rohe, "Regularized Spectral Clustering under the Degree-Corrected Stochastic
        Blockmodel", NIPS 2013).
    """

    user: float
    item: float
    score: float
    smoothing: float = 0.0


SPECTRAL_EXPONENTS: Final = Exponents(user=0.3, item=0.5, score=0.3)
"""Tuned values. `python -m tests.benchmarks.exponents` compares them with others. In GF-CF, all exponents are 0.5."""


def spectral(
    matrix: Any, dim: int, generator: np.random.Generator, exponents: Exponents = SPECTRAL_EXPONENTS
) -> LinearModel:
    """Fit a spectral model, a low-rank variant of GF-CF.

    Let V be the `dim` leading right singular vectors of the normalised matrix, and S the diagonal matrix of their
    singular values. The factors are `D_i^-item V S^½` for histories and `D_i^score V` for scored items, see
    `Exponents`. GF-CF's ideal filter does not contain S, and the linear filter of GF-CF contains S². Of the powers of S
    between these two, the square root gives the best ranking.

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
        Factors whose dimensions are in descending order of the singular values. Items without an interaction have the
        score 0.

    Examples
    --------
    >>> purchases = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], dtype=np.float32))
    >>> model = spectral(purchases, 2, np.random.default_rng(0))
    >>> model.scores(purchases[:1]).round(2) + 0.0
    array([[0.93, 0.93, 0.  ]], dtype=float32)
    """
    user_counts = np.maximum(np.asarray(matrix.sum(axis=1)).ravel(), 1.0)
    item_counts = np.maximum(np.asarray(matrix.sum(axis=0)).ravel(), 1.0)
    item_counts = item_counts + exponents.smoothing * item_counts.mean()
    user_scale, item_scale = user_counts**-exponents.user, item_counts**-exponents.item
    normalised = sp.csr_matrix(sp.diags(user_scale) @ matrix @ sp.diags(item_scale), dtype=np.float32)
    transposed = normalised.T.tocsr()  # multiplies twice as fast as a transposed view
    n_items = normalised.shape[1]
    basis = generator.standard_normal((n_items, min(dim + OVERSAMPLING, n_items)), dtype=np.float32)
    for _ in range(2 * POWER_STEPS):  # a step of `reduce_rank` corresponds to two of these steps
        basis = _orthonormal(transposed @ (normalised @ basis))
    projected = normalised @ basis
    squares, rotation = np.linalg.eigh(projected.T @ projected)
    vectors: Floats = basis @ rotation[:, ::-1][:, :dim]
    filtered: Floats = vectors * np.maximum(squares[::-1][:dim], 0.0) ** 0.25
    map_scale = item_scale.astype(np.float32)[:, None]
    rank_scale = (item_counts**exponents.score).astype(np.float32)[:, None]
    return LinearModel(filtered * map_scale, vectors * rank_scale)


def _orthonormal(vectors: Floats) -> Floats:
    """Return an orthonormal basis of the span of the columns, (n, rank), without directions that are rounding noise.

    The basis is computed from the eigenvectors of the Gram matrix, because matrix products are 15 times as fast as QR.
    """
    squares, rotation = np.linalg.eigh(vectors.T @ vectors)
    kept = squares > MIN_SQUARED_LENGTH * squares[-1]
    basis: Floats = vectors @ (rotation[:, kept] / np.sqrt(squares[kept]))
    return basis
