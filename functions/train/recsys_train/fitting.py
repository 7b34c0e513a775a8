"""From interactions to a trained network: hold out, choose, fit, measure, fit again on everything."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.neumf import Dims, Floats, Network
from recsys.registry.records import Progress
from recsys_train.evaluation import Quality, ScoreUsers, evaluate, lift_interval
from recsys_train.histories import Histories, final_histories
from recsys_train.interactions import Int32s, Interactions
from recsys_train.network import NeuMF, Objective, Weighted, initial_weights
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

VALIDATION_PAIRS: Final = 50_000_000
"""About how many user-item pairs one validation scores; it bounds the number of users asked."""
MEASURED_PAIRS: Final = 150_000_000
"""The same for the final measurement."""
MIN_SHARED_USERS: Final = 20
MAX_SERVING_BYTES: Final = 256 * 1024**2
"""Of the embedding tables of a published model: half of what a recommending function keeps in memory by default."""
MIN_GMF_DIM: Final = 16
MAX_TABLE_BYTES: Final = 1024**3
"""Of the embedding tables in `model.h5`, users and items."""
CALIBRATING_BLOCKS: Final = 16


@dataclass(frozen=True, slots=True)
class Steps:
    """A step of training: `block` interactions, the `negatives` they share, and Adam's learning rate."""

    block: int
    negatives: int
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the defaults suit a shop of any size up to millions of interactions."""

    gmf_dim: int = 512
    """At most: as many as there are items, and fewer where the tables would be too large."""
    mlp_dim: int = 16
    hidden_dims: tuple[int, ...] = (16, 8)
    ridges: tuple[float, ...] = (50.0, 200.0, 800.0)
    """EASE's regularisation; validation chooses."""
    decays: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """How fast a history is forgotten; validation chooses, 0 where the data has no times."""
    ordered: Steps = Steps(block=1024, negatives=256, learning_rate=0.003)
    unordered: Steps = Steps(block=8192, negatives=2048, learning_rate=0.001)
    """Where the order of histories says nothing: negatives then meet one vector a user, not one an interaction."""
    negative_weight: float = 16.0
    max_epochs: int = 3
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
    lift_interval: tuple[float, float] | None
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
    for epoch, loss, model in epochs(train, recipe, choice, seed, deadline=started + budget_s / 2):
        dims, weights = model.dims, model.weights()
        score_users = _scorer(dims, weights, choice.decay, train)
        ndcg = evaluate(score_users, train, validation, seed=seed).quality().ndcg_at_20
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
    ours = evaluate(_scorer(dims, best.weights, choice.decay, train), train, test, seed=seed)
    popularity = evaluate(lambda users: np.tile(counts, (len(users), 1)), train, test, seed=seed)

    for epoch, loss, model in epochs(interactions, recipe, choice, seed, deadline=started + budget_s):
        if epoch > 0:
            on_progress(Progress("refitting", epoch, best.epoch, loss))
        if epoch == best.epoch or time.monotonic() > started + budget_s:
            dims, weights = model.dims, model.weights()  # of all users' data, whose rank may be another
            break
    choice = Choice(choice.ridge, choice.decay, epoch)
    fit_s = round(time.monotonic() - started, 3)
    return Fitted(
        dims,
        weights,
        ours.quality(),
        popularity.quality(),
        lift_interval(ours, popularity, seed=seed),
        len(test),
        choice,
        fit_s,
    )


def _scorer(dims: Dims, weights: dict[str, Floats], decay: float, train: Interactions) -> ScoreUsers:
    """Logits of the served network, for the users of `train`."""
    network = Network.from_weights(dims, weights, decay=decay)
    starts, items = train.items_by_user()
    return lambda users: score_histories(network, [items[starts[user] : starts[user + 1]] for user in users])


def score_histories(network: Network, histories: list[Int32s]) -> Floats:
    """(len(histories), n_items) logits; as `Network.logits`, the GMF half in one product."""
    users = [network.user(history) for history in histories]
    logits: Floats = np.stack([user.gmf for user in users]) @ network.gmf_item.T
    for row, user in enumerate(users):
        logits[row] += network.mlp_outputs(user.mlp + network.mlp_item) + network.output_bias
    return logits


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
    if train.n_items > MAX_EASE_ITEMS and len(decays) == 1:
        return Choice(0.0, decays[0])
    matrix = to_matrix(train)
    users = validation.users
    row_of = dict(zip(users.tolist(), range(len(users)), strict=True))
    histories = {decay: final_histories(train, decay)[users] for decay in decays}
    best, best_ndcg = Choice(recipe.ridges[0], decays[0]), -1.0
    for ridge, score in _linear_scorers(matrix, recipe):
        for decay, rows in histories.items():
            scores = score(rows)
            ranks = evaluate(partial(_rows_of_users, scores, row_of), train, validation, seed=0)
            ndcg = ranks.quality().ndcg_at_20
            if ndcg > best_ndcg:
                best, best_ndcg = Choice(ridge, decay), ndcg
    return best


def _rows_of_users(scores: Floats, row_of: dict[int, int], users: NDArray[np.integer]) -> Floats:
    rows: Floats = scores[[row_of[user] for user in users.tolist()]]
    return rows


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
    served = MAX_SERVING_BYTES // (2 * 4 * n_items) - recipe.hidden_dims[0]  # each item as had and as ranked
    stored = MAX_TABLE_BYTES // (4 * (n_users + n_items)) - recipe.mlp_dim
    return min(recipe.gmf_dim, n_items, max(MIN_GMF_DIM, min(served, stored)))


@dataclass(slots=True)
class _Best:
    epoch: int = 0
    ndcg: float = -1.0
    weights: dict[str, Floats] = field(default_factory=dict)

    def offer(self, epoch: int, ndcg: float, weights: dict[str, Floats]) -> None:
        if ndcg > self.ndcg and all(np.isfinite(values).all() for values in weights.values()):
            self.epoch, self.ndcg, self.weights = epoch, ndcg, weights


def epochs(
    train: Interactions, recipe: Recipe, choice: Choice, seed: int, *, deadline: float
) -> Iterator[tuple[int, float | None, NeuMF]]:
    """Start from the linear model and train without end: `(epoch, mean loss, network)`, first as it starts (epoch 0).

    After `deadline` (of `time.monotonic`) a pass over the histories ends where it is.
    """
    generator = np.random.default_rng(seed)
    final = final_histories(train, choice.decay)
    linear = _linear_model(to_matrix(train), final, choice.ridge, recipe, generator)
    linear = balance(linear, final @ linear.item_map)
    dims = Dims(train.n_users, train.n_items, linear.item_map.shape[1], recipe.mlp_dim, recipe.hidden_dims)
    weights = initial_weights(dims, linear.item_map, linear.item_vectors, generator)
    model = NeuMF(dims, weights, decay=choice.decay)
    histories = Histories.of(train, ordered=choice.decay > 0)
    steps = recipe.ordered if histories.ordered else recipe.unordered
    objective = Objective(steps.learning_rate, recipe.negative_weight)
    _calibrate(model, histories, steps, objective, generator)
    yield 0, None, model
    for epoch in itertools.count(1):
        losses = []
        for block in histories.blocks(steps.block, generator):
            negatives = generator.integers(0, train.n_items, steps.negatives, dtype=np.int32)
            losses.append(model.train_block(block, negatives, objective))
            if time.monotonic() > deadline:
                break
        yield epoch, float(np.mean(losses)) if losses else None, model


def _calibrate(
    model: NeuMF, histories: Histories, steps: Steps, objective: Objective, generator: np.random.Generator
) -> None:
    """Turn the linear model's scores into logits, by some blocks of the data."""
    blocks = itertools.islice(histories.blocks(steps.block, generator), CALIBRATING_BLOCKS)
    n_items = model.dims.n_items
    asked = [model.logits(block, generator.integers(0, n_items, steps.negatives, dtype=np.int32)) for block in blocks]
    if asked:
        positives, negatives = (_joined(side) for side in zip(*asked, strict=True))
        model.calibrate(*calibrate(positives, negatives, objective.negative_weight))


def _joined(parts: Iterable[Weighted]) -> Weighted:
    """All logits, flat, each with its own weight."""
    logits, weights = zip(*parts, strict=True)
    spread = [
        np.broadcast_to(some[:, None], one.shape) if one.ndim == 2 else some for one, some in zip(logits, weights)
    ]
    return np.concatenate([one.ravel() for one in logits]), np.concatenate([some.ravel() for some in spread])
