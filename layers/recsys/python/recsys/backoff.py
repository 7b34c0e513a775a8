"""Compute the pauses between retries by exponential back-off with jitter."""

from __future__ import annotations

import random


def backoff_s(attempt: int, *, base_s: float) -> float:
    """Return the pause before a retry, in seconds.

    The longest possible pause doubles with each attempt. The pause is drawn between half of this bound and the bound,
    so that clients that failed at the same moment do not retry at the same moment.

    Parameters
    ----------
    attempt
        Number of the retry, from 1.
    base_s
        Shortest possible pause before the first retry, in seconds.

    Returns
    -------
    float
        Pause in seconds, from `base_s * 2 ** (attempt - 1)` to `base_s * 2 ** attempt`.
    """
    return random.uniform(0.5, 1.0) * base_s * 2.0**attempt  # noqa: S311 - jitter is not a secret
