"""Fit the closed-form model with the selected hyperparameters.

The model is a linear autoencoder, to which item transitions and a low-rank spectral model can be added. Of the three
models, the autoencoder ranks best. On some data, the sum ranks even better, because the models make errors on different
items. The scores of each added model are scaled to the standard deviation of the autoencoder's scores and multiplied by
a share, which validation selects. If there are too many users and items for an autoencoder, the closed-form model is a
spectral model alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import numpy as np

from recsys.model.neumf import Floats
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.recipe import Hyperparameters
from recsys_train.model.autoencoder import MAX_EXACT_SIZE, invert_gram
from recsys_train.model.spectral import SPECTRAL_EXPONENTS, Exponents, spectral
from recsys_train.model.transitions import fit_transitions
from recsys_train.model.warm_start import DenseWeights, ItemWeights, LinearModel, WarmStart, WeightedSum

SPECTRUM_RANK: Final = 32
"""Width of the spectral model that is added to an autoencoder. On validation parts of MovieLens 100K, widths from 24 to
64 are equally good; 16 and 128 are worse."""
SPECTRUM_EXPONENTS: Final = Exponents(user=0.3, item=0.4, score=0.3)
"""Normalisation of the added spectral model. With a share of 0.6, the model improves NDCG@20 on MovieLens 100K without
times by 2.6% (three folds). With an item exponent of 0.5, the improvement is 1.5% (five folds)."""
UNIT_PAIRS: Final = 4_000_000
"""Maximum number of user-item pairs whose scores determine the standard deviation of a model's scores."""


def closed_form(
    train: Interactions, histories: Any, selected: Hyperparameters, dim: int, generator: np.random.Generator
) -> WarmStart:
    """Fit the closed-form model with the hyperparameters `selected`.

    The model is the linear autoencoder plus the selected shares of item transitions and of a low-rank spectral model.
    If `selected.linear` is None, the model is a spectral model of width `dim` instead.

    Parameters
    ----------
    train
        The pairs, oldest first.
    histories
        All weighted histories, sparse (n_users, n_items). A sample of the histories determines the standard deviations
        of the models' scores.
    generator
        Source of the sample and of the randomised decompositions.
    """
    matrix = train.to_matrix()
    if selected.linear is None:
        return start_spectrum(matrix, dim, selected, generator)
    base = invert_gram(matrix, selected.linear).model(selected.linear)
    return add_models(base, train, histories, selected, generator)


def add_models(
    base: ItemWeights, train: Interactions, histories: Any, selected: Hyperparameters, generator: np.random.Generator
) -> ItemWeights:
    """Return the autoencoder `base` plus the selected shares of item transitions and of a spectral model.

    The function may overwrite `base`. The other parameters are those of `closed_form`.
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
            base.weights[...] += np.float32(factor) * transitions.weights  # saves one product per use of the model
        else:
            terms.append((factor, transitions))
    if selected.spectrum > 0:
        model = blended_spectrum(train.to_matrix(), generator)
        terms.append((share_factor(selected.spectrum, spread, score_spread(model.scores(sample))), model))
    return WeightedSum(tuple(terms)) if len(terms) > 1 else base


def can_fit_transitions(n_items: int) -> bool:
    """Return whether the Gram matrix of the items is small enough for `fit_transitions`."""
    return n_items <= MAX_EXACT_SIZE


def start_spectrum(matrix: Any, dim: int, selected: Hyperparameters, generator: np.random.Generator) -> LinearModel:
    """Fit the spectral model of width `dim` from which the training of a large shop starts."""
    return spectral(matrix, dim, generator, replace(SPECTRAL_EXPONENTS, smoothing=selected.smoothing))


def blended_spectrum(matrix: Any, generator: np.random.Generator) -> LinearModel:
    """Fit a spectral model of low rank, whose scores are added to the scores of the autoencoder."""
    return spectral(matrix, min(SPECTRUM_RANK, matrix.shape[1]), generator, SPECTRUM_EXPONENTS)


def sample_histories(histories: Any, generator: np.random.Generator) -> Any:
    """Return random rows of `histories`, which is sparse (n_users, n_items).

    Scoring all items for these rows yields at most `UNIT_PAIRS` scores, or the scores of a single row if it has more.
    """
    n_users, n_items = histories.shape
    return histories[np.sort(generator.permutation(n_users)[: max(1, UNIT_PAIRS // n_items)])]


def score_spread(scores: Floats) -> float:
    """Compute the standard deviation of each row of `scores`, (n, n_items), and return the mean over the rows."""
    return float(scores.std(axis=1).mean())


def share_factor(share: float, spread: float, other_spread: float) -> float:
    """Return the factor that scales scores from the standard deviation `other_spread` to `share * spread`.

    The factor is 0 if `other_spread` is 0.
    """
    return share * spread / other_spread if other_spread > 0 else 0.0


def log_popularity(train: Interactions) -> Floats:
    """Return `log(1 + count)` for the number of users of each item, (n_items,) float32.

    The logarithms are divided by their maximum if the maximum exceeds 1.
    """
    logs = np.log1p(train.users_per_item())
    scaled: Floats = (logs / max(float(logs.max(initial=0.0)), 1.0)).astype(np.float32)
    return scaled


def popularity_unit(scores: Floats, popularity: Floats) -> float:
    """Return the factor that scales `popularity`, (n_items,), to the standard deviation of a user's scores.

    The standard deviation is that of a row of `scores`, (n, n_items), averaged over the rows.
    """
    return share_factor(1.0, score_spread(scores), float(popularity.std()))
