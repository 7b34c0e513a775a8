"""Export the trained network to `model.h5`, a NeuMF in Keras with a stored embedding per user, as in He et al."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numpy as np

from recsys.model.neumf import Dims, Floats
from recsys_train.model.network import HISTORY_TABLES, ITEM_TABLES
from recsys_train.model.quiet_tf import keras

USER_TABLES: Final = ("gmf_user", "mlp_user")


def user_tables(weights: dict[str, Floats], histories: Any) -> dict[str, Floats]:
    """Compute the embeddings of all users from their histories.

    Parameters
    ----------
    weights
        Trained arrays by name. Only `gmf_map` (n_items, gmf_dim) and `mlp_map` (n_items, mlp_dim) are used.
    histories
        Sparse matrix (n_users, n_items) of history weights, see `batches.final_histories`.

    Returns
    -------
    dict
        `gmf_user` (n_users, gmf_dim) and `mlp_user` (n_users, mlp_dim), float32.
    """
    pairs = zip(USER_TABLES, HISTORY_TABLES, strict=True)
    return {table: np.asarray(histories @ weights[name], dtype=np.float32) for table, name in pairs}


def save_keras(dims: Dims, weights: dict[str, Floats], path: Path) -> None:
    """Write the network as a Keras model that computes the scores of pairs of a user and an item.

    The inputs are `user_index` and `item_index`, (batch,) int32. The output is the score, (batch, 1) float32, between 0
    and 1. The model uses only layers of Keras, so that `keras.models.load_model` needs no custom objects.

    Parameters
    ----------
    weights
        All arrays of `dims.weight_shapes()` by name, including the user tables.
    path
        File to write. The suffix `.h5` selects the format HDF5.
    """
    user = keras.Input((), dtype="int32", name="user_index")
    item = keras.Input((), dtype="int32", name="item_index")
    embedded = {
        name: keras.layers.Embedding(*dims.weight_shapes()[name], name=name)(user if name in USER_TABLES else item)
        for name in USER_TABLES + ITEM_TABLES
    }
    gmf = keras.layers.Multiply(name="gmf")([embedded["gmf_user"], embedded["gmf_item"]])
    hidden = keras.layers.Concatenate(name="mlp")([embedded["mlp_user"], embedded["mlp_item"]])
    for layer, width in enumerate(dims.hidden_dims, start=1):
        hidden = keras.layers.Dense(width, activation="relu", name=f"mlp_{layer}")(hidden)
    both = keras.layers.Concatenate(name="neumf")([gmf, hidden])
    score = keras.layers.Dense(1, activation="sigmoid", name="output")(both)
    model = keras.Model([user, item], score, name="neumf")
    _set_weights(model, dims, weights)
    model.save(path)


def _set_weights(model: Any, dims: Dims, weights: dict[str, Floats]) -> None:
    for name in USER_TABLES + ITEM_TABLES:
        model.get_layer(name).set_weights([weights[name]])
    for layer in range(1, len(dims.hidden_dims) + 1):
        model.get_layer(f"mlp_{layer}").set_weights([weights[f"mlp_kernel_{layer}"], weights[f"mlp_bias_{layer}"]])
    model.get_layer("output").set_weights([weights["output_kernel"], weights["output_bias"]])
