"""Weights of the items of a history, compared with manual calculations."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.model.user_encoder import history_weights, length_scales


def test_weights_decay_with_age_and_are_scaled_by_the_root_of_their_total() -> None:
    total = 1 / 3 + 1 / 2 + 1
    expected = [1 / 3 / total**0.5, 1 / 2 / total**0.5, 1 / total**0.5]
    assert history_weights(3, decay=1.0).tolist() == pytest.approx(expected)


@pytest.mark.parametrize(("length", "expected"), [(0, []), (1, [1.0]), (4, [0.5] * 4)])
def test_without_decay_all_items_have_the_same_weight(length: int, expected: list[float]) -> None:
    assert history_weights(length, decay=0.0).tolist() == pytest.approx(expected)


def test_length_scale_of_an_empty_history_is_one() -> None:
    assert length_scales(np.array([0.0, 4.0])).tolist() == [1.0, 0.5]
