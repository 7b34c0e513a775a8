"""The peers: published methods, with settings from a grid that are selected on the validation part.

They share no code with our model. Histories are binary unless a peer's docstring says otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Final, Protocol

import numpy as np
import scipy.linalg
import scipy.sparse as sp

from recsys_train.data.interactions import Interactions
from tests.benchmarks.protocol import DataSet, Floats, ScoredInteractions, Scores, measure

MAX_DOUBLE_ITEMS: Final = 8_000
"""EASE inverts larger matrices in single precision: 25,000 items then take about 6 GB."""

Settings = dict[str, Any]
Grid = Mapping[str, tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Fit:
    """A fitted peer.

    `n_pairs` is the number of (user, item) pairs that it processed, or None if it does not train pair by pair.
    """

    scores: Scores
    n_pairs: int | None = None


class Peer(Protocol):
    """A method for one training part."""

    grid: ClassVar[Grid]
    is_random: ClassVar[bool]

    def __init__(self, train: Interactions) -> None: ...

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Fit with one value for every name in `grid`."""


def choose(peer: type[Peer], data: DataSet) -> Settings:
    """Select the settings with the best NDCG@20 on the validation part."""
    validation = data.validation()
    fitted = peer(validation.train)
    return climb(peer.grid, lambda settings: measure(fitted.fit(settings, 0).scores, validation).ndcg_at_20)


def climb(grid: Grid, value: Callable[[Settings], float]) -> Settings:
    """Maximise over a grid by coordinate ascent.

    Start in the middle of each setting and change one setting at a time until no single change improves the value. No
    combination is evaluated twice.
    """
    known: dict[tuple[Any, ...], float] = {}

    def value_of(settings: Settings) -> float:
        key = tuple(settings.values())
        if key not in known:
            known[key] = value(settings)
        return known[key]

    best = {name: choices[len(choices) // 2] for name, choices in grid.items()}
    while True:
        previous = best
        for name, choices in grid.items():
            best = max([best, *({**best, name: choice} for choice in choices)], key=value_of)
        if best == previous:
            return best


class Popularity:
    """Rank items by the number of users who interacted with them."""

    grid: ClassVar[Grid] = {}
    is_random: ClassVar[bool] = False

    def __init__(self, train: Interactions) -> None:
        self._counts = train.users_per_item().astype(np.float32)

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Return the counts; there is nothing to fit."""
        return Fit(lambda users: np.tile(self._counts, (len(users), 1)))


class Bpr:
    """Matrix factorisation by Bayesian personalised ranking (Rendle et al., UAI 2009), as in `implicit`."""

    grid: ClassVar[Grid] = {
        "factors": (32, 64, 128),
        "learning_rate": (0.01, 0.05, 0.1),
        "regularization": (0.001, 0.01, 0.1),
        "iterations": (50, 100, 300),
    }
    is_random: ClassVar[bool] = True

    def __init__(self, train: Interactions) -> None:
        self._matrix = to_matrix(train)

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Fit by stochastic gradient descent; each step uses a positive and a negative pair."""
        from implicit.cpu.bpr import BayesianPersonalizedRanking  # noqa: PLC0415  # only `make bench-train` installs it

        model = BayesianPersonalizedRanking(**settings, random_state=seed)
        model.fit(self._matrix, show_progress=False)
        return Fit(_product(model.user_factors, model.item_factors), 2 * self._matrix.nnz * settings["iterations"])


class Als:
    """Weighted matrix factorisation by alternating least squares (Hu, Koren & Volinsky 2008), as in `implicit`.

    The confidence of a pair is `1 + alpha * strength`. The strength is 1 or `log(1 + interaction_score)`, whichever
    ranks better.
    """

    grid: ClassVar[Grid] = {
        "alpha": (1.0, 5.0, 20.0, 40.0),
        "regularization": (0.1, 1.0, 10.0, 30.0, 100.0),
        "factors": (64, 128, 256),
        "strength": ("log score", "one"),
    }
    is_random: ClassVar[bool] = True

    def __init__(self, train: Interactions) -> None:
        assert isinstance(train, ScoredInteractions)
        self._ones = to_matrix(train)
        self._logs = to_matrix(train, np.log1p(train.scores))

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Fit by 15 rounds of conjugate gradients, the default of `implicit`."""
        from implicit.cpu.als import AlternatingLeastSquares  # noqa: PLC0415  # only `make bench-train` installs it
        from threadpoolctl import threadpool_limits  # noqa: PLC0415  # slow to import, and not every part needs it

        rest = dict(settings)
        matrix = self._ones if rest.pop("strength") == "one" else self._logs
        with threadpool_limits(1, "blas"):  # otherwise implicit warns that its threads compete with those of BLAS
            model = AlternatingLeastSquares(**rest, random_state=seed)
            model.fit(matrix, show_progress=False)
        return Fit(_product(model.user_factors, model.item_factors))


class Ease:
    """Embarrassingly shallow autoencoder (Steck, WWW 2019, equation 8): `B = I - P / diag(P)`, `P = (XᵀX + λI)⁻¹`."""

    grid: ClassVar[Grid] = {"ridge": (5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0)}
    is_random: ClassVar[bool] = False

    def __init__(self, train: Interactions) -> None:
        self._matrix = to_matrix(train)
        self._weights: tuple[float, Floats] | None = None

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Fit in closed form."""
        weights = self._weights_for(settings["ridge"])
        return Fit(lambda users: np.asarray(self._matrix[users] @ weights))

    def _weights_for(self, ridge: float) -> Floats:
        """Cache the latest weights, because `EaseRecent` needs them for every decay."""
        if self._weights is None or self._weights[0] != ridge:
            precision = np.float64 if self._matrix.shape[1] <= MAX_DOUBLE_ITEMS else np.float32
            gram = (self._matrix.T @ self._matrix).toarray().astype(precision, copy=False)
            gram[np.diag_indices_from(gram)] += precision(ridge)
            inverse = scipy.linalg.inv(gram, assume_a="pos", overwrite_a=True)
            weights = (inverse / -np.diag(inverse)).astype(np.float32)
            np.fill_diagonal(weights, 0.0)
            self._weights = (ridge, weights)
        return self._weights[1]


class EaseRecent(Ease):
    """EASE whose histories are weighted by recency: `(1 + r) ** -decay` for the item r positions before the end.

    This is not a published method. It shows how much of our lead over EASE comes from recency alone.
    """

    grid: ClassVar[Grid] = {**Ease.grid, "decay": (0.0, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)}

    def __init__(self, train: Interactions) -> None:
        super().__init__(train)
        self._starts, self._items = train.items_by_user()

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Fit EASE; only the histories that are scored are weighted."""
        weights = self._weights_for(settings["ridge"])
        return Fit(lambda users: np.asarray(self.histories(users, settings["decay"]) @ weights))

    def histories(self, users: Any, decay: float) -> Any:
        """Return the weighted histories, sparse (len(users), n_items) float32."""
        rows = [self._items[self._starts[user] : self._starts[user + 1]] for user in users]
        starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
        weights = [np.arange(len(row), 0, -1, dtype=np.float32) ** -decay for row in rows]
        shape = (len(rows), self._matrix.shape[1])
        return sp.csr_matrix((np.concatenate(weights), np.concatenate(rows), starts), shape=shape)


class EaseAndAls:
    """The sum of EASE's and ALS's scores, each standardised per user: an ensemble without weights to fit."""

    grid: ClassVar[Grid] = Ease.grid | Als.grid
    is_random: ClassVar[bool] = True

    def __init__(self, train: Interactions) -> None:
        self._parts = Ease(train), Als(train)

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Fit both."""
        fits = [part.fit({name: settings[name] for name in part.grid}, seed) for part in self._parts]
        return Fit(lambda users: sum(_standardised(fit.scores(users)) for fit in fits))


class GfCf:
    """Linear filter over the item graph plus ideal low-pass filter (Shen et al., CIKM 2021, equation 10).

    `x R̃ᵀR̃ + strength * x D^-½ V Vᵀ D^½` with `R̃ = D_u^-½ R D^-½` and its leading right singular vectors V. The
    paper uses 256 of them and a strength of 0.3.
    """

    grid: ClassVar[Grid] = {"rank": (32, 64, 128, 256, 512), "strength": (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)}
    is_random: ClassVar[bool] = False

    def __init__(self, train: Interactions) -> None:
        self._matrix = to_matrix(train)
        self._item_root = _root(self._matrix.sum(axis=0))
        user_root = _root(self._matrix.sum(axis=1))
        self._normalised = sp.csr_matrix(sp.diags(1 / user_root) @ self._matrix @ sp.diags(1 / self._item_root))

    def fit(self, settings: Settings, seed: int) -> Fit:
        """Fit in closed form, by a sparse singular value decomposition."""
        vectors, strength = self._vectors[:, : settings["rank"]], settings["strength"]
        into, out = vectors / self._item_root[:, None], (vectors * self._item_root[:, None]).T

        def scores(users: Any) -> Floats:
            rows = self._matrix[users]
            graph = ((rows @ self._normalised.T) @ self._normalised).toarray()
            return np.asarray(graph + strength * (rows @ into) @ out, dtype=np.float32)

        return Fit(scores)

    @cached_property
    def _vectors(self) -> Floats:
        rank = min(max(self.grid["rank"]), min(self._normalised.shape) - 1)
        start = np.ones(min(self._normalised.shape), dtype=np.float32)
        _, values, vectors = sp.linalg.svds(self._normalised, k=rank, v0=start)
        return np.ascontiguousarray(vectors[np.argsort(-values)].T)


def to_matrix(train: Interactions, strengths: Floats | None = None) -> Any:
    """Return the pairs as a sparse matrix (n_users, n_items) float32, with ones or with the pairs' strengths."""
    values = np.ones(len(train), dtype=np.float32) if strengths is None else strengths
    return sp.csr_matrix((values, (train.users, train.items)), shape=(train.n_users, train.n_items))


def _product(user_factors: Floats, item_factors: Floats) -> Scores:
    def scores(users: Any) -> Floats:
        return np.asarray(user_factors[users] @ item_factors.T, dtype=np.float32)

    return scores


def _standardised(scores: Floats) -> Floats:
    spread = scores.std(axis=1, keepdims=True)
    result: Floats = (scores - scores.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
    return result


def _root(counts: Any) -> Floats:
    return np.sqrt(np.maximum(np.asarray(counts, dtype=np.float32).ravel(), 1.0))
