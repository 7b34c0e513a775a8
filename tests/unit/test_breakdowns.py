"""Quality by the length of the history and by the popularity of the held-out item."""

from __future__ import annotations

import numpy as np
import pytest

from recsys_train.data.interactions import Interactions
from recsys_train.fitting.breakdowns import Breakdowns, break_down
from recsys_train.fitting.evaluation import Ranks


def interactions(pairs: list[tuple[int, int]], n_users: int, n_items: int) -> Interactions:
    users, items = (np.array(column, dtype=np.int32) for column in zip(*pairs, strict=True))
    return Interactions(
        [f"u{index}" for index in range(n_users)], [f"i{index}" for index in range(n_items)], users, items
    )


def ranks_of(full: list[int], times_recommended: list[int]) -> Ranks:
    return Ranks(np.array(full), np.array(full), np.array(times_recommended))


@pytest.fixture(scope="module")
def breakdowns() -> Breakdowns:
    """Three users with histories of 1, 2 and 4 items; item 0 has as many interactions as the other four together."""
    train = interactions([(0, 0), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (2, 3), (3, 0)], n_users=4, n_items=5)
    held_out = interactions([(0, 1), (1, 2), (2, 4)], n_users=4, n_items=5)
    return break_down(
        ranks_of([1, 3, 21], times_recommended=[3, 2, 1, 0, 0]),
        ranks_of([1, 21, 21], times_recommended=[3, 3, 0, 0, 0]),
        train,
        held_out,
    )


def test_users_are_grouped_by_the_length_of_their_training_history(breakdowns: Breakdowns) -> None:
    rows = [(row.shortest, row.longest, row.users, row.ndcg_at_20) for row in breakdowns.history_length]
    assert rows == [(1, 1, 1, 1.0), (2, 2, 1, 0.5), (3, 4, 1, 0.0)]
    assert [row.popularity_ndcg_at_20 for row in breakdowns.history_length] == [1.0, 0.0, 0.0]
    assert [row.recall_at_20 for row in breakdowns.history_length] == [1.0, 1.0, 0.0]


def test_items_are_grouped_into_fifths_of_the_interactions(breakdowns: Breakdowns) -> None:
    rows = [(row.items, row.most_users, row.fewest_users, row.held_out) for row in breakdowns.item_popularity]
    # Item 0 has half of the eight interactions, so that it fills the second fifth; item 1 is in the middle of 4 to 6.
    assert rows == [(1, 4, 4, 0), (1, 2, 2, 1), (3, 1, 0, 2)]
    assert [row.ndcg_at_20 for row in breakdowns.item_popularity] == [0.0, 1.0, 0.25]


def test_share_of_recommendations_is_beside_the_share_of_interactions(breakdowns: Breakdowns) -> None:
    shares = [(row.share_of_interactions, row.share_of_recommendations) for row in breakdowns.item_popularity]
    assert shares == [(0.5, 0.5), (0.25, 2 / 6), (0.25, 1 / 6)]
    assert [row.coverage_at_20 for row in breakdowns.item_popularity] == [1.0, 1.0, 1 / 3]


def test_groups_of_users_add_up_to_the_whole(breakdowns: Breakdowns) -> None:
    tables = (
        [(row.users, row.ndcg_at_20) for row in breakdowns.history_length],
        [(row.held_out, row.ndcg_at_20) for row in breakdowns.item_popularity],
    )
    for rows in tables:
        assert sum(users for users, _ in rows) == 3
        assert sum(users * ndcg for users, ndcg in rows) == pytest.approx(1.5)


def test_longest_histories_have_no_upper_limit() -> None:
    pairs = [(0, item) for item in range(250)]
    train, held_out = interactions(pairs, 1, 251), interactions([(0, 250)], 1, 251)
    ranks = ranks_of([1], [0] * 251)

    (row,) = break_down(ranks, ranks, train, held_out).history_length

    assert (row.shortest, row.longest, row.users) == (200, None, 1)


def test_without_held_out_items_only_the_items_are_described() -> None:
    train = interactions([(0, 0), (1, 1)], 2, 2)
    no_pairs = Interactions(train.user_ids, train.item_ids, np.zeros(0, np.int32), np.zeros(0, np.int32))
    ranks = ranks_of([], [0, 0])

    tables = break_down(ranks, ranks, train, no_pairs).to_json()

    assert tables["history_length"] == []
    assert [(row["held_out"], row["ndcg_at_20"]) for row in tables["item_popularity"]] == [(0, 0.0), (0, 0.0)]
