"""Histories and the examples made of them, on a hand-made case."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from recsys_train.histories import final_histories, make_examples
from recsys_train.interactions import Interactions

# User 0 had items 0, 1, 2 in this order, user 1 item 2 and then 0, user 2 only item 1.
PAIRS = [(0, 0), (1, 2), (0, 1), (2, 1), (1, 0), (0, 2)]
UNIT = np.eye(3, dtype=np.float32)
"""As an item map, it makes an example's vector the example's history."""


@pytest.fixture
def interactions() -> Interactions:
    users, items = np.array(PAIRS, dtype=np.int32).T
    return Interactions(["a", "b", "c"], ["x", "y", "z"], users, items, np.ones(len(PAIRS), dtype=np.float32))


def test_a_history_weighs_recent_items_more_and_long_ones_less_than_in_proportion(interactions: Interactions) -> None:
    histories = final_histories(interactions, decay=1.0).toarray()
    total = 1 + 1 / 2 + 1 / 3
    assert_allclose(histories[0], np.array([1 / 3, 1 / 2, 1]) / np.sqrt(total), rtol=1e-6)
    assert_allclose(histories[1], np.array([1, 0, 1 / 2]) / np.sqrt(1.5), rtol=1e-6)
    assert_allclose(histories[2], [0, 1, 0], rtol=1e-6)


def test_without_decay_every_item_weighs_the_same(interactions: Interactions) -> None:
    assert_allclose(final_histories(interactions, decay=0.0).toarray()[0], np.ones(3) / np.sqrt(3), rtol=1e-6)


def test_an_example_sees_only_what_came_before_it(interactions: Interactions) -> None:
    examples = make_examples(interactions, 1.0, UNIT)
    vectors = examples.encode(np.arange(len(examples.targets)))
    seen = {int(target): vector for target, vector in zip(examples.targets[:2], vectors[:2], strict=True)}
    assert_allclose(seen[1], [1, 0, 0], rtol=1e-6)  # user 0's second item, after item 0
    assert_allclose(seen[2], np.array([1 / 2, 1, 0]) / np.sqrt(1.5), rtol=1e-6)
    assert examples.targets[2:].tolist() == [0]  # user 1's second item; user 2 has nothing before its only one
    assert_allclose(vectors[2], [0, 0, 1], rtol=1e-6)


def test_without_decay_an_example_sees_everything_but_itself(interactions: Interactions) -> None:
    examples = make_examples(interactions, 0.0, UNIT)
    vectors = examples.encode(np.arange(len(examples.targets)))
    assert examples.targets.tolist() == [0, 1, 2, 2, 0]
    assert_allclose(vectors[:3], (1 - np.eye(3)) / np.sqrt(2), rtol=1e-6)
    assert_allclose(vectors[3:], [[1, 0, 0], [0, 0, 1]], rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_scaling_examples_scales_their_vectors(interactions: Interactions, decay: float) -> None:
    examples = make_examples(interactions, decay, UNIT)
    rows = np.arange(len(examples.targets))
    assert_allclose(examples.scaled(3.0).encode(rows), 3 * examples.encode(rows), rtol=1e-6)


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_users_with_one_item_make_no_examples(decay: float) -> None:
    lonely = Interactions(["a"], ["x"], np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.float32))
    assert len(make_examples(lonely, decay, UNIT[:1, :1]).targets) == 0
