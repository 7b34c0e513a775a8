"""Exact search, by brute force and pruned: its results equal ranking every item by its exact logit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model import top_n
from recsys.model.neumf import Floats, ItemIndices, Network, User
from recsys.model.pruned_search import Bounds, lipschitz_constant, lowered, slope_bounds
from recsys.model.top_n import best_items
from tests.unit.search_oracle import NOTHING, random_search_network, rank_every_item

HIDDEN_DIMS = [(1,), (6,), (8, 4), (16, 8, 4), (8, 8, 4, 2)]


def assert_best(
    network: Network, user: User, n: int, excluded: ItemIndices, candidates: ItemIndices | None = None
) -> None:
    """Compare both searches, brute force and pruned, with ranking every item."""
    expected_items, expected_logits = rank_every_item(network, user, n, excluded, candidates)
    for prune_min_items in (0, network.n_items + 1):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(top_n, "PRUNE_MIN_ITEMS", prune_min_items)
            items, logits = best_items(network, Bounds.of(network), user, n, excluded=excluded, candidates=candidates)
        assert items.tolist() == expected_items
        assert logits.tolist() == expected_logits.tolist()


@pytest.fixture(params=["pruned", "brute force"])
def search(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Use one search for catalogues of every size."""
    monkeypatch.setattr(top_n, "PRUNE_MIN_ITEMS", 0 if request.param == "pruned" else 2**62)
    return str(request.param)


@pytest.mark.slow
@settings(deadline=None)
@given(data=st.data())
def test_best_items_equal_ranking_every_item(data: st.DataObject) -> None:
    n_items = data.draw(st.integers(1, 300))
    network = random_search_network(
        n_items,
        data.draw(st.sampled_from(HIDDEN_DIMS)),
        seed=data.draw(st.integers(0, 10)),
        mlp_share=data.draw(st.sampled_from([0.0, 0.1, 1.0, 10.0])),
    )
    # Repeated items have equal logits.
    copies = np.array(data.draw(st.lists(st.integers(0, n_items - 1), min_size=n_items, max_size=n_items)))
    network = replace(network, item_gmf=network.item_gmf[copies], item_hidden_1=network.item_hidden_1[copies])
    some_items = st.lists(st.integers(0, n_items - 1), max_size=n_items).map(
        lambda items: np.array(items, dtype=np.int64)
    )
    user = network.user(data.draw(some_items))
    n = data.draw(st.integers(0, n_items + 5))
    assert_best(network, user, n, data.draw(some_items), data.draw(st.none() | some_items))


@pytest.mark.slow
@pytest.mark.parametrize("mlp_share", [0.02, 0.3, 3.0])
def test_catalogues_of_several_blocks_are_ranked_exactly(mlp_share: float) -> None:
    network = random_search_network(20_000, mlp_share=mlp_share)
    generator = np.random.default_rng(0)
    for n in (1, 20, 1000):
        history = generator.integers(0, 20_000, 30)
        assert_best(network, network.user(history), n, history)


def test_pruned_search_computes_few_mlps_where_the_gmf_path_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_n, "PRUNE_MIN_ITEMS", 0)
    network = random_search_network(20_000, mlp_share=0.02)
    computed = 0

    def counting(hidden: Floats, biases: Sequence[Floats] | None = None) -> Floats:
        nonlocal computed
        computed += len(hidden)
        return Network.mlp_outputs(network, hidden, biases)

    class Counting(Network):
        mlp_outputs = staticmethod(counting)  # type: ignore[assignment]

    watched = Counting(*(getattr(network, name) for name in Network.__slots__))
    best_items(watched, Bounds.of(network), network.user(np.array([1])), 20, excluded=NOTHING)
    assert computed < 20_000 / 8


@pytest.mark.usefixtures("search")
def test_equal_items_are_ranked_by_their_index() -> None:
    network = random_search_network(500)
    same = np.zeros(500, dtype=np.int64)
    network = replace(network, item_gmf=network.item_gmf[same], item_hidden_1=network.item_hidden_1[same])
    items, _ = best_items(network, Bounds.of(network), network.user(NOTHING), 5, excluded=np.array([0, 2]))
    assert items.tolist() == [1, 3, 4, 5, 6]


@pytest.mark.usefixtures("search")
def test_excluding_every_item_yields_an_empty_list() -> None:
    network = random_search_network(50)
    for candidates in (None, NOTHING, np.arange(9)):
        items, logits = best_items(
            network, Bounds.of(network), network.user(NOTHING), 5, excluded=np.arange(50), candidates=candidates
        )
        assert (items.tolist(), logits.tolist()) == ([], [])


@pytest.mark.parametrize(("n_items", "expected"), [(7999, "brute force"), (8000, "pruned")])
def test_the_size_of_the_catalogue_chooses_the_search(
    n_items: int, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    search_all, search_pruned = top_n._search_all, top_n._search_pruned
    monkeypatch.setattr(top_n, "_search_all", lambda *args: used.append("brute force") or search_all(*args))
    monkeypatch.setattr(top_n, "_search_pruned", lambda *args: used.append("pruned") or search_pruned(*args))
    network = random_search_network(n_items)
    best_items(network, Bounds.of(network), network.user(NOTHING), 5, excluded=NOTHING)
    assert used == [expected]


# -- the inequalities behind pruned search


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 1000), hidden_dims=st.sampled_from(HIDDEN_DIMS), distance=st.floats(1e-3, 1e3))
def test_mlp_outputs_differ_by_at_most_the_lipschitz_constant_times_the_distance(
    seed: int, hidden_dims: tuple[int, ...], distance: float
) -> None:
    network = random_search_network(1, hidden_dims, seed=seed)
    generator = np.random.default_rng(seed)
    one, other = generator.normal(size=(2, 200, hidden_dims[0])) * distance
    moved = np.abs(mlp_in_float64(network, one) - mlp_in_float64(network, other))
    assert np.all(moved <= lipschitz_constant(network) * np.linalg.norm(one - other, axis=1) + 1e-9)


def mlp_in_float64(network: Network, hidden: np.ndarray) -> np.ndarray:
    hidden = np.maximum(hidden, 0)
    for kernel, bias in zip(network.mlp_kernels, network.mlp_biases, strict=True):
        hidden = np.maximum(hidden @ kernel.astype(np.float64) + bias, 0)
    return hidden @ network.output_mlp.astype(np.float64)


def test_lipschitz_constant_of_one_layer_is_the_norm_of_its_output_weights() -> None:
    network = replace(random_search_network(1, (2,)), output_mlp=np.array([3, -4], dtype=np.float32))
    assert lipschitz_constant(network) == pytest.approx(5, rel=1e-5)


def test_lipschitz_constant_of_two_layers_matches_a_manual_calculation() -> None:
    # K = identity, v = (1, 1): |K v| = √2 and |K| |v| = 1 · √2, so the mean is √2.
    # K = diag(2, 1), v = (1, 1): |K v| = |(2, 1)| = √5 and |K| |v| = 2 √2.
    network = random_search_network(1, (2, 2))
    ones = np.ones(2, dtype=np.float32)
    for diagonal, expected in (([1, 1], 2**0.5), ([2, 1], (5**0.5 + 2 * 2**0.5) / 2)):
        changed = replace(network, mlp_kernels=(np.diag(diagonal).astype(np.float32),), output_mlp=ones)
        assert lipschitz_constant(changed) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("hidden_dims", HIDDEN_DIMS)
@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_float32_logits_are_within_the_error_bound(hidden_dims: tuple[int, ...], scale: float) -> None:
    network = random_search_network(2000, hidden_dims, gmf_dim=64)
    network = replace(
        network,
        history_gmf=network.history_gmf * np.float32(scale),
        history_hidden_1=network.history_hidden_1 * np.float32(scale),
    )
    bounds = Bounds.of(network)
    for history in (NOTHING, np.array([3]), np.arange(200)):
        user = network.user(history)
        error = np.abs(network.logits(user).astype(np.float64) - network.exact_logits(user, np.arange(2000))).max()
        assert error <= bounds.error(user)
        assert bounds.error(user) < 1e-3 * max(1, np.abs(network.logits(user)).max())  # not so large as to be useless


def test_slope_bounds_of_two_layers_match_a_manual_calculation() -> None:
    # Unit 0 reaches the output by 2 * 3 and -1 * -4, unit 1 by 1 * 3 and 5 * -4.
    network = replace(
        random_search_network(1, (2, 2)),
        mlp_kernels=(np.array([[2, -1], [1, 5]], dtype=np.float32),),
        output_mlp=np.array([3, -4], dtype=np.float32),
    )
    rising, falling = slope_bounds(network)
    assert (rising.tolist(), falling.tolist()) == ([10, 3], [0, 20])


@pytest.mark.parametrize("n_items", [1, 15, 16, 1000])
@pytest.mark.parametrize("hidden_dims", HIDDEN_DIMS)
def test_no_item_exceeds_its_centre_by_more_than_its_slack(n_items: int, hidden_dims: tuple[int, ...]) -> None:
    network = random_search_network(n_items, hidden_dims)
    bounds = Bounds.of(network)
    assert bounds.cluster.shape == bounds.slack.shape == (n_items,)
    for half in np.random.default_rng(0).normal(scale=3, size=(100, hidden_dims[0])):
        of_items = mlp_in_float64(network, half + network.item_hidden_1.astype(np.float64))
        of_centres = mlp_in_float64(network, half + bounds.centres[bounds.cluster].astype(np.float64))
        assert np.all(of_items - of_centres <= bounds.slack)
    distances = np.linalg.norm(network.item_hidden_1.astype(np.float64) - bounds.centres[bounds.cluster], axis=1)
    assert np.all(bounds.slack <= lipschitz_constant(network) * distances * (1 + 1e-5) + 1e-30)


def test_reach_is_the_largest_slack_of_a_centre_s_items() -> None:
    bounds = Bounds.from_arrays(
        centres=np.zeros((3, 1), dtype=np.float32),
        cluster=np.array([0, 2, 0, 2], dtype=np.uint16),
        slack=np.array([1, 5, 3, 4], dtype=np.float32),
        rounding=np.zeros(3),
    )
    assert bounds.reach.tolist() == [3, 0, 5]


@given(threshold=st.floats(-1e30, 1e30))
def test_lowered_thresholds_do_not_rise_when_rounded_to_float32(threshold: float) -> None:
    assert float(np.float32(lowered(threshold))) <= threshold
    assert lowered(threshold) >= threshold - 3e-7 * abs(threshold) - 1e-44
