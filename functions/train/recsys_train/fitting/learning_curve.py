"""Record the loss and the validation NDCG@20 of every epoch of a training run."""

from __future__ import annotations

import math

from recsys.registry.records import Progress
from recsys_train.fitting.fit import OnProgress


class LearningCurve:
    """A collector of the learning curve from the progress of a training run. It passes the progress on.

    The registry receives only a sample of the progress, because epochs can be shorter than the interval between two
    writes. The learning curve contains the loss and the validation NDCG@20 of every epoch.

    Parameters
    ----------
    on_progress
        Function that is called with the progress.

    Examples
    --------
    >>> curve = LearningCurve(lambda progress: None)
    >>> curve.report(Progress("fitting", 1, 3, 0.5, 0.25))
    >>> curve.report(Progress("refitting", 1, 3, 0.4))
    >>> curve.points
    [{'epoch': 1, 'loss': 0.5, 'validation_ndcg': 0.25}]
    """

    def __init__(self, on_progress: OnProgress) -> None:
        self._on_progress = on_progress
        self.points: list[dict[str, float | None]] = []

    def report(self, progress: Progress) -> None:
        """Record the epoch if `progress` belongs to the phase `fitting`, and pass `progress` on."""
        if progress.phase == "fitting" and progress.epoch is not None:
            self.points.append(
                {
                    "epoch": progress.epoch,
                    "loss": _rounded(progress.loss),
                    "validation_ndcg": _rounded(progress.validation_ndcg),
                }
            )
        self._on_progress(progress)


def _rounded(value: float | None) -> float | None:
    """Return the value rounded to six decimals, or None for NaN and infinity, which JSON cannot contain."""
    return round(value, 6) if value is not None and math.isfinite(value) else None
