"""NeuMF's arithmetic, against numbers worked out by hand and against equation 12 written out for one pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest

from recsys.neumf import Dims, Floats, Network, sigmoid
from tests.made_models import random_weights

ONE_LAYER = Dims(n_users=2, n_items=2, gmf_dim=2, mlp_dim=1, hidden_dims=(2,))
TWO_LAYERS = Dims(n_users=2, n_items=2, gmf_dim=2, mlp_dim=1, hidden_dims=(2, 1))


def arrays(**rows: Sequence[Sequence[float]] | Sequence[float]) -> dict[str, Floats]:
    return {name: np.array(values, dtype=np.float32) for name, values in rows.items()}


EMBEDDINGS_AND_LAYER_1 = arrays(
    gmf_user=[[1, 2], [0, -1]],
    gmf_item=[[3.0, -1.0], [0.5, 0.5]],
    mlp_user=[[1], [-1]],
    mlp_item=[[2], [0]],
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
def test_logits_are_those_worked_out_by_hand(
    dims: Dims, weights: dict[str, Floats], expected: list[list[float]]
) -> None:
    network = Network.from_weights(dims, weights)
    assert [network.logits(user).tolist() for user in range(2)] == expected


@pytest.mark.parametrize(("dims", "weights", "expected"), BY_HAND)
def test_pair_logits_are_those_worked_out_by_hand(
    dims: Dims, weights: dict[str, Floats], expected: list[list[float]]
) -> None:
    logits = Network.from_weights(dims, weights).pair_logits(np.array([1, 0, 1]), np.array([0, 1, 1]))
    assert logits.tolist() == [expected[1][0], expected[0][1], expected[1][1]]


@pytest.mark.parametrize("hidden_dims", [(7,), (8, 5), (16, 8, 4)])
def test_every_logit_follows_equation_12(hidden_dims: tuple[int, ...]) -> None:
    dims = Dims(n_users=5, n_items=11, gmf_dim=6, mlp_dim=3, hidden_dims=hidden_dims)
    weights = random_weights(dims)
    network = Network.from_weights(dims, weights)
    for user in range(5):
        expected = [equation_12(dims, weights, user, item) for item in range(11)]
        np.testing.assert_allclose(network.logits(user), expected, atol=1e-5)
        np.testing.assert_allclose(network.pair_logits(np.full(11, user), np.arange(11)), expected, atol=1e-5)


def equation_12(dims: Dims, weights: dict[str, Floats], user: int, item: int) -> float:
    exact = {name: array.astype(np.float64) for name, array in weights.items()}
    hidden = np.concatenate([exact["mlp_user"][user], exact["mlp_item"][item]])
    for layer in range(1, len(dims.hidden_dims) + 1):
        hidden = np.maximum(hidden @ exact[f"mlp_kernel_{layer}"] + exact[f"mlp_bias_{layer}"], 0)
    both = np.concatenate([exact["gmf_user"][user] * exact["gmf_item"][item], hidden])
    return float(both @ exact["output_kernel"][:, 0] + exact["output_bias"][0])


def test_asking_changes_nothing() -> None:
    network = Network.from_weights(TWO_LAYERS, TWO_LAYERS_WEIGHTS)
    first = [network.logits(user).tolist() for user in range(2)]
    network.pair_logits(np.array([0, 1]), np.array([1, 0]))
    assert [network.logits(user).tolist() for user in range(2)] == first


def test_no_pairs_have_no_logits() -> None:
    nothing = np.array([], dtype=np.int64)
    assert Network.from_weights(ONE_LAYER, ONE_LAYER_WEIGHTS).pair_logits(nothing, nothing).shape == (0,)


def test_serving_arrays_are_contiguous_float32() -> None:
    network = Network.from_weights(TWO_LAYERS, TWO_LAYERS_WEIGHTS)
    held = [network.gmf_user, network.gmf_item, network.mlp_user, network.mlp_item, network.output_mlp]
    held += [*network.mlp_kernels, *network.mlp_biases]
    assert all(array.dtype == np.float32 and array.flags.c_contiguous for array in held)


def test_weight_shapes_chain_from_the_concatenated_embeddings_to_one_output() -> None:
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
def test_sigmoid_at_known_points_and_at_the_extremes(logit: float, score: float) -> None:
    values = sigmoid(np.array([logit], dtype=np.float32))
    assert values.dtype == np.float32
    assert values.tolist() == [pytest.approx(score, abs=1e-7)]


def test_sigmoid_keeps_the_order_of_logits() -> None:
    scores = sigmoid(np.linspace(-30, 30, 10_001, dtype=np.float32))
    assert np.all(np.diff(scores) >= 0)
    assert scores.min() >= 0
    assert scores.max() <= 1
