"""NeuMF's arithmetic, compared with manual calculations and with equation 12 evaluated pair by pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model.neumf import Dims, Floats, Network, User, sigmoid
from tests.made_models import random_network, random_weights

ONE_LAYER = Dims(n_users=2, n_items=2, gmf_dim=2, mlp_dim=1, hidden_dims=(2,))
TWO_LAYERS = Dims(n_users=2, n_items=2, gmf_dim=2, mlp_dim=1, hidden_dims=(2, 1))


def arrays(**rows: Sequence[Sequence[float]] | Sequence[float]) -> dict[str, Floats]:
    return {name: np.array(values, dtype=np.float32) for name, values in rows.items()}


# Histories of a single item: the history tables equal the user tables. User 0 has item 0, user 1 has item 1.
EMBEDDINGS_AND_LAYER_1 = arrays(
    gmf_item=[[3.0, -1.0], [0.5, 0.5]],
    mlp_item=[[2], [0]],
    gmf_map=[[1, 2], [0, -1]],
    mlp_map=[[1], [-1]],
    mlp_kernel_1=[[1.0, -1.0], [0.5, 1.0]],
    mlp_bias_1=[0.5, -1],
    output_bias=[0.25],
)
ONE_LAYER_WEIGHTS = EMBEDDINGS_AND_LAYER_1 | arrays(output_kernel=[[1], [2], [3], [-1]])
TWO_LAYERS_WEIGHTS = EMBEDDINGS_AND_LAYER_1 | arrays(
    mlp_kernel_2=[[2], [-3]], mlp_bias_2=[1], output_kernel=[[1], [2], [3]]
)

# GMF part, hidden layer 1 after ReLU:  u0: i0 -1, (2.5, 0)   i1 2.5, (1.5, 0)   u1: i0 2, (0.5, 2)   i1 -1, (0, 0)
BY_HAND = [
    pytest.param(ONE_LAYER, ONE_LAYER_WEIGHTS, [[6.75, 7.25], [1.75, -0.75]], id="one-layer"),
    pytest.param(TWO_LAYERS, TWO_LAYERS_WEIGHTS, [[17.25, 14.75], [2.25, 2.25]], id="two-layers"),
]


@pytest.mark.parametrize(("dims", "weights", "expected"), BY_HAND)
def test_logits_match_a_manual_calculation(dims: Dims, weights: dict[str, Floats], expected: list[list[float]]) -> None:
    network = Network.from_weights(dims, weights, decay=1.0)
    users = [network.user(np.array([item])) for item in range(2)]
    assert [network.logits(user).tolist() for user in users] == expected
    assert [network.exact_logits(user, np.arange(2)).tolist() for user in users] == expected


@pytest.mark.parametrize("hidden_dims", [(7,), (8, 5), (16, 8, 4)])
def test_every_logit_follows_equation_12(hidden_dims: tuple[int, ...]) -> None:
    dims = Dims(n_users=5, n_items=11, gmf_dim=6, mlp_dim=3, hidden_dims=hidden_dims)
    weights = random_weights(dims)
    network = Network.from_weights(dims, weights, decay=0.5)
    recency = np.array([3**-0.5, 2**-0.5, 1])
    histories = [[0], [3], [10, 0, 4], [4, 0, 10], [1, 2, 3]]
    for row, history in enumerate(histories):
        counts = recency[-len(history) :] / np.sqrt(recency[-len(history) :].sum())
        weights["gmf_user"][row] = counts @ weights["gmf_map"][history]
        weights["mlp_user"][row] = counts @ weights["mlp_map"][history]
    for row, history in enumerate(histories):
        expected = [equation_12(dims, weights, row, item) for item in range(11)]
        user = network.user(np.array(history))
        np.testing.assert_allclose(network.logits(user), expected, atol=1e-5)
        np.testing.assert_allclose(network.exact_logits(user, np.arange(11)), expected, atol=1e-5)


def equation_12(dims: Dims, weights: dict[str, Floats], user: int, item: int) -> float:
    exact = {name: array.astype(np.float64) for name, array in weights.items()}
    hidden = np.concatenate([exact["mlp_user"][user], exact["mlp_item"][item]])
    for layer in range(1, len(dims.hidden_dims) + 1):
        hidden = np.maximum(hidden @ exact[f"mlp_kernel_{layer}"] + exact[f"mlp_bias_{layer}"], 0)
    both = np.concatenate([exact["gmf_user"][user] * exact["gmf_item"][item], hidden])
    return float(both @ exact["output_kernel"][:, 0] + exact["output_bias"][0])


def test_empty_history_yields_a_zero_embedding_and_the_bias() -> None:
    network = Network.from_weights(TWO_LAYERS, TWO_LAYERS_WEIGHTS, decay=1.0)
    user = network.user(np.array([], dtype=np.int64))
    assert (user.gmf.tolist(), user.mlp.tolist()) == ([0, 0], [0.5, -1])


def test_computing_logits_does_not_modify_the_network_or_the_user() -> None:
    network = Network.from_weights(TWO_LAYERS, TWO_LAYERS_WEIGHTS, decay=1.0)
    user = network.user(np.array([0, 1]))
    first = network.logits(user).tolist()
    network.exact_logits(user, np.array([1, 0]))
    assert network.logits(user).tolist() == first


@settings(deadline=None)
@given(rows=st.lists(st.integers(0, 99), max_size=40), hidden_dims=st.sampled_from([(5,), (1,), (8, 5), (16, 8, 1)]))
def test_exact_logits_do_not_depend_on_the_other_pairs_of_the_call(
    rows: list[int], hidden_dims: tuple[int, ...]
) -> None:
    network = random_network(Dims(n_users=1, n_items=100, gmf_dim=37, mlp_dim=3, hidden_dims=hidden_dims))
    user = network.user(np.array([1, 2, 3]))
    single = [network.exact_logits(user, np.array([row]))[0] for row in rows]
    assert network.exact_logits(user, np.array(rows, dtype=np.int64)).tolist() == single
    other = network.user(np.array([7]))
    both = User(np.stack([other.gmf, user.gmf]), np.stack([other.mlp, user.mlp]))
    pair_logits = network.exact_pair_logits(both, np.ones(len(rows), dtype=np.int64), np.array(rows, dtype=np.int64))
    assert pair_logits.tolist() == single


def test_serving_arrays_are_contiguous_float32() -> None:
    network = Network.from_weights(TWO_LAYERS, TWO_LAYERS_WEIGHTS, decay=1.0)
    arrays = [
        network.history_gmf,
        network.item_gmf,
        network.history_hidden_1,
        network.mlp_bias_1,
        network.item_hidden_1,
    ]
    arrays += [network.output_mlp, *network.mlp_kernels, *network.mlp_biases]
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in arrays)


def test_weight_shapes_lead_from_the_concatenated_embeddings_to_one_output() -> None:
    assert Dims(10, 20, 4, 3, (8, 5)).weight_shapes() == {
        "gmf_user": (10, 4),
        "gmf_item": (20, 4),
        "mlp_user": (10, 3),
        "mlp_item": (20, 3),
        "mlp_kernel_1": (6, 8),
        "mlp_bias_1": (8,),
        "mlp_kernel_2": (8, 5),
        "mlp_bias_2": (5,),
        "output_kernel": (9, 1),
        "output_bias": (1,),
    }


@pytest.mark.parametrize(
    ("logit", "score"),
    [(0.0, 0.5), (math.log(3), 0.75), (-math.log(3), 0.25), (1e4, 1.0), (-1e4, 0.0), (math.inf, 1.0), (-math.inf, 0.0)],
)
def test_sigmoid_at_known_and_extreme_values(logit: float, score: float) -> None:
    values = sigmoid(np.array([logit], dtype=np.float32))
    assert values.dtype == np.float32
    assert values.tolist() == [pytest.approx(score, abs=1e-7)]


def test_sigmoid_is_monotonic_within_zero_and_one() -> None:
    scores = sigmoid(np.linspace(-30, 30, 10_001, dtype=np.float32))
    assert np.all(np.diff(scores) >= 0)
    assert scores.min() >= 0
    assert scores.max() <= 1
