"""Pauses between retries: exponential back-off with jitter."""

from __future__ import annotations

import random


def backoff_s(attempt: int, *, base_s: float) -> float:
    """Return the pause before a retry, in seconds.

    The upper bound doubles with each attempt. The pause is drawn from its upper half, so that clients that failed at
    the same moment do not retry at the same moment.

    Parameters
    ----------
    attempt
        Number of the retry, from 1.
    base_s
        Lower bound of the first pause, in seconds.

    Returns
    -------
    float
        A value from `base_s * 2 ** (attempt - 1)` to twice that.
    """
    return random.uniform(0.5, 1.0) * base_s * 2.0**attempt  # noqa: S311 - jitter is not a secret
