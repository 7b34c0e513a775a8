"""The recipe of a training run, which the caller passes, and the hyperparameters, which are selected by validation."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


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
class Recipe:
    """Network sizes, candidates for the hyperparameters, and limits of a training run.

    The defaults are meant for shops of any size up to millions of interactions. They were developed on the data sets of
    the project's benchmarks.
    """

    gmf_dim: int = 512
    """Width of the GMF embeddings; reduced to the number of items, or so that the tables fit into memory."""
    mlp_dim: int = 16
    """Width of the MLP embeddings."""
    hidden_dims: tuple[int, ...] = (8,)
    """Widths of the ReLU layers."""
    ridges: tuple[float, ...] = (50.0, 200.0, 800.0)
    """Candidates for EASE's L2 regularisation; validation selects one."""
    decays: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Candidates for the recency exponent of histories; validation selects one. Without timestamps, 0 is used."""
    ordered: BatchSizes = BatchSizes(interactions=1024, negatives=256)
    """Batch sizes for ordered histories, in which every position scores the negatives."""
    unordered: BatchSizes = BatchSizes(interactions=8192, negatives=2048)
    """Batch sizes for unordered histories; each user scores the negatives once, so more of them are affordable."""
    learning_rate: float = 0.003
    """Adam's step size."""
    negative_weight: float = 16.0
    """Weight of the mean loss over negatives relative to the mean loss over positives."""
    max_epochs: int = 3
    """Largest number of epochs; in each, every history is used once."""
    patience: int = 2
    """Epochs without a better validation NDCG@20 before training stops; a worse epoch can precede a better one."""

    def to_json(self) -> dict[str, Any]:
        """Return the recipe as it appears in `metrics.json`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Hyperparameters:
    """The hyperparameters that were selected by validation.

    Parameters
    ----------
    ridge
        L2 regularisation of EASE; 0 if the warm start is spectral.
    decay
        Recency exponent of histories, see `recsys.model.user_encoder`.
    epochs
        Number of epochs.
    """

    ridge: float
    decay: float
    epochs: int = 0
