"""Splits and groupings of interactions, on small examples."""

from __future__ import annotations

from recsys_train.data.interactions import Interactions
from tests.made_interactions import made_interactions


def interactions(*pairs: tuple[int, int]) -> Interactions:
    return made_interactions(pairs, n_users=3, n_items=4)


def test_the_last_pair_of_each_user_with_two_or_more_is_held_out() -> None:
    earlier, last = interactions((0, 1), (1, 2), (0, 3), (0, 2), (2, 0), (1, 0)).split_last()
    assert list(zip(earlier.users.tolist(), earlier.items.tolist(), strict=True)) == [(0, 1), (1, 2), (0, 3), (2, 0)]
    assert list(zip(last.users.tolist(), last.items.tolist(), strict=True)) == [(0, 2), (1, 0)]


def test_nothing_is_held_out_if_every_user_has_one_pair() -> None:
    earlier, last = interactions((0, 1), (1, 2), (2, 3)).split_last()
    assert (len(earlier), len(last)) == (3, 0)


def test_items_by_user_lists_each_users_items_oldest_first() -> None:
    starts, items = interactions((2, 3), (0, 2), (2, 1), (0, 0)).items_by_user()
    assert starts.tolist() == [0, 2, 2, 4]
    assert items.tolist() == [2, 0, 3, 1]


def test_users_per_item_includes_items_without_users() -> None:
    assert interactions((0, 1), (1, 1), (2, 3)).users_per_item().tolist() == [0, 2, 0, 1]
