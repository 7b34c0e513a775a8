"""Exact search for many users at once: its results equal ranking every item for each user."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model import batch_search
from recsys.model.batch_search import NormSortedItems, best_items_of_each
from recsys.model.neumf import Floats, ItemIndices, Network, User
from recsys.model.pruned_search import Bounds
from tests.unit.search_oracle import NOTHING, random_search_network, rank_every_item


def assert_best_of_each(network: Network, histories: list[ItemIndices], n: int, excluded: list[ItemIndices]) -> None:
    users = [network.user(history) for history in histories]
    results = best_items_of_each(NormSortedItems.of(network, Bounds.of(network)), users, n, excluded=excluded)
    assert len(results) == len(users)
    for (items, logits), user, excluded_items in zip(results, users, excluded, strict=True):
        expected_items, expected_logits = rank_every_item(network, user, n, excluded_items)
        assert items.tolist() == expected_items
        assert logits.tolist() == expected_logits.tolist()


@pytest.mark.slow
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_a_batch_equals_ranking_every_item_per_user(data: st.DataObject) -> None:
    n_items = data.draw(st.integers(1, 200))
    network = random_search_network(n_items, mlp_share=data.draw(st.sampled_from([0.0, 0.1, 10.0])))
    copies = np.array(data.draw(st.lists(st.integers(0, n_items - 1), min_size=n_items, max_size=n_items)))
    network = replace(network, item_gmf=network.item_gmf[copies], item_hidden_1=network.item_hidden_1[copies])
    some_items = st.lists(st.integers(0, n_items - 1), max_size=n_items).map(
        lambda items: np.array(items, dtype=np.int64)
    )
    histories = data.draw(st.lists(some_items, max_size=5))
    excluded = [data.draw(some_items) for _ in histories]
    assert_best_of_each(network, histories, data.draw(st.integers(0, n_items + 5)), excluded)


@pytest.mark.slow
@pytest.mark.parametrize("mlp_share", [0.02, 3.0])
def test_a_batch_on_a_large_catalogue_equals_ranking_every_item_per_user(mlp_share: float) -> None:
    network = random_search_network(20_000, mlp_share=mlp_share)
    generator = np.random.default_rng(0)
    histories = [generator.integers(0, 20_000, size) for size in (1, 5, 100)]
    everything = np.arange(20_000)
    excluded = [histories[0], NOTHING, everything[:-3]]
    assert_best_of_each(network, histories, 20, excluded)
    assert_best_of_each(network, histories, 20, [everything] * 3)


@pytest.mark.parametrize("mlp_share", [0.0, 0.02])
def test_scans_of_users_end_at_different_positions_of_the_catalogue(
    mlp_share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The norms of GMF embeddings vary widely, so most scans end early. An empty history has no GMF part.
    monkeypatch.setattr(batch_search, "_FIRST_CHUNK", 300)
    monkeypatch.setattr(batch_search, "_CHUNK", 100)
    network = random_search_network(3000, mlp_share=mlp_share)
    generator = np.random.default_rng(0)
    lengths = generator.exponential(size=(3000, 1)).astype(np.float32)
    network = replace(network, item_gmf=network.item_gmf * lengths)
    users_per_chunk: list[int] = []
    gmf_parts = batch_search._BatchUsers.gmf_parts

    def recording(
        batch: batch_search._BatchUsers, items: NormSortedItems, n_users: int, begin: int, end: int, buffer: Floats
    ) -> Floats:
        users_per_chunk.append(n_users)
        return gmf_parts(batch, items, n_users, begin, end, buffer)

    monkeypatch.setattr(batch_search._BatchUsers, "gmf_parts", recording)
    histories = [generator.integers(0, 3000, size) for size in (0, 1, 2, 5, 20, 100)]
    assert_best_of_each(network, histories, 20, [history[:50] for history in histories])
    assert users_per_chunk[0] == 6
    assert 0 < users_per_chunk[-1] < 6


def test_items_are_sorted_by_descending_norm() -> None:
    network = replace(random_search_network(3), item_gmf=np.array([[3, 4], [0, 1], [6, 8]], dtype=np.float32))
    items = NormSortedItems.of(network, Bounds.of(network))
    assert items.order.tolist() == [2, 0, 1]
    assert items.positions.tolist() == [1, 2, 0]
    assert np.all(items.norms >= [10, 5, 1])
    assert items.norms == pytest.approx([10, 5, 1], rel=1e-5)


def test_error_bounds_of_a_batch_equal_those_of_its_users() -> None:
    network = random_search_network(50)
    bounds = Bounds.of(network)
    users = [network.user(history) for history in (NOTHING, np.array([3]), np.arange(20))]
    batch = User(np.array([user.gmf for user in users]), np.array([user.mlp for user in users]))
    assert bounds.errors(batch).tolist() == pytest.approx([bounds.error(user) for user in users], rel=1e-6)
