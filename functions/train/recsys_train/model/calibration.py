"""Convert scores to logits by a logistic regression with two parameters."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.special import expit

CALIBRATION_RIDGE: Final = 1e-6
"""L2 regularisation, which keeps slope and intercept finite if a threshold of the scores separates positives from
negatives. Otherwise, the regularisation is negligible. Not tuned."""
CALIBRATION_START: Final = (1.0, -2.0)
"""Slope and intercept at which the optimiser starts. The result does not depend on the start, because the loss is
convex."""
MIN_SLOPE: Final = 1e-3
"""Lower limit of the calibrated slope, because a slope of 0 or less would change the ranking. Not tuned."""

Numbers = NDArray[np.floating]


def calibrate(
    positives: tuple[Numbers, Numbers], negatives: tuple[Numbers, Numbers], negative_weight: float
) -> tuple[float, float]:
    """Find the `slope` and `intercept` that minimise the loss of the logits `slope * score + intercept`.

    This is a logistic regression.

    Parameters
    ----------
    positives, negatives
        Each is a pair of the scores, (n,), and their weights in the loss, (n,). The loss of the positives and the loss
        of the negatives are weighted means.
    negative_weight
        Weight of the negatives' mean loss relative to the positives' mean loss.

    Returns
    -------
    slope : float
        At least `MIN_SLOPE` divided by the standard deviation of the scores.
    intercept : float
        The best intercept for this slope.

    Examples
    --------
    >>> positives, negatives = np.array([0.0, 1.0, 1.0, 1.0]), np.array([0.0, 0.0, 0.0, 1.0])
    >>> slope, intercept = calibrate((positives, np.ones(4)), (negatives, np.ones(4)), 1.0)
    >>> bool(np.isclose(slope, np.log(9), rtol=0.01))  # the odds are 1:3 for the score 0, and 3:1 for the score 1
    True
    >>> bool(np.isclose(intercept, -np.log(3), rtol=0.01))
    True
    """
    (up, up_weights), (down, down_weights) = positives, negatives
    unit = float(np.concatenate([up, down]).std()) or 1.0
    up, down = up / unit, down / unit
    up_weights, down_weights = up_weights / up_weights.sum(), negative_weight * down_weights / down_weights.sum()

    def loss_and_gradient(theta: Any) -> tuple[float, Any]:
        logits_up, logits_down = theta[0] * up + theta[1], theta[0] * down + theta[1]
        loss = up_weights @ np.logaddexp(0, -logits_up) + down_weights @ np.logaddexp(0, logits_down)
        pull_up, pull_down = -up_weights * expit(-logits_up), down_weights * expit(logits_down)
        gradient = np.array([pull_up @ up + pull_down @ down, pull_up.sum() + pull_down.sum()])
        return loss + CALIBRATION_RIDGE * theta @ theta, gradient + 2 * CALIBRATION_RIDGE * theta

    result = scipy.optimize.minimize(loss_and_gradient, np.array(CALIBRATION_START), jac=True, method="L-BFGS-B")
    slope, bias = result.x.tolist()
    return max(slope, MIN_SLOPE) / unit, bias
