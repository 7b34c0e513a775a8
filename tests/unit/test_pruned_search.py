"""The best items without computing every logit: equal to computing every one, whatever is asked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model import batch_search
from recsys.model.batch_search import NormSortedItems, best_items_of_each
from recsys.model.neumf import Dims, Floats, Network, User
from recsys.model.pruned_search import Bounds, ItemIndices, best_items, lipschitz_constant, slope_bounds
from tests.made_models import random_network

NOTHING = np.array([], dtype=np.int64)
HIDDEN_DIMS = [(1,), (6,), (8, 4), (16, 8, 4), (8, 8, 4, 2)]


def network_by_chance(
    n_items: int, hidden_dims: tuple[int, ...] = (16, 8, 4), *, seed: int = 0, mlp_share: float = 1.0, gmf_dim: int = 6
) -> Network:
    """Where `mlp_share` is small, the GMF path decides."""
    network = random_network(Dims(1, n_items, gmf_dim, 4, hidden_dims), seed)
    return replace(network, output_mlp=network.output_mlp * np.float32(mlp_share))


def rule(
    network: Network, user: User, n: int, excluded: ItemIndices, among: ItemIndices | None = None
) -> tuple[list[int], Floats]:
    """The rule, plainly: the exact logits of all items, larger first, ties to the lower row."""
    logits = network.exact_logits(user, np.arange(network.n_items))
    rows = set(range(network.n_items) if among is None else among.tolist()) - set(excluded.tolist())
    best = sorted(rows, key=lambda row: (-logits[row], row))[:n]
    return best, logits[best]


def assert_best(network: Network, user: User, n: int, excluded: ItemIndices, among: ItemIndices | None = None) -> None:
    rows, logits = best_items(network, Bounds.of(network), user, n, excluded=excluded, among=among)
    expected_rows, expected_logits = rule(network, user, n, excluded, among)
    assert rows.tolist() == expected_rows
    assert logits.tolist() == expected_logits.tolist()


@settings(deadline=None)
@given(data=st.data())
def test_the_list_is_that_of_ranking_every_item(data: st.DataObject) -> None:
    n_items = data.draw(st.integers(1, 300))
    network = network_by_chance(
        n_items,
        data.draw(st.sampled_from(HIDDEN_DIMS)),
        seed=data.draw(st.integers(0, 10)),
        mlp_share=data.draw(st.sampled_from([0.0, 0.1, 1.0, 10.0])),
    )
    # Items that come several times tie.
    copies = np.array(data.draw(st.lists(st.integers(0, n_items - 1), min_size=n_items, max_size=n_items)))
    network = replace(network, item_gmf=network.item_gmf[copies], item_hidden_1=network.item_hidden_1[copies])
    some_rows = st.lists(st.integers(0, n_items - 1), max_size=n_items).map(lambda rows: np.array(rows, dtype=np.int64))
    user = network.user(data.draw(some_rows))
    n = data.draw(st.integers(0, n_items + 5))
    assert_best(network, user, n, data.draw(some_rows), data.draw(st.none() | some_rows))


@pytest.mark.parametrize("mlp_share", [0.02, 0.3, 3.0])
def test_a_catalogue_of_several_blocks_is_ranked_exactly(mlp_share: float) -> None:
    network = network_by_chance(20_000, mlp_share=mlp_share)
    generator = np.random.default_rng(0)
    for n in (1, 20, 1000):
        history = generator.integers(0, 20_000, 30)
        assert_best(network, network.user(history), n, history)


def test_bounds_leave_few_items_where_the_gmf_path_decides() -> None:
    network = network_by_chance(20_000, mlp_share=0.02)
    computed = 0

    def counting(hidden: Floats) -> Floats:
        nonlocal computed
        computed += len(hidden)
        return Network.mlp_outputs(network, hidden)

    class Counting(Network):
        mlp_outputs = staticmethod(counting)  # type: ignore[assignment]

    watched = Counting(*(getattr(network, name) for name in Network.__slots__))
    best_items(watched, Bounds.of(network), network.user(np.array([1])), 20, excluded=NOTHING)
    assert computed < 20_000 / 8


def test_all_items_equal_come_in_order() -> None:
    network = network_by_chance(500)
    same = np.zeros(500, dtype=np.int64)
    network = replace(network, item_gmf=network.item_gmf[same], item_hidden_1=network.item_hidden_1[same])
    rows, _ = best_items(network, Bounds.of(network), network.user(NOTHING), 5, excluded=np.array([0, 2]))
    assert rows.tolist() == [1, 3, 4, 5, 6]


def test_nothing_is_left_where_everything_is_excluded() -> None:
    network = network_by_chance(50)
    for among in (None, NOTHING, np.arange(9)):
        rows, logits = best_items(
            network, Bounds.of(network), network.user(NOTHING), 5, excluded=np.arange(50), among=among
        )
        assert (rows.tolist(), logits.tolist()) == ([], [])


# -- what the proof rests on


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), hidden_dims=st.sampled_from(HIDDEN_DIMS), distance=st.floats(1e-3, 1e3))
def test_the_mlp_never_moves_further_than_its_lipschitz_constant_allows(
    seed: int, hidden_dims: tuple[int, ...], distance: float
) -> None:
    network = network_by_chance(1, hidden_dims, seed=seed)
    generator = np.random.default_rng(seed)
    one, other = generator.normal(size=(2, 200, hidden_dims[0])) * distance
    moved = np.abs(mlp_in_float64(network, one) - mlp_in_float64(network, other))
    assert np.all(moved <= lipschitz_constant(network) * np.linalg.norm(one - other, axis=1) + 1e-9)


def mlp_in_float64(network: Network, hidden: np.ndarray) -> np.ndarray:
    hidden = np.maximum(hidden, 0)
    for kernel, bias in zip(network.mlp_kernels, network.mlp_biases, strict=True):
        hidden = np.maximum(hidden @ kernel.astype(np.float64) + bias, 0)
    return hidden @ network.output_mlp.astype(np.float64)


def test_the_lipschitz_constant_of_one_layer_is_the_norm_of_its_output_weights() -> None:
    network = replace(network_by_chance(1, (2,)), output_mlp=np.array([3, -4], dtype=np.float32))
    assert lipschitz_constant(network) == pytest.approx(5, rel=1e-5)


def test_the_lipschitz_constant_of_two_layers_is_worked_out_by_hand() -> None:
    # The runs are K v, of norm |(1, 1)| = √2, and K by v, of norms 1 and √2: mean of √2 and √2; where they are
    # diag(2, 1) and (1, 1): |(2, 1)| = √5 and 2 √2.
    network = network_by_chance(1, (2, 2))
    ones = np.ones(2, dtype=np.float32)
    for diagonal, expected in (([1, 1], 2**0.5), ([2, 1], (5**0.5 + 2 * 2**0.5) / 2)):
        made = replace(network, mlp_kernels=(np.diag(diagonal).astype(np.float32),), output_mlp=ones)
        assert lipschitz_constant(made) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("hidden_dims", HIDDEN_DIMS)
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_float32_logits_lie_within_the_error_that_is_allowed_for(hidden_dims: tuple[int, ...], scale: float) -> None:
    network = network_by_chance(2000, hidden_dims, gmf_dim=64)
    network = replace(
        network,
        history_gmf=network.history_gmf * np.float32(scale),
        history_hidden_1=network.history_hidden_1 * np.float32(scale),
    )
    bounds = Bounds.of(network)
    for history in (NOTHING, np.array([3]), np.arange(200)):
        user = network.user(history)
        off = np.abs(network.logits(user).astype(np.float64) - network.exact_logits(user, np.arange(2000))).max()
        assert off <= bounds.error(user)
        assert bounds.error(user) < 1e-3 * max(1, np.abs(network.logits(user)).max())  # not so large as to be useless


def test_the_steepest_slopes_of_two_layers_are_worked_out_by_hand() -> None:
    # Unit 0 reaches the output by 2 * 3 and -1 * -4, unit 1 by 1 * 3 and 5 * -4.
    network = replace(
        network_by_chance(1, (2, 2)),
        mlp_kernels=(np.array([[2, -1], [1, 5]], dtype=np.float32),),
        output_mlp=np.array([3, -4], dtype=np.float32),
    )
    rising, falling = slope_bounds(network)
    assert (rising.tolist(), falling.tolist()) == ([10, 3], [0, 20])


@pytest.mark.parametrize("n_items", [1, 15, 16, 1000])
@pytest.mark.parametrize("hidden_dims", HIDDEN_DIMS)
def test_no_user_likes_an_item_s_half_more_than_its_centre_by_more_than_its_slack(
    n_items: int, hidden_dims: tuple[int, ...]
) -> None:
    network = network_by_chance(n_items, hidden_dims)
    bounds = Bounds.of(network)
    assert bounds.cluster.shape == bounds.slack.shape == (n_items,)
    for half in np.random.default_rng(0).normal(scale=3, size=(100, hidden_dims[0])):
        of_items = mlp_in_float64(network, half + network.item_hidden_1.astype(np.float64))
        of_centres = mlp_in_float64(network, half + bounds.centres[bounds.cluster].astype(np.float64))
        assert np.all(of_items - of_centres <= bounds.slack)
    away = np.linalg.norm(network.item_hidden_1.astype(np.float64) - bounds.centres[bounds.cluster], axis=1)
    assert np.all(bounds.slack <= lipschitz_constant(network) * away * (1 + 1e-5) + 1e-30)


def test_a_centre_reaches_as_far_as_its_furthest_item() -> None:
    nothing = np.zeros(3)
    bounds = Bounds(
        centres=np.zeros((3, 1), dtype=np.float32),
        cluster=np.array([0, 2, 0, 2], dtype=np.uint16),
        slack=np.array([1, 5, 3, 4], dtype=np.float32),
        rounding=nothing,
    )
    assert bounds.reach.tolist() == [3, 0, 5]


# -- many users at once


def assert_same_for_each(network: Network, histories: list[ItemIndices], n: int, excluded: list[ItemIndices]) -> None:
    users = [network.user(history) for history in histories]
    got = best_items_of_each(NormSortedItems.of(network, Bounds.of(network)), users, n, excluded=excluded)
    assert len(got) == len(users)
    for (rows, logits), user, left_out in zip(got, users, excluded, strict=True):
        expected_rows, expected_logits = rule(network, user, n, left_out)
        assert rows.tolist() == expected_rows
        assert logits.tolist() == expected_logits.tolist()


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_many_users_get_what_each_gets_alone(data: st.DataObject) -> None:
    n_items = data.draw(st.integers(1, 200))
    network = network_by_chance(n_items, mlp_share=data.draw(st.sampled_from([0.0, 0.1, 10.0])))
    copies = np.array(data.draw(st.lists(st.integers(0, n_items - 1), min_size=n_items, max_size=n_items)))
    network = replace(network, item_gmf=network.item_gmf[copies], item_hidden_1=network.item_hidden_1[copies])
    some_rows = st.lists(st.integers(0, n_items - 1), max_size=n_items).map(lambda rows: np.array(rows, dtype=np.int64))
    histories = data.draw(st.lists(some_rows, max_size=5))
    excluded = [data.draw(some_rows) for _ in histories]
    assert_same_for_each(network, histories, data.draw(st.integers(0, n_items + 5)), excluded)


@pytest.mark.parametrize("mlp_share", [0.02, 3.0])
def test_many_users_of_a_large_catalogue_get_what_each_gets_alone(mlp_share: float) -> None:
    network = network_by_chance(20_000, mlp_share=mlp_share)
    generator = np.random.default_rng(0)
    histories = [generator.integers(0, 20_000, size) for size in (1, 5, 100)]
    everything = np.arange(20_000)
    excluded = [histories[0], NOTHING, everything[:-3]]
    assert_same_for_each(network, histories, 20, excluded)
    assert_same_for_each(network, histories, 20, [everything] * 3)


@pytest.mark.parametrize("mlp_share", [0.0, 0.02])
def test_users_are_done_at_different_places_of_the_catalogue(mlp_share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # With GMF rows of many lengths most users need the longest alone; somebody who had nothing has no GMF part at all.
    monkeypatch.setattr(batch_search, "_FIRST_CHUNK", 300)
    monkeypatch.setattr(batch_search, "_CHUNK", 100)
    network = network_by_chance(3000, mlp_share=mlp_share)
    generator = np.random.default_rng(0)
    lengths = generator.exponential(size=(3000, 1)).astype(np.float32)
    network = replace(network, item_gmf=network.item_gmf * lengths)
    looked_at: list[int] = []
    gmf_parts = batch_search._Block.gmf_parts

    def watching(
        block: batch_search._Block, catalogue: NormSortedItems, n_users: int, begin: int, end: int, memory: Floats
    ) -> Floats:
        looked_at.append(n_users)
        return gmf_parts(block, catalogue, n_users, begin, end, memory)

    monkeypatch.setattr(batch_search._Block, "gmf_parts", watching)
    histories = [generator.integers(0, 3000, size) for size in (0, 1, 2, 5, 20, 100)]
    assert_same_for_each(network, histories, 20, [history[:50] for history in histories])
    assert looked_at[0] == 6
    assert 0 < looked_at[-1] < 6


def test_items_come_in_falling_order_of_their_rows_norms() -> None:
    network = replace(network_by_chance(3), item_gmf=np.array([[3, 4], [0, 1], [6, 8]], dtype=np.float32))
    catalogue = NormSortedItems.of(network, Bounds.of(network))
    assert catalogue.order.tolist() == [2, 0, 1]
    assert catalogue.places.tolist() == [1, 2, 0]
    assert np.all(catalogue.norms >= [10, 5, 1])
    assert catalogue.norms == pytest.approx([10, 5, 1], rel=1e-5)
