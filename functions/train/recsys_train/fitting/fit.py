"""From interactions to a trained network: hold out, choose, fit, measure, fit again on everything."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.model.neumf import Dims, Floats, Network
from recsys.registry.records import Progress
from recsys_train.data.interactions import Int32s, Interactions
from recsys_train.fitting.evaluation import Quality, ScoreUsers, evaluate, lift_interval
from recsys_train.model.batches import Histories, final_histories
from recsys_train.model.network import NeuMF, Objective, Weighted, initial_weights
from recsys_train.model.warm_start import (
    MAX_EASE_ITEMS,
    ItemWeights,
    WarmStart,
    balance,
    calibrate,
    ease,
    reduce_rank,
    spectral,
    to_matrix,
)

OnProgress = Callable[[Progress], None]
"""Told how far a training is; what it raises ends the training."""

VALIDATION_PAIRS: Final = 100_000_000
"""About how many user-item pairs one validation scores; it bounds the number of users asked."""
TEST_PAIRS: Final = 150_000_000
"""The same for the final measurement."""
MAX_SELECTION_INTERACTIONS: Final = 3_000_000
"""Interactions that choices are made by and measured with; of more, those of some users are taken."""
MIN_SPLIT_USERS: Final = 20
MAX_SERVING_BYTES: Final = 256 * 1024**2
"""Of the embedding tables of a published model: half of what a recommending function keeps in memory by default."""
MIN_GMF_DIM: Final = 16
MAX_TABLE_BYTES: Final = 1024**3
"""Of the embedding tables in `model.h5`, users and items."""
CALIBRATING_BLOCKS: Final = 16


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """A step of training: `block` interactions and the `negatives` they share."""

    block: int
    negatives: int


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train; the defaults suit a shop of any size up to millions of interactions."""

    gmf_dim: int = 512
    """At most: as many as there are items, and fewer where the tables would be too large."""
    mlp_dim: int = 16
    hidden_dims: tuple[int, ...] = (8,)
    ridges: tuple[float, ...] = (50.0, 200.0, 800.0)
    """EASE's regularisation; validation chooses."""
    decays: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """How fast a history is forgotten; validation chooses, 0 where the data has no times."""
    ordered: BatchSizes = BatchSizes(block=1024, negatives=256)
    unordered: BatchSizes = BatchSizes(block=8192, negatives=2048)
    """Where the order of histories says nothing: negatives then meet one vector a user, not one an interaction."""
    learning_rate: float = 0.003
    negative_weight: float = 16.0
    max_epochs: int = 3
    patience: int = 2
    """Epochs without a better validation NDCG before training stops; the first may lose what the next ones win."""

    def to_json(self) -> dict[str, Any]:
        """The recipe as it stands in `metrics.json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """What validation chose."""

    ridge: float
    decay: float
    epochs: int = 0


@dataclass(frozen=True, slots=True)
class FitResult:
    """A network trained on all interactions, and how the same recipe did with one of each user's held out.

    `quality` and `popularity` are means over the `evaluated_users`, who had no part in any choice (where fewer than
    `MIN_SPLIT_USERS` have something held out, the same users serve both), of a network trained on
    `measured_interactions`.
    """

    dims: Dims
    weights: dict[str, Floats]
    quality: Quality
    popularity: Quality
    lift_interval: tuple[float, float] | None
    evaluated_users: int
    measured_interactions: int
    choice: Hyperparameters
    fit_s: float


def fit(
    interactions: Interactions,
    recipe: Recipe,
    *,
    seed: int,
    budget_s: float,
    on_progress: OnProgress,
    has_times: bool = True,
) -> FitResult:
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
    train, held_out = _subsample_users(train, held_out, seed)
    validation, test = _split_validation_test(
        held_out,
        n_validation=max(50, VALIDATION_PAIRS // train.n_items),
        n_test=max(500, TEST_PAIRS // train.n_items),
        seed=seed,
    )
    decays = recipe.decays if has_times else (0.0,)

    on_progress(Progress("choosing"))
    choice, linear = _choose(train, validation, recipe, decays)
    on_progress(Progress("fitting"))
    best = _Best()
    started_epochs = time.monotonic()
    for epoch, loss, model in epochs(train, recipe, choice, seed, deadline=started + budget_s / 2, linear=linear):
        dims, weights = model.dims, model.weights()
        score_users = _score_users(dims, weights, choice.decay, train)
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

    del linear, model  # memory that the second fit wants
    on_progress(Progress("evaluating"))
    counts = train.users_per_item().astype(np.float32)
    ours = evaluate(_score_users(dims, best.weights, choice.decay, train), train, test, seed=seed)
    popularity = evaluate(lambda users: np.tile(counts, (len(users), 1)), train, test, seed=seed)

    on_progress(Progress("refitting"))
    for epoch, loss, model in epochs(interactions, recipe, choice, seed, deadline=started + budget_s):
        if epoch > 0:
            on_progress(Progress("refitting", epoch, best.epoch, loss))
        if epoch == best.epoch or time.monotonic() > started + budget_s:
            dims, weights = model.dims, model.weights()  # of all users' data, whose rank may be another
            break
    choice = Hyperparameters(choice.ridge, choice.decay, epoch)
    fit_s = round(time.monotonic() - started, 3)
    return FitResult(
        dims,
        weights,
        ours.quality(),
        popularity.quality(),
        lift_interval(ours, popularity, seed=seed),
        len(test),
        len(train),
        choice,
        fit_s,
    )


def _score_users(dims: Dims, weights: dict[str, Floats], decay: float, train: Interactions) -> ScoreUsers:
    """Logits of the served network, for the users of `train`."""
    network = Network.from_weights(dims, weights, decay=decay)
    starts, items = train.items_by_user()
    return lambda users: score_histories(network, [items[starts[user] : starts[user + 1]] for user in users])


def score_histories(network: Network, histories: list[Int32s]) -> Floats:
    """(len(histories), n_items) logits; as `Network.logits`, the GMF half in one product."""
    users = [network.user(history) for history in histories]
    logits: Floats = np.stack([user.gmf for user in users]) @ network.item_gmf.T
    for row, user in enumerate(users):
        logits[row] += network.mlp_parts(user.mlp) + network.output_bias
    return logits


def _split_validation_test(
    held_out: Interactions, *, n_validation: int, n_test: int, seed: int
) -> tuple[Interactions, Interactions]:
    """At most so many users to choose by, and others to measure on; too few to share are used for both."""
    if len(held_out) < MIN_SPLIT_USERS:
        return held_out, held_out
    order = np.random.default_rng(seed).permutation(len(held_out))
    n_validation = min(len(held_out) // 2, n_validation)
    return (
        held_out[np.sort(order[:n_validation])],
        held_out[np.sort(order[n_validation : n_validation + n_test])],
    )


def _subsample_users(train: Interactions, held_out: Interactions, seed: int) -> tuple[Interactions, Interactions]:
    """Return both parts restricted to random users, so that about `MAX_SELECTION_INTERACTIONS` interactions remain."""
    share = MAX_SELECTION_INTERACTIONS / max(1, len(train))
    if share >= 1:
        return train, held_out
    is_drawn = np.random.default_rng(seed).random(train.n_users) < share
    return train[is_drawn[train.users]], held_out[is_drawn[held_out.users]]


def _choose(
    train: Interactions, validation: Interactions, recipe: Recipe, decays: tuple[float, ...]
) -> tuple[Hyperparameters, WarmStart]:
    """The warm start's regularisation and how fast histories are forgotten, by validation NDCG of the linear model."""
    matrix = to_matrix(train)
    users = validation.users
    row_of = dict(zip(users.tolist(), range(len(users)), strict=True))
    asked = train[np.isin(train.users, users)]
    histories = {decay: final_histories(asked, decay)[users] for decay in decays}
    best, best_ndcg = None, -1.0
    for ridge in recipe.ridges if train.n_items <= MAX_EASE_ITEMS else (0.0,):
        linear = _linear(matrix, ridge, recipe, np.random.default_rng(0))
        if best is None and len(decays) == 1 and train.n_items > MAX_EASE_ITEMS:
            return Hyperparameters(ridge, decays[0]), linear  # there is nothing to choose
        for decay, rows in histories.items():
            scores = partial(_rows_of_users, linear.scores(rows), row_of)
            ndcg = evaluate(scores, train, validation, seed=0).quality().ndcg_at_20
            if best is None or ndcg > best_ndcg:
                best, best_ndcg = (Hyperparameters(ridge, decay), linear), ndcg
    assert best is not None, "a recipe has ridges and decays"
    return best


def _rows_of_users(scores: Floats, row_of: dict[int, int], users: NDArray[np.integer]) -> Floats:
    rows: Floats = scores[[row_of[user] for user in users.tolist()]]
    return rows


def _linear(matrix: Any, ridge: float, recipe: Recipe, generator: np.random.Generator) -> WarmStart:
    """EASE where the catalogue allows it, otherwise spectral, to which `ridge` means nothing."""
    n_items = matrix.shape[1]
    if n_items > MAX_EASE_ITEMS:
        return spectral(matrix, _gmf_dim(recipe, *matrix.shape), generator)
    return ease(matrix, ridge)


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
    train: Interactions,
    recipe: Recipe,
    choice: Hyperparameters,
    seed: int,
    *,
    deadline: float,
    linear: WarmStart | None = None,
) -> Iterator[tuple[int, float | None, NeuMF]]:
    """Start from the linear model and train without end: `(epoch, mean loss, network)`, first as it starts (epoch 0).

    After `deadline` (of `time.monotonic`) a pass over the histories ends where it is. `linear` is the model of `train`
    with `choice.ridge`, if it is there already.
    """
    generator = np.random.default_rng(seed)
    model = _initial_network(train, recipe, choice, linear, generator)
    histories = Histories.of(train, ordered=choice.decay > 0)
    steps = recipe.ordered if histories.ordered else recipe.unordered
    objective = Objective(recipe.learning_rate, recipe.negative_weight)
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


def _initial_network(
    train: Interactions,
    recipe: Recipe,
    choice: Hyperparameters,
    linear: WarmStart | None,
    generator: np.random.Generator,
) -> NeuMF:
    """A network that ranks as the linear model does."""
    final = final_histories(train, choice.decay)
    linear = linear or _linear(to_matrix(train), choice.ridge, recipe, generator)
    if isinstance(linear, ItemWeights):
        start = reduce_rank(linear, final, _gmf_dim(recipe, train.n_users, train.n_items), generator)
    else:
        start = linear
    start = balance(start, final @ start.item_map)
    dims = Dims(train.n_users, train.n_items, start.item_map.shape[1], recipe.mlp_dim, recipe.hidden_dims)
    weights = initial_weights(dims, start.item_map, start.item_vectors, generator)
    return NeuMF(dims, weights, decay=choice.decay)


def _calibrate(
    model: NeuMF, histories: Histories, steps: BatchSizes, objective: Objective, generator: np.random.Generator
) -> None:
    """Turn the linear model's scores into logits, by some blocks of the data."""
    blocks = itertools.islice(histories.blocks(steps.block, generator), CALIBRATING_BLOCKS)
    n_items = model.dims.n_items
    asked = [model.logits(block, generator.integers(0, n_items, steps.negatives, dtype=np.int32)) for block in blocks]
    if asked:
        positives, negatives = (_joined(side) for side in zip(*asked, strict=True))
        model.calibrate(*calibrate(positives, negatives, objective.negative_weight))


def _joined(parts: Sequence[Weighted]) -> Weighted:
    """All logits, flat, each with its own weight."""
    logits = np.concatenate([one.ravel() for one, _ in parts])
    return logits, np.concatenate([np.repeat(weights, one.size // len(weights)) for one, weights in parts])
