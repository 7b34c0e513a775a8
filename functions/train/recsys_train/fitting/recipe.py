"""The settings of a training: the recipe that a caller passes in, and the hyperparameters that validation selects."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from recsys_train.model.warm_start import LinearSettings


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """The size of one training step.

    Parameters
    ----------
    interactions
        History positions per batch of users.
    negatives
        Sampled negative items, shared by all users of the batch.
    """

    interactions: int
    negatives: int


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """The values that validation selects a closed-form model from, and the settings that the search starts with.

    `LinearSettings` explains the fields. A field with one candidate is fixed.
    """

    user_exponents: tuple[float, ...]
    item_exponents: tuple[float, ...]
    ridges: tuple[float, ...]
    diagonals: tuple[float, ...]
    score_exponents: tuple[float, ...]
    history_exponents: tuple[float, ...]
    start: LinearSettings


EXACT_SEARCH = SearchSpace(
    user_exponents=(0.0, 0.125, 0.25, 0.375),
    item_exponents=(0.0, 0.1, 0.2, 0.3),
    ridges=(0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    diagonals=(0.0, 0.3, 0.5, 0.7),
    score_exponents=(-0.4, -0.3, -0.2, -0.1, 0.0, 0.1),
    history_exponents=(0.0,),
    start=LinearSettings(0.25, 0.2, ridge=4.0, diagonal=0.3, score_exponent=-0.2),
)
"""For catalogues up to `MAX_EXACT_ITEMS`."""
SPECTRAL_SEARCH = SearchSpace(
    user_exponents=(0.125, 0.25, 0.375, 0.5),
    item_exponents=(0.2, 0.3, 0.4, 0.5),
    ridges=(0.0, 0.3, 1.0, 3.0, 10.0),
    diagonals=(0.0,),
    score_exponents=(-0.4, -0.3, -0.2, -0.1, 0.0, 0.1),
    history_exponents=(0.0, 0.1, 0.2, 0.3),
    start=LinearSettings(0.25, 0.3, ridge=1.0, score_exponent=-0.2, history_exponent=0.2),
)
"""For larger catalogues."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train. The defaults suit shops of any size up to millions of interactions.

    They were developed on the data sets that `docs/benchmarks.md` lists.
    """

    gmf_dim: int = 1024
    """Width of the GMF embeddings; reduced to the number of items, or so that the tables fit into memory."""
    large_ordered_gmf_dim: int = 512
    """The same for catalogues beyond `MAX_EXACT_ITEMS` where histories have an order: more gained nothing there."""
    mlp_dim: int = 16
    """Width of the MLP embeddings."""
    hidden_dims: tuple[int, ...] = (8,)
    """Widths of the ReLU layers."""
    exact_search: SearchSpace = EXACT_SEARCH
    """Candidates for the closed-form model of small catalogues."""
    spectral_search: SearchSpace = SPECTRAL_SEARCH
    """Candidates for that of larger catalogues."""
    popularities: tuple[float, ...] = (0.0, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 4.0, 1000.0)
    """Candidates for the weight of popularity, in standard deviations of the closed-form model's scores."""
    decays: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    """Candidates for the recency exponent of histories; validation selects one. Without timestamps it is 0."""
    ordered: BatchSizes = BatchSizes(interactions=1024, negatives=256)
    """Batch sizes where the histories have an order: every position scores the negatives."""
    unordered: BatchSizes = BatchSizes(interactions=8192, negatives=2048)
    """Batch sizes where they have none: every user scores the negatives once, so more of them are affordable."""
    learning_rate: float = 0.003
    """Adam's step size."""
    negative_weight: float = 16.0
    """Weight of the mean loss over negatives against the mean loss over positives."""
    max_epochs: int = 3
    """Upper limit of passes over the histories."""
    patience: int = 2
    """Epochs without a better validation NDCG@20 before training stops; a first worse epoch can precede better ones."""

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as it appears in `metrics.json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The values that validation selected.

    Parameters
    ----------
    linear
        Settings of the closed-form model.
    decay
        Recency exponent of histories, see `recsys.model.user_encoder`.
    popularity
        Weight of the logarithm of an item's count, in standard deviations of the closed-form model's scores.
    epochs
        Passes over the histories.
    """

    linear: LinearSettings
    decay: float
    popularity: float = 0.0
    epochs: int = 0
