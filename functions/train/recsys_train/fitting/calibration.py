"""Calibrate scores as probabilities by Platt scaling, and measure the calibration.

Training uses sampled negatives and weights their loss by a constant. The logits therefore rank items, but they do not
correspond to probabilities. Platt scaling (Platt, "Probabilistic Outputs for Support Vector Machines", 1999) fits a
slope and an intercept on users with a held-out item, so that the score of an item estimates the probability that the
item is the user's next one. Both parameters are folded into NeuMF's output unit.

The fit uses the best `TOP` candidates of each user in the whole catalogue, because two parameters cannot fit the whole
range of logits and most candidates are improbable. When the fit used all candidates of MovieLens 100K, the scores above
0.3 had a mean of 0.47, although only 19% of these items were held out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from recsys.model.neumf import Floats
from recsys_train.data.interactions import Interactions
from recsys_train.fitting.evaluation import USERS_PER_BATCH, ScoreUsers
from recsys_train.model.calibration import calibrate

TOP: Final = 20
"""Number of candidates per user that the fit uses, best first."""
RECALL_CUT: Final = 20
RELIABILITY_EDGES: Final = (0.0, 1e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0)
"""Bounds of the score intervals in the reliability table."""
MIN_HITS: Final = 5
"""Scores are not calibrated if fewer held-out items than this are among the candidates."""


class Platt(NamedTuple):
    """Parameters of Platt scaling. The calibrated logit is `slope * logit + intercept`.

    The slope is positive, so that the ranking does not change.
    """

    slope: float
    intercept: float

    def fold(self, weights: dict[str, Floats]) -> dict[str, Floats]:
        """Return weights with which the network computes calibrated logits.

        The output kernel is multiplied by the slope. The output bias is multiplied by the slope, and the intercept is
        added.
        """
        slope = np.float32(self.slope)
        kernel = weights["output_kernel"] * slope
        bias = weights["output_bias"] * slope + np.float32(self.intercept)
        return weights | {"output_kernel": kernel, "output_bias": bias.astype(np.float32)}


IDENTITY: Final = Platt(1.0, 0.0)


class TopLogits(NamedTuple):
    """The best candidates of users with one held-out item each.

    `logits`, (n_users, at most TOP) float64, is in descending order per user, with -inf if a user has fewer candidates.
    `is_held_out` has the same shape and is True for the user's held-out item.
    """

    logits: NDArray[np.float64]
    is_held_out: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class ReliabilityRow:
    """A row of the reliability table, for the user-item pairs whose scores lie in the interval from `lower` to `upper`.

    `mean_score` is the mean score of these pairs, and `observed` is the share of the pairs whose item was held out.
    """

    lower: float
    upper: float
    mean_score: float
    observed: float
    n_pairs: int


@dataclass(frozen=True, slots=True)
class Reliability:
    """Measurements on the test users that show how well scores estimate probabilities.

    Parameters
    ----------
    table
        One row per interval of `RELIABILITY_EDGES` that is not empty.
    expected_recall, recall
        Mean over users of the sum of the 20 best scores, and the share of users whose held-out item is among these 20
        items. Both are equal if scores are calibrated.
    above_99
        Share of users whose best score is above 0.99.
    """

    table: tuple[ReliabilityRow, ...]
    expected_recall: float
    recall: float
    above_99: float

    def to_json(self) -> dict[str, Any]:
        """Return the measurements under their names in `metrics.json`, rounded."""
        rows = [
            {
                "from": row.lower,
                "to": row.upper,
                "mean_score": float(f"{row.mean_score:.4g}"),
                "observed": float(f"{row.observed:.4g}"),
                "pairs": row.n_pairs,
            }
            for row in self.table
        ]
        return {
            "table": rows,
            "expected_recall_at_20": round(self.expected_recall, 6),
            "recall_at_20": round(self.recall, 6),
            "share_above_0_99": round(self.above_99, 6),
        }


def top_logits(score_users: ScoreUsers, seen: Interactions, held_out: Interactions) -> TopLogits:
    """Return the logits of the best candidates of each user, and whether each is the user's held-out item.

    Parameters
    ----------
    score_users
        Function that returns the logits of all items, (n, n_items) float32, for user indices (n,).
    seen
        Interactions of the users. The items that a user interacted with are not candidates for this user.
    held_out
        The held-out pairs, one per user and at least one in total.

    Returns
    -------
    TopLogits
        One row per user of `held_out`, in the same order, with `TOP` candidates, or `n_items` candidates if the data
        has fewer items.
    """
    seen_matrix = seen.to_matrix()
    logits, is_held_out = [], []
    for begin in range(0, len(held_out), USERS_PER_BATCH):
        part = slice(begin, begin + USERS_PER_BATCH)
        users, targets = held_out.users[part], held_out.items[part]
        values = score_users(users).copy()
        rows = seen_matrix[users]
        values[np.repeat(np.arange(len(users)), np.diff(rows.indptr)), rows.indices] = -np.inf
        cut = min(TOP, values.shape[1])
        top = np.argpartition(-values, cut - 1, axis=1)[:, :cut]
        order = np.argsort(-np.take_along_axis(values, top, axis=1), axis=1, kind="stable")
        top = np.take_along_axis(top, order, axis=1)
        logits.append(np.take_along_axis(values, top, axis=1).astype(np.float64))
        is_held_out.append(top == targets[:, None])
    return TopLogits(np.concatenate(logits), np.concatenate(is_held_out))


def fit_platt(top: TopLogits) -> Platt:
    """Fit the slope and the intercept by logistic regression over all candidates in `top`.

    Returns
    -------
    Platt
        The identity if fewer than `MIN_HITS` candidates were held out, or if all candidates were held out.
    """
    is_candidate = np.isfinite(top.logits)
    positives, others = top.logits[top.is_held_out & is_candidate], top.logits[~top.is_held_out & is_candidate]
    if len(positives) < MIN_HITS or len(others) == 0:
        return IDENTITY
    weights = np.ones(len(positives)), np.ones(len(others))
    return Platt(*calibrate((positives, weights[0]), (others, weights[1]), len(others) / len(positives)))


def measure_reliability(top: TopLogits, platt: Platt) -> Reliability:
    """Compare the calibrated scores with the observed shares of held-out items."""
    scores = expit(platt.slope * top.logits + platt.intercept)  # a logit of -inf gives the score 0
    rows = []
    for low, high in itertools.pairwise(RELIABILITY_EDGES):
        inside = (scores > low) & (scores <= high)
        if inside.any():
            means = float(scores[inside].mean()), float(top.is_held_out[inside].mean())
            rows.append(ReliabilityRow(low, high, *means, int(inside.sum())))
    return Reliability(
        table=tuple(rows),
        expected_recall=float(scores[:, :RECALL_CUT].sum(axis=1).mean()),
        recall=float(top.is_held_out[:, :RECALL_CUT].any(axis=1).mean()),
        above_99=float((scores[:, 0] > 0.99).mean()),
    )
