"""Histories and the examples made of them, on a hand-made case."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from recsys_train.data.interactions import Interactions
from recsys_train.model.batches import MAX_LENGTH, Histories, final_histories

# User 0 had items 0, 1, 2 in this order, user 1 item 2 and then 0, user 2 only item 1.
PAIRS = [(0, 0), (1, 2), (0, 1), (2, 1), (1, 0), (0, 2)]


@pytest.fixture
def interactions() -> Interactions:
    users, items = np.array(PAIRS, dtype=np.int32).T
    return Interactions(["a", "b", "c"], ["x", "y", "z"], users, items)


def test_a_history_weighs_recent_items_more_and_long_ones_less_than_in_proportion(interactions: Interactions) -> None:
    histories = final_histories(interactions, decay=1.0).toarray()
    total = 1 + 1 / 2 + 1 / 3
    assert_allclose(histories[0], np.array([1 / 3, 1 / 2, 1]) / np.sqrt(total), rtol=1e-6)
    assert_allclose(histories[1], np.array([1, 0, 1 / 2]) / np.sqrt(1.5), rtol=1e-6)
    assert_allclose(histories[2], [0, 1, 0], rtol=1e-6)


def test_without_decay_every_item_weighs_the_same(interactions: Interactions) -> None:
    assert_allclose(final_histories(interactions, decay=0.0).toarray()[0], np.ones(3) / np.sqrt(3), rtol=1e-6)


def many(lengths: list[int]) -> Interactions:
    """User u had items 0 to `lengths[u] - 1`, in this order."""
    users = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    items = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    ids = [str(user) for user in range(len(lengths))], [str(item) for item in range(max(lengths))]
    return Interactions(*ids, users, items)


@pytest.mark.parametrize("places", [1, 10, 64, 10_000])
def test_blocks_hold_every_user_with_two_items_or_more_once(places: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 200).tolist()
    blocks = list(Histories.of(many(lengths), ordered=True).batches(places, np.random.default_rng(1)))
    assert sorted(length for block in blocks for length in block.lengths.tolist()) == sorted(
        n for n in lengths if n > 1
    )
    for block in blocks:
        assert len(block.items) == 1 or block.items.size <= places
        for row, length in zip(block.items, block.lengths, strict=True):
            assert row.tolist() == [*range(length), *[0] * (len(row) - length)]


def test_of_a_long_history_the_latest_items_are_seen() -> None:
    (block,) = Histories.of(many([MAX_LENGTH + 50, 1]), ordered=True).batches(1, np.random.default_rng(0))
    assert block.items.tolist() == [list(range(50, MAX_LENGTH + 50))]


def test_where_order_says_nothing_others_are_seen_each_time() -> None:
    histories, generator = Histories.of(many([MAX_LENGTH + 50, 1]), ordered=False), np.random.default_rng(0)
    first, second = (next(histories.batches(1, generator)).items[0].tolist() for _ in range(2))
    assert len(set(first)) == len(set(second)) == MAX_LENGTH
    assert set(first) != set(second)
