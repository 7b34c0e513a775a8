"""Define the recipe, which configures a training run, and the hyperparameters, which are selected by validation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Final, Self

from recsys_train.model.autoencoder import LinearSettings, can_invert


@dataclass(frozen=True, slots=True)
class BatchSizes:
    """Sizes of the batch and of the negative sample of a training step.

    Parameters
    ----------
    interactions
        Maximum number of history positions in a batch of users, including padding.
    negatives
        Number of sampled negative items, which all users of the batch share.
    """

    interactions: int
    negatives: int


@dataclass(frozen=True, slots=True)
class SearchSpace:
    """Candidates for the settings of the linear autoencoder, in ascending order, and the start of the search.

    `LinearSettings` explains the fields. A field with one candidate is fixed.
    """

    user_exponents: tuple[float, ...]
    item_exponents: tuple[float, ...]
    ridges: tuple[float, ...]
    diagonals: tuple[float, ...]
    score_exponents: tuple[float, ...]
    start: LinearSettings


SEARCH_SPACE: Final = SearchSpace(
    user_exponents=(0.0, 0.125, 0.25, 0.375),
    item_exponents=(0.0, 0.1, 0.2, 0.3),
    ridges=(0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0),
    diagonals=(0.0, 0.3, 0.5, 0.7),
    score_exponents=(-0.4, -0.3, -0.2, -0.1, 0.0, 0.1),
    start=LinearSettings(0.25, 0.2, ridge=4.0, diagonal=0.3, score_exponent=-0.2),
)

MAX_TABLE_BYTES: Final = 1024**3
"""Maximum size of the embedding tables of users and items in `model.h5` together, in bytes."""
MEMORY_WITHOUT_TABLES_MB: Final = 1250
"""Peak memory of a training with very small embedding tables."""
MEMORY_PER_TABLE: Final = 7
"""Additional peak memory divided by the size of the tables. The memory includes gradients, the state of the optimiser
and the decomposition. In a measurement, training on a million interactions of 234,000 users and items took 1,620, 2,600
and 4,550 MB with GMF embeddings of width 64, 192 and 512."""
USABLE_MEMORY: Final = 0.9
"""Share of the available memory that a training may use."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """Network sizes, candidates for the hyperparameters, and limits of a training run.

    The defaults are meant for shops of any size up to millions of interactions. They were developed on the data sets of
    the project's benchmarks.
    """

    gmf_dim: int = 512
    """Width of the GMF embeddings; reduced if there are fewer items or if the tables would exceed their limits."""
    max_table_bytes: int = MAX_TABLE_BYTES
    """Largest size of the float32 embeddings of all users and items together, in bytes."""
    widenings: tuple[int, ...] = (1, 2)
    """Candidates for the factor by which `gmf_dim` is multiplied if training starts from a linear autoencoder; see
    `selection.MIN_WIDE_GAIN`."""
    mlp_dim: int = 16
    """Width of the MLP embeddings."""
    hidden_dims: tuple[int, ...] = (8,)
    """Widths of the ReLU layers."""
    search_space: SearchSpace = SEARCH_SPACE
    """Candidates for the settings of the linear autoencoder."""
    shares: tuple[float, ...] = (0.0, 0.1, 0.3, 0.6, 1.0)
    """Candidates for the shares of item transitions and of a low-rank spectral model in the closed-form model."""
    popularities: tuple[float, ...] = (0.0, 0.03, 0.1, 0.2, 0.4, 0.8, 1.6, 4.0, 1000.0)
    """Candidates for the weight of popularity, in standard deviations of the closed-form model's scores."""
    smoothing: float = 1.0
    """Smoothing of the item counts of a spectral warm start, if validation selects it."""
    decays: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    """Candidates for the recency exponent of histories. Without timestamps, the exponent is 0."""
    ordered: BatchSizes = BatchSizes(interactions=1024, negatives=256)
    """Batch sizes for ordered histories, in which every position scores the negatives."""
    unordered: BatchSizes = BatchSizes(interactions=8192, negatives=2048)
    """Batch sizes for unordered histories. Each user scores the negatives only once, so that a step can use more."""
    learning_rate: float = 0.003
    """Adam's step size if training starts from the spectral model."""
    fine_tuning_rate: float = 0.0003
    """Adam's step size if training starts from a linear autoencoder, because larger steps degrade the ranking."""
    negative_weight: float = 16.0
    """Weight of the mean loss over negatives relative to the mean loss over positives."""
    max_epochs: int = 3
    """Maximum number of epochs; each epoch uses every history once."""
    patience: int = 2
    """Number of consecutive epochs without a better validation NDCG@20 after which training stops. It is more than 1,
    because a worse epoch can precede a better one."""

    @classmethod
    def for_memory(cls, memory_mb: int) -> Self:
        """Return the default recipe with tables that are small enough for the memory of a training.

        Parameters
        ----------
        memory_mb
            Memory in MB; 0 means that the memory is not limited.

        Examples
        --------
        >>> [Recipe.for_memory(memory_mb).max_table_bytes // 1024**2 for memory_mb in (0, 10_240, 3008, 1024)]
        [1024, 1024, 208, 0]
        """
        if memory_mb == 0:
            return cls()
        tables_mb = max(0, int((USABLE_MEMORY * memory_mb - MEMORY_WITHOUT_TABLES_MB) / MEMORY_PER_TABLE))
        return cls(max_table_bytes=min(MAX_TABLE_BYTES, tables_mb * 1024**2))

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as it appears in `metrics.json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """Hyperparameters of the closed-form model and of the training, selected by validation.

    Parameters
    ----------
    linear
        Settings of the linear autoencoder; None if the warm start is spectral.
    decay
        Recency exponent of histories, see `recsys.model.user_encoder`.
    popularity
        Weight of the logarithm of an item's number of users, in standard deviations of the closed-form model's scores.
    gmf_dim
        Width of the GMF embeddings.
    smoothing
        Smoothing of the item counts, if the warm start is spectral; see `recsys_train.model.spectral.Exponents`.
    epochs
        Number of training epochs.
    transitions, spectrum
        Shares of item transitions and of a low-rank spectral model in the closed-form model. A share is the standard
        deviation of the added scores divided by that of the autoencoder's scores, see
        `recsys_train.fitting.closed_form`.
    """

    linear: LinearSettings | None
    decay: float
    popularity: float
    gmf_dim: int
    smoothing: float = 0.0
    epochs: int = 0
    transitions: float = 0.0
    spectrum: float = 0.0


def first_hyperparameters(recipe: Recipe, n_users: int, n_items: int, *, decay: float) -> Hyperparameters:
    """Return the hyperparameters with which the search for a data set of this size starts."""
    linear = recipe.search_space.start if can_invert(n_users, n_items) else None
    return Hyperparameters(linear, decay, popularity=0.0, gmf_dim=recipe.gmf_dim)
