"""Logistic regressions that turn scores into logits."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.special import expit

Numbers = NDArray[np.floating]


def calibrate(
    positives: tuple[Numbers, Numbers], negatives: tuple[Numbers, Numbers], negative_weight: float
) -> tuple[float, float]:
    """Return `(slope, bias)` that make `slope * score + bias` the best logit: two-parameter logistic regression.

    Parameters
    ----------
    positives, negatives
        Scores and the weight of each.
    negative_weight
        Weight of the mean loss over negatives against the mean loss over positives.
    """
    (up, up_weights), (down, down_weights) = positives, negatives
    unit = float(np.concatenate([up, down]).std()) or 1.0
    up, down = up / unit, down / unit
    up_weights, down_weights = up_weights / up_weights.sum(), negative_weight * down_weights / down_weights.sum()

    def loss(theta: Any) -> tuple[float, Any]:
        logits_up, logits_down = theta[0] * up + theta[1], theta[0] * down + theta[1]
        value = up_weights @ np.logaddexp(0, -logits_up) + down_weights @ np.logaddexp(0, logits_down)
        pull_up, pull_down = -up_weights * expit(-logits_up), down_weights * expit(logits_down)
        slope = np.array([pull_up @ up + pull_down @ down, pull_up.sum() + pull_down.sum()])
        return value + 1e-6 * theta @ theta, slope + 2e-6 * theta

    found = scipy.optimize.minimize(loss, np.array([1.0, -2.0]), jac=True, method="L-BFGS-B").x
    return max(float(found[0]), 1e-3) / unit, float(found[1])
