"""Fit the closed-form model of the selected hyperparameters.

The model is a linear autoencoder, to which item transitions and a low-rank spectral model can be added. Of the three
models, the autoencoder ranks best. On some data the sum ranks better still, because the models make errors on different
items. The scores of each addition are scaled to the standard deviation of the autoencoder's scores and multiplied by a
share, which validation selects.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from recsys.model.neumf import Floats
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.recipe import Hyperparameters
from recsys_train.model.autoencoder import MAX_EXACT_SIZE, invert_gram
from recsys_train.model.spectral import Exponents, spectral
from recsys_train.model.transitions import fit_transitions
from recsys_train.model.warm_start import DenseWeights, ItemWeights, LinearModel, WarmStart, WeightedSum

SPECTRUM_RANK: Final = 32
"""Width of the spectral model that is added to an autoencoder. 24 to 64 are equally good on validation parts of
MovieLens 100K; 16 and 128 are worse."""
SPECTRUM_EXPONENTS: Final = Exponents(user=0.3, item=0.4, score=0.3)
"""Normalisation of the added spectral model. With a share of 0.6, the model gains 2.6% on MovieLens 100K without times
(three folds). With an item exponent of 0.5, it gains 1.5% (five folds)."""
UNIT_PAIRS: Final = 4_000_000
"""User-item pairs whose scores determine the standard deviations of models and of popularity."""


def closed_form(
    train: Interactions, histories: Any, selected: Hyperparameters, dim: int, generator: np.random.Generator
) -> WarmStart:
    """Fit the closed-form model.

    The model is the autoencoder plus the selected additions. If `selected.linear` is None, it is the spectral model of
    width `dim` instead.

    Parameters
    ----------
    train
        The pairs, oldest first.
    histories
        All weighted histories, sparse (n_users, n_items). A sample of them determines the standard deviations to which
        the additions are scaled.
    generator
        Source of the sample and of the randomised decompositions.
    """
    matrix = train.to_matrix()
    if selected.linear is None:
        return spectral(matrix, dim, generator)
    base = invert_gram(matrix, selected.linear).model(selected.linear)
    return add_models(base, train, histories, selected, generator)


def add_models(
    base: ItemWeights, train: Interactions, histories: Any, selected: Hyperparameters, generator: np.random.Generator
) -> ItemWeights:
    """Return the autoencoder `base` plus the selected shares of item transitions and of a spectral model.

    `base` can be overwritten. The other parameters are those of `closed_form`.
    """
    if selected.transitions == 0 and selected.spectrum == 0:
        return base
    sample = sample_histories(histories, generator)
    spread = score_spread(base.scores(sample))
    terms: list[tuple[float, ItemWeights]] = [(1.0, base)]
    if selected.transitions > 0:
        transitions = fit_transitions(train, selected.decay)
        factor = share_factor(selected.transitions, spread, score_spread(transitions.scores(sample)))
        if isinstance(base, DenseWeights):
            base.weights[...] += np.float32(factor) * transitions.weights  # one product instead of two later
        else:
            terms.append((factor, transitions))
    if selected.spectrum > 0:
        model = blended_spectrum(train.to_matrix(), generator)
        terms.append((share_factor(selected.spectrum, spread, score_spread(model.scores(sample))), model))
    return WeightedSum(tuple(terms)) if len(terms) > 1 else base


def can_fit_transitions(n_items: int) -> bool:
    """Return whether the Gram matrix of the items is small enough for `fit_transitions`."""
    return n_items <= MAX_EXACT_SIZE


def blended_spectrum(matrix: Any, generator: np.random.Generator) -> LinearModel:
    """Fit the spectral model that is added to an autoencoder."""
    return spectral(matrix, min(SPECTRUM_RANK, matrix.shape[1]), generator, SPECTRUM_EXPONENTS)


def sample_histories(histories: Any, generator: np.random.Generator) -> Any:
    """Return random rows of `histories`, (n_users, n_items) sparse, with at most `UNIT_PAIRS` scores in total."""
    n_users, n_items = histories.shape
    return histories[np.sort(generator.permutation(n_users)[: max(1, UNIT_PAIRS // n_items)])]


def score_spread(scores: Floats) -> float:
    """Return the standard deviation of each user's scores, (n, n_items), averaged over the users."""
    return float(scores.std(axis=1).mean())


def share_factor(share: float, spread: float, other_spread: float) -> float:
    """Return the factor that scales scores from the standard deviation `other_spread` to `share * spread`."""
    return share * spread / other_spread if other_spread > 0 else 0.0


def log_popularity(train: Interactions) -> Floats:
    """Return the logarithm of one plus each item's count, scaled to a maximum of 1; (n_items,) float32."""
    logs = np.log1p(train.users_per_item())
    scaled: Floats = (logs / max(float(logs.max(initial=0.0)), 1.0)).astype(np.float32)
    return scaled


def popularity_unit(scores: Floats, popularity: Floats) -> float:
    """Return the factor that gives `popularity` (n_items,) the standard deviation of a user's scores (n, n_items)."""
    return share_factor(1.0, score_spread(scores), float(popularity.std()))
