"""Represent the closed-form item-item models from which training starts, and reduce them to the GMF path's width.

He et al. initialise NeuMF with pre-trained models (§3.4.1). A linear model in closed form serves the same purpose and
takes seconds. The modules `autoencoder`, `spectral` and `transitions` fit such models.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np

from recsys.model.neumf import Floats

OVERSAMPLING: Final = 32
"""Number of extra columns of a random basis. Halko et al. (§4.2) recommend 5 or 10. This number is larger, because the
singular values of interactions decay slowly. Not tuned."""
POWER_STEPS: Final = 3
"""Number of subspace iterations of a random basis. Halko et al. (§4.5) recommend 1 or 2. This number is larger, because
the singular values of interactions decay slowly. Not tuned."""

IMPUTING_STEPS: Final = 6
"""Number of subspace iterations of `reduce_rank`. After 3 iterations, the diagonal is not imputed well. On Online
Retail without times, validation NDCG@20 is 0.2016 after 3 iterations, 0.2024 after 5, 0.2029 after 6 and 0.2031 after
8."""
MIN_SHARE: Final = 1e-3
"""`row_importance` adds this share of the mean sum of squared weights to the sum of each item, so that every item has
some importance."""


@dataclass(frozen=True, slots=True)
class LinearModel:
    """A linear model in factored form, which scores all items as `history @ item_map @ item_vectors.T`.

    Parameters
    ----------
    item_map, item_vectors
        Factors of shape (n_items, dim), float32.
    """

    item_map: Floats
    item_vectors: Floats

    @property
    def n_items(self) -> int:
        """Number of items, which is the number of rows of both factors."""
        return len(self.item_map)

    def scores(self, histories: Any) -> Floats:
        """Return the scores of all items, (n, n_items), for sparse histories of the same shape."""
        scores: Floats = (histories @ self.item_map) @ self.item_vectors.T
        return scores

    def times(self, vectors: Floats) -> Floats:
        """Return `item_map @ item_vectors.T @ vectors`. Both `vectors` and the result have the shape (n_items, n)."""
        product: Floats = self.item_map @ (self.item_vectors.T @ vectors)
        return product

    def transposed_times(self, vectors: Floats) -> Floats:
        """Return `item_vectors @ item_map.T @ vectors`. Both `vectors` and the result have the shape (n_items, n)."""
        product: Floats = self.item_vectors @ (self.item_map.T @ vectors)
        return product

    def first(self, dim: int) -> LinearModel:
        """Return the model that consists of the first `dim` dimensions."""
        return LinearModel(self.item_map[:, :dim], self.item_vectors[:, :dim])


class ItemWeights(Protocol):
    """A linear model with item weights B, (n_items, n_items), which scores all items as `history @ B`.

    An implementation need not store B as a matrix.
    """

    @property
    def n_items(self) -> int:
        """Number of items, which is the number of rows and of columns of the item weights."""
        ...

    def scores(self, histories: Any) -> Floats:
        """Return the scores of all items, (n, n_items), for sparse histories of the same shape."""
        ...

    def times(self, vectors: Floats) -> Floats:
        """Return the product of the item weights, (n_items, n_items), and `vectors`, (n_items, dim)."""
        ...

    def transposed_times(self, vectors: Floats) -> Floats:
        """Return the product of the transposed item weights, (n_items, n_items), and `vectors`, (n_items, dim)."""
        ...


@dataclass(frozen=True, slots=True)
class DenseWeights:
    """A linear model whose item weights B are stored as a matrix.

    Parameters
    ----------
    weights
        The matrix B, (n_items, n_items) float32.
    """

    weights: Floats

    @property
    def n_items(self) -> int:
        """Number of items, which is the number of rows and of columns of the item weights."""
        return len(self.weights)

    def scores(self, histories: Any) -> Floats:
        """Return the scores of all items, (n, n_items), for sparse histories of the same shape."""
        return np.asarray(histories @ self.weights)

    def times(self, vectors: Floats) -> Floats:
        """Return the product of the item weights, (n_items, n_items), and `vectors`, (n_items, dim)."""
        product: Floats = self.weights @ vectors
        return product

    def transposed_times(self, vectors: Floats) -> Floats:
        """Return the product of the transposed item weights, (n_items, n_items), and `vectors`, (n_items, dim)."""
        product: Floats = self.weights.T @ vectors
        return product


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """A linear model whose item weights B are the sum of several models' item weights, each multiplied by a factor.

    Parameters
    ----------
    terms
        Pairs of a factor and a model, at least one.
    """

    terms: tuple[tuple[float, ItemWeights], ...]

    @property
    def n_items(self) -> int:
        """Number of items, which is the number of rows and of columns of the item weights."""
        return self.terms[0][1].n_items

    def scores(self, histories: Any) -> Floats:
        """Return the scores of all items, (n, n_items), for sparse histories of the same shape."""
        return _total(np.float32(factor) * model.scores(histories) for factor, model in self.terms)

    def times(self, vectors: Floats) -> Floats:
        """Return the product of the item weights, (n_items, n_items), and `vectors`, (n_items, dim)."""
        return _total(np.float32(factor) * model.times(vectors) for factor, model in self.terms)

    def transposed_times(self, vectors: Floats) -> Floats:
        """Return the product of the transposed item weights, (n_items, n_items), and `vectors`, (n_items, dim)."""
        return _total(np.float32(factor) * model.transposed_times(vectors) for factor, model in self.terms)


def _total(products: Iterable[Floats]) -> Floats:
    first, *others = products
    for other in others:
        first += other
    return first


WarmStart = LinearModel | ItemWeights
"""A closed-form model from which training can start. `reduce_rank` converts item weights to factors for training."""


def reduce_rank(linear: ItemWeights, importance: Floats, dim: int, generator: np.random.Generator) -> LinearModel:
    """Approximate an item-item model B by factors of width `dim`, except for the diagonal of B.

    The factors U (`item_map`) and V (`item_vectors`) minimise `sum_j importance_j * sum_(i != j) (B - U Vᵀ)_ji²`. The
    diagonal of B does not count, because items of the history are not recommended. The factors are computed by
    randomised subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4). Each iteration imputes the diagonal
    from the current approximation (Srebro & Jaakkola, "Weighted Low-Rank Approximations", ICML 2003).

    Parameters
    ----------
    linear
        The model to approximate. The imputed diagonal is added to the diagonal of the model, which should be 0 or
        small.
    importance
        Importance of the rows of B, positive, (n_items,) float32; see `row_importance`.
    dim
        Width of the factors; at most n_items.
    generator
        Source of the random basis.

    Returns
    -------
    LinearModel
        Factors whose dimensions are in descending order of importance, so that `LinearModel.first` returns a good
        narrower approximation.

    Examples
    --------
    >>> import scipy.sparse as sp
    >>> purchases = sp.csr_matrix(np.array([[1, 1, 0], [1, 1, 0], [0, 1, 1]], dtype=np.float32))
    >>> weights = DenseWeights(np.array([[0, 0.67, 0], [0.5, 0, 0.2], [0, 0.3, 0]], dtype=np.float32))
    >>> model = reduce_rank(weights, np.ones(3, np.float32), 3, np.random.default_rng(0))
    >>> bool(np.allclose(model.scores(purchases), weights.scores(purchases), atol=1e-5))
    True
    """
    weights = importance[:, None]
    basis = generator.standard_normal((linear.n_items, min(dim + OVERSAMPLING, linear.n_items)), dtype=np.float32)
    diagonal = np.zeros((linear.n_items, 1), dtype=np.float32)  # correction of the diagonal of B
    for step in range(IMPUTING_STEPS):
        mapped = linear.times(basis) + diagonal * basis
        if step > 0:  # the basis is orthonormal, so that the approximation is `mapped @ basis.T`
            change = np.vecdot(mapped, basis)[:, None] - diagonal
            diagonal += change
            mapped += change * basis
        mapped *= weights
        basis, _ = np.linalg.qr(linear.transposed_times(mapped) + diagonal * mapped)
    mapped = linear.times(basis) + diagonal * basis
    _, rotation = np.linalg.eigh(mapped.T @ (weights * mapped))
    rotation = rotation[:, ::-1][:, :dim]
    return LinearModel(mapped @ rotation, basis @ rotation)


def row_importance(histories: Any) -> Floats:
    """Return the importance that `reduce_rank` gives the row of each item, (n_items,) float32.

    The importance is the square root of the sum of the item's squared weights in the histories. Without the square
    root, rare items would be approximated badly. With equal importance for all items, frequent items would be
    approximated badly.

    Parameters
    ----------
    histories
        Weighted histories, sparse (n_users, n_items).
    """
    squares = np.asarray(histories.multiply(histories).sum(axis=0), dtype=np.float32).ravel()
    importance: Floats = np.sqrt(squares + np.float32(MIN_SHARE * squares.mean()))
    return importance if importance.any() else np.ones_like(importance)


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
        Factors that give the same scores. A dimension in which the user vectors or the item vectors are 0 is unchanged.

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


def _rms(vectors: Floats) -> Floats:
    mean: Floats = np.sqrt(np.mean(np.square(vectors), axis=0))
    return mean
