"""Predict how precisely the quality of a model can be measured, from the number of users with a held-out item."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

NDCG_DEVIATION: Final = 0.33
"""Standard deviation of NDCG@20 over users, as `python -m tests.benchmarks.retraining` prints it for Online Retail."""
TEST_SHARE: Final = 0.5
"""Share of the users with two or more interactions on whom the quality is measured. The others serve for selection."""
IMPRECISE: Final = 0.05
"""Half-width of the 95% interval of NDCG@20 above which the measurement does not show whether the model is better than
popularity. On Online Retail, popularity reaches an NDCG@20 of 0.05 and the model 0.2.
"""
_NORMAL_95: Final = 1.96
_FEW_PER_USER: Final = 3


@dataclass(frozen=True, slots=True)
class Remark:
    """A remark about a file for its owner, with a stable code and a sentence."""

    code: str
    text: str

    def to_json(self) -> dict[str, str]:
        """Return the remark as a dict of `code` and `text`."""
        return {"code": self.code, "text": self.text}


def expected_precision(n_users: int) -> float:
    """Return the expected half-width of the 95% interval of NDCG@20, at most 1.

    Parameters
    ----------
    n_users
        Number of users with two or more interactions.

    Examples
    --------
    >>> round(expected_precision(2000), 3), expected_precision(0)
    (0.02, 1.0)
    """
    return min(1.0, _NORMAL_95 * NDCG_DEVIATION / math.sqrt(TEST_SHARE * n_users)) if n_users else 1.0


def expected_quality(n_users: int, per_user: float) -> list[Remark]:
    """Return remarks on the quality to expect and on how to improve it.

    Parameters
    ----------
    n_users
        Number of users with two or more interactions.
    per_user
        Mean number of interactions per user.

    Examples
    --------
    >>> [remark.code for remark in expected_quality(1000, per_user=8.0)]
    ['expect-measured']
    >>> [remark.code for remark in expected_quality(20, per_user=1.5)]
    ['expect-popularity', 'longer-period']
    """
    half_width = expected_precision(n_users)
    basis = f"Users with two or more interactions: {n_users:,}; interactions per user: {per_user:.1f}."
    if half_width <= IMPRECISE:
        found = Remark("expect-measured", f"{basis} The NDCG@20 of the model will be known to ±{half_width:.2f}.")
    else:
        text = (
            f"{basis} These numbers are too small to tell the model from popularity. Expect recommendations close to "
            f"the most popular items, and an NDCG@20 that is uncertain by ±{half_width:.2f}."
        )
        found = Remark("expect-popularity", text)
    if half_width <= IMPRECISE and per_user >= _FEW_PER_USER:
        return [found]
    needed = math.ceil((_NORMAL_95 * NDCG_DEVIATION / IMPRECISE) ** 2 / TEST_SHARE)
    text = (
        f"Send data of a longer period. With at least {needed:,} users who have two or more interactions, and at least "
        f"{_FEW_PER_USER} interactions per user, personal recommendations can be expected to differ measurably from "
        "popularity."
    )
    return [found, Remark("longer-period", text)]
