"""Weighted histories and batches of users, on small examples."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose

from recsys_train.data.interactions import Interactions
from recsys_train.model.batches import MAX_BATCH_USERS, MAX_LENGTH, Histories, final_histories

# The histories: user 0 has items 0, 1, 2, user 1 has items 2, 0, user 2 has item 1.
PAIRS = [(0, 0), (1, 2), (0, 1), (2, 1), (1, 0), (0, 2)]


@pytest.fixture
def interactions() -> Interactions:
    users, items = np.array(PAIRS, dtype=np.int32).T
    return Interactions(["a", "b", "c"], ["x", "y", "z"], users, items)


def test_recent_items_weigh_more_and_histories_are_scaled_by_their_length(interactions: Interactions) -> None:
    histories = final_histories(interactions, decay=1.0).toarray()
    total = 1 + 1 / 2 + 1 / 3
    assert_allclose(histories[0], np.array([1 / 3, 1 / 2, 1]) / np.sqrt(total), rtol=1e-6)
    assert_allclose(histories[1], np.array([1, 0, 1 / 2]) / np.sqrt(1.5), rtol=1e-6)
    assert_allclose(histories[2], [0, 1, 0], rtol=1e-6)


def test_without_decay_all_items_of_a_history_weigh_the_same(interactions: Interactions) -> None:
    assert_allclose(final_histories(interactions, decay=0.0).toarray()[0], np.ones(3) / np.sqrt(3), rtol=1e-6)


def histories_of_lengths(lengths: list[int]) -> Interactions:
    """Return interactions in which user u has the items 0 to `lengths[u] - 1`, in this order."""
    users = np.repeat(np.arange(len(lengths)), lengths).astype(np.int32)
    items = np.concatenate([np.arange(length) for length in lengths]).astype(np.int32)
    ids = [str(user) for user in range(len(lengths))], [str(item) for item in range(max(lengths))]
    return Interactions(*ids, users, items)


@pytest.mark.parametrize("n_positions", [1, 10, 64, 10_000])
def test_batches_contain_every_user_with_at_least_two_items_once(n_positions: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 30, 200).tolist()
    batches = list(
        Histories.of(histories_of_lengths(lengths), ordered=True).batches(n_positions, np.random.default_rng(1))
    )
    assert sorted(length for batch in batches for length in batch.lengths.tolist()) == sorted(
        n for n in lengths if n > 1
    )
    for batch in batches:
        assert len(batch.items) == 1 or batch.items.size <= n_positions
        for row, length in zip(batch.items, batch.lengths, strict=True):
            assert row.tolist() == [*range(length), *[0] * (len(row) - length)]


def test_an_ordered_long_history_is_cut_to_its_latest_items() -> None:
    (batch,) = Histories.of(histories_of_lengths([MAX_LENGTH + 50, 1]), ordered=True).batches(
        1, np.random.default_rng(0)
    )
    assert batch.items.tolist() == [list(range(50, MAX_LENGTH + 50))]


def test_an_unordered_long_history_is_sampled_anew_in_each_epoch() -> None:
    histories, generator = (
        Histories.of(histories_of_lengths([MAX_LENGTH + 50, 1]), ordered=False),
        np.random.default_rng(0),
    )
    first, second = (next(histories.batches(1, generator)).items[0].tolist() for _ in range(2))
    assert len(set(first)) == len(set(second)) == MAX_LENGTH
    assert set(first) != set(second)


def test_batches_of_short_histories_are_limited_in_users() -> None:
    sizes = [
        len(batch.items)
        for batch in Histories.of(histories_of_lengths([2] * 3000), ordered=False).batches(
            8192, np.random.default_rng(0)
        )
    ]
    assert sum(sizes) == 3000
    assert max(sizes) == MAX_BATCH_USERS
