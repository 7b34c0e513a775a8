"""From interactions to a trained network: hold out, choose, fit, measure, fit again on everything."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np

from recsys.neumf import Dims, Floats, Network
from recsys.registry.records import Progress
from recsys_train.evaluation import Quality, ScoreItems, evaluate
from recsys_train.histories import Examples, final_histories, make_examples
from recsys_train.interactions import Interactions
from recsys_train.network import NeuMF, Objective, initial_weights, with_user_tables
from recsys_train.tensorflow import tf
from recsys_train.warm_start import (
    MAX_EASE_ITEMS,
    LinearModel,
    balance,
    calibrate,
    ease,
    reduce_rank,
    spectral,
    to_matrix,
)

OnProgress = Callable[[Progress], None]
"""Told how far a training is; what it raises ends the training."""

VALIDATION_PAIRS: Final = 8_000_000
"""About how many user-item pairs one validation scores; it bounds the number of users asked."""
MEASURED_PAIRS: Final = 40_000_000
"""The same for the final measurement."""
MIN_SHARED_USERS: Final = 20
MAX_SERVING_BYTES: Final = 256 * 1024**2
"""Of the embedding tables of a published model: half of what a recommending function keeps in memory by default."""
MIN_GMF_DIM: Final = 16
BLOCKS_PER_CALL: Final = 64
SAMPLED_EXAMPLES: Final = 20_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the defaults suit a shop of any size up to millions of interactions."""

    gmf_dim: int = 512
    """At most; large catalogues get `large_gmf_dim`, small ones as many as they have items."""
    large_gmf_dim: int = 256
    mlp_dim: int = 32
    hidden_dims: tuple[int, ...] = (32, 16)
    ridges: tuple[float, ...] = (50.0, 200.0, 800.0)
    """EASE's regularisation; validation chooses."""
    decays: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """How fast a history is forgotten; validation chooses, 0 where the data has no times."""
    block: int = 512
    """Positives per step."""
    negatives: int = 128
    """Negatives a block shares."""
    objective: Objective = field(default_factory=lambda: Objective(learning_rate=0.0005, negative_weight=16.0))
    max_epochs: int = 8
    patience: int = 1
    """Epochs without a better validation NDCG before training stops."""

    def to_json(self) -> dict[str, Any]:
        """The recipe as it stands in `metrics.json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Choice:
    """What validation chose."""

    ridge: float
    decay: float
    epochs: int = 0


@dataclass(frozen=True, slots=True)
class Fitted:
    """A network trained on all interactions, and how the same recipe did with one of each user's held out.

    `quality` and `popularity` are means over the `evaluated_users`, who had no part in any choice (where fewer than
    `MIN_SHARED_USERS` have something held out, the same users serve both).
    """

    dims: Dims
    weights: dict[str, Floats]
    quality: Quality
    popularity: Quality
    evaluated_users: int
    choice: Choice
    fit_s: float


def fit(
    interactions: Interactions,
    recipe: Recipe,
    *,
    seed: int,
    budget_s: float,
    on_progress: OnProgress,
    has_times: bool = True,
) -> Fitted:
    """Train on `interactions`.

    Parameters
    ----------
    budget_s
        After half of it at the latest the search for the number of epochs ends with the best so far; what is left is
        for measuring and for the second fit, which ends in mid-epoch when it is over.
    has_times
        Whether the order of the interactions is that of time. Without it histories are not forgotten, and what is held
        out is drawn: the last line of a user in a sorted file is no sample of anything.
    """
    started = time.monotonic()
    train, held_out = interactions.split_last() if has_times else interactions.split_random(np.random.default_rng(seed))
    validation, test = _share(
        held_out,
        n_validation=max(50, VALIDATION_PAIRS // train.n_items),
        n_test=max(500, MEASURED_PAIRS // train.n_items),
        seed=seed,
    )
    decays = recipe.decays if has_times else (0.0,)

    on_progress(Progress("choosing"))
    choice = _choose(train, validation, recipe, decays)
    best = _Best()
    started_epochs = time.monotonic()
    for epoch, loss, fitting in _epochs(train, recipe, choice, seed, deadline=started + budget_s / 2):
        dims, weights = fitting.dims, fitting.weights()
        score_items = _scorer(dims, weights, choice.decay, train)
        ndcg = evaluate(score_items, train, validation, seed=seed).ndcg_at_20
        best.offer(epoch, ndcg, weights)
        if epoch > 0:
            on_progress(Progress("fitting", epoch, recipe.max_epochs, loss, ndcg))
        if epoch >= best.epoch + recipe.patience or epoch == recipe.max_epochs:
            break
        # What is chosen must be trained again: one more epoch here may cost as much as all so far, and one more, there.
        now = time.monotonic()
        if now + (now - started_epochs) * (epoch + 2) / (epoch + 1) > started + budget_s:
            break

    on_progress(Progress("evaluating"))
    counts = train.users_per_item().astype(np.float32)
    quality = evaluate(_scorer(dims, best.weights, choice.decay, train), train, test, seed=seed)
    popularity = evaluate(lambda _user: counts, train, test, seed=seed)

    for epoch, loss, fitting in _epochs(interactions, recipe, choice, seed, deadline=started + budget_s):
        if epoch > 0:
            on_progress(Progress("refitting", epoch, best.epoch, loss))
        if epoch == best.epoch or time.monotonic() > started + budget_s:
            weights = fitting.weights()
            break
    choice = Choice(choice.ridge, choice.decay, epoch)
    fit_s = round(time.monotonic() - started, 3)
    return Fitted(dims, weights, quality, popularity, len(test), choice, fit_s)


def _scorer(dims: Dims, weights: dict[str, Floats], decay: float, train: Interactions) -> ScoreItems:
    """Logits of the served network, for the users of `train`."""
    network = Network.from_weights(dims, weights, decay=decay)
    starts, items = train.items_by_user()
    return lambda user: network.logits(network.user(items[starts[user] : starts[user + 1]]))


def _share(held_out: Interactions, *, n_validation: int, n_test: int, seed: int) -> tuple[Interactions, Interactions]:
    """At most so many users to choose by, and others to measure on; too few to share are used for both."""
    if len(held_out) < MIN_SHARED_USERS:
        return held_out, held_out
    order = np.random.default_rng(seed).permutation(len(held_out))
    n_validation = min(len(held_out) // 2, n_validation)
    return (
        held_out[np.sort(order[:n_validation])],
        held_out[np.sort(order[n_validation : n_validation + n_test])],
    )


def _choose(train: Interactions, validation: Interactions, recipe: Recipe, decays: tuple[float, ...]) -> Choice:
    """The warm start's regularisation and how fast histories are forgotten, by validation NDCG of the linear model."""
    matrix = to_matrix(train)
    users = validation.users
    row_of = dict(zip(users.tolist(), range(len(users)), strict=True))
    histories = {decay: final_histories(train, decay)[users] for decay in decays}
    best, best_ndcg = Choice(recipe.ridges[0], decays[0]), -1.0
    for ridge, score in _linear_scorers(matrix, recipe):
        for decay, rows in histories.items():
            scores = score(rows)
            ndcg = evaluate(partial(_row_of_user, scores, row_of), train, validation, seed=0).ndcg_at_20
            if ndcg > best_ndcg:
                best, best_ndcg = Choice(ridge, decay), ndcg
    return best


def _row_of_user(scores: Floats, row_of: dict[int, int], user: int) -> Floats:
    row: Floats = scores[row_of[user]]
    return row


def _linear_scorers(matrix: Any, recipe: Recipe) -> Iterator[tuple[float, Callable[[Any], Floats]]]:
    """The linear models to choose from: `(ridge, score)`, where `score(histories)` is (n, n_items)."""
    if matrix.shape[1] > MAX_EASE_ITEMS:
        model = spectral(matrix, _gmf_dim(recipe, *matrix.shape), np.random.default_rng(0))
        yield 0.0, lambda rows: (rows @ model.item_map) @ model.item_vectors.T
        return
    for ridge in recipe.ridges:
        weights = ease(matrix, ridge)
        yield ridge, partial(_product, weights)


def _product(weights: Floats, rows: Any) -> Floats:
    return np.asarray(rows @ weights)


def _linear_model(
    matrix: Any, histories: Any, ridge: float, recipe: Recipe, generator: np.random.Generator
) -> LinearModel:
    """The warm start: EASE cut down for these histories where the catalogue allows it, otherwise spectral."""
    n_items = matrix.shape[1]
    dim = _gmf_dim(recipe, *matrix.shape)
    if n_items > MAX_EASE_ITEMS:
        return spectral(matrix, dim, generator)
    return reduce_rank(ease(matrix, ridge), histories, dim, generator)


def _gmf_dim(recipe: Recipe, n_users: int, n_items: int) -> int:
    """The GMF's width: what the recipe wants, as far as the tables still fit into `MAX_SERVING_BYTES`."""
    wanted = recipe.gmf_dim if n_items <= MAX_EASE_ITEMS else recipe.large_gmf_dim
    floats_per_row = MAX_SERVING_BYTES // (4 * (n_users + n_items))
    return min(wanted, n_items, max(MIN_GMF_DIM, floats_per_row - recipe.hidden_dims[0]))


@dataclass(slots=True)
class _Best:
    epoch: int = 0
    ndcg: float = -1.0
    weights: dict[str, Floats] = field(default_factory=dict)

    def offer(self, epoch: int, ndcg: float, weights: dict[str, Floats]) -> None:
        if ndcg > self.ndcg and all(np.isfinite(values).all() for values in weights.values()):
            self.epoch, self.ndcg, self.weights = epoch, ndcg, weights


@dataclass(frozen=True, slots=True)
class _Fitting:
    """A network in training, and what makes embedding tables of it."""

    model: NeuMF
    item_map: Floats
    histories: Any

    @property
    def dims(self) -> Dims:
        return self.model.dims

    def weights(self) -> dict[str, Floats]:
        """As `dims.weight_shapes()` and `dims.map_shapes()` name them."""
        return with_user_tables(self.model.weights(), self.item_map, self.histories)


def _epochs(
    train: Interactions, recipe: Recipe, choice: Choice, seed: int, *, deadline: float
) -> Iterator[tuple[int, float | None, _Fitting]]:
    """Start from the linear model and train without end: `(epoch, mean loss, network)`, first as it starts (epoch 0).

    After `deadline` (of `time.monotonic`) a pass over the examples ends where it is.
    """
    generator = np.random.default_rng(seed)
    histories = final_histories(train, choice.decay)
    linear = _linear_model(to_matrix(train), histories, choice.ridge, recipe, generator)
    linear = balance(linear, histories @ linear.item_map)
    examples = make_examples(train, choice.decay, linear.item_map)
    slope, bias = _calibrate(examples, linear, recipe.objective.negative_weight, generator)
    # The slope goes into the histories and the items alike.
    examples = examples.scaled(slope**0.5)
    linear = LinearModel(linear.item_map * np.float32(slope**0.5), linear.item_vectors * np.float32(slope**0.5))
    vectors = np.asarray(histories @ linear.item_map, dtype=np.float32)
    dims = Dims(train.n_users, train.n_items, vectors.shape[1], recipe.mlp_dim, recipe.hidden_dims)
    rms = float(np.sqrt(np.mean(np.square(vectors)))) or 1.0
    model = NeuMF(dims, initial_weights(dims, linear.item_vectors, bias, rms, generator))
    fitting = _Fitting(model, linear.item_map, histories)
    train_blocks = tf.function(fitting.model.train_blocks, reduce_retracing=True)
    yield 0, None, fitting
    for epoch in itertools.count(1):
        losses = []
        for blocks in _blocks(examples, dims, recipe, generator):
            losses.append(float(train_blocks(*blocks, recipe.objective)))
            if time.monotonic() > deadline:
                break
        yield epoch, float(np.mean(losses)) if losses else None, fitting


def _calibrate(
    examples: Examples, linear: LinearModel, negative_weight: float, generator: np.random.Generator
) -> tuple[float, float]:
    n_examples, n_items = len(examples.targets), len(linear.item_vectors)
    if n_examples == 0:
        return 1.0, 0.0
    rows = generator.choice(n_examples, min(n_examples, SAMPLED_EXAMPLES), replace=False)
    vectors = examples.encode(rows)
    positives = np.einsum("nd,nd->n", vectors, linear.item_vectors[examples.targets[rows]])
    negatives = np.einsum("nd,nd->n", vectors, linear.item_vectors[generator.integers(0, n_items, len(rows))])
    return calibrate(positives, negatives, negative_weight)


def _blocks(
    examples: Examples, dims: Dims, recipe: Recipe, generator: np.random.Generator
) -> Iterator[tuple[Floats, Any, Any]]:
    """One pass over the examples in random order, some blocks at a time, each with its negatives."""
    n_examples = len(examples.targets)
    block = min(recipe.block, n_examples)
    if block == 0:
        return
    n_blocks = n_examples // block
    order = generator.permutation(n_examples)[: n_blocks * block].reshape(n_blocks, block)
    for start in range(0, n_blocks, BLOCKS_PER_CALL):
        rows = order[start : start + BLOCKS_PER_CALL]
        histories = examples.encode(rows.ravel()).reshape(*rows.shape, dims.gmf_dim)
        negatives = generator.integers(0, dims.n_items, (len(rows), recipe.negatives), dtype=np.int32)
        yield histories, examples.targets[rows], negatives
