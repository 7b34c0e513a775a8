"""Check the arrays of `serving.npz`, so that invalid arrays cannot make a request fail later.

A digest reveals that a file was changed after it was written. These checks reveal that a file was written incorrectly.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final, TypeVar

import numpy as np
from numpy.typing import NDArray

from recsys.model.vocabulary import Vocabulary

Arrays = dict[str, NDArray[Any]]
"""The arrays of `serving.npz` by name."""
_PART_NUMBERS: Final = 2**22
"""Count of numbers that one thread checks at a time. In float32, they take 16 MiB."""
_BLOCK_NUMBERS: Final = 2**16
"""Count of numbers that one NumPy call checks. Their mask fits into the CPU cache. The check is therefore twice as fast
as one call for all numbers."""
_Part = TypeVar("_Part")
_Result = TypeVar("_Result")


def check_arrays(arrays: Arrays) -> None:
    """Check the types, shapes, numbers, ids and indices in the arrays of a serving file.

    Raises
    ------
    KeyError
        An array is missing.
    ValueError
        The type or shape of an array does not match the other arrays, or an array contains a number that is not
        finite, an invalid id, or the index of an item or a cluster centre that does not exist.
    """
    _check_types_and_shapes(arrays)
    _check_finite(arrays)
    for owner in ("user", "item"):
        if not vocabulary_of(arrays, owner).is_valid:
            raise ValueError(f"{owner}_ids, {owner}_id_starts and {owner}_id_order are not a list of ids")
    if arrays["bounds_cluster"].max(initial=0) >= len(arrays["bounds_centres"]):
        raise ValueError("bounds_cluster has indices outside bounds_centres")
    starts, items, n_items = arrays["seen_starts"], arrays["seen_items"], len(arrays["gmf_item"])
    if starts[0] != 0 or (np.diff(starts) < 0).any():
        raise ValueError("seen_starts does not ascend from 0")
    if len(items) and not 0 <= items.min() <= items.max() < n_items:
        raise ValueError(f"seen_items has indices outside the {n_items} items")


def count_mlp_layers(arrays: Arrays) -> int:
    """Return the number of ReLU layers of the stored network.

    This number exceeds the number of `mlp_kernel_*` arrays by one, because the file contains the products of the first
    kernel with other arrays instead of the first kernel.
    """
    return sum(name.startswith("mlp_kernel_") for name in arrays) + 1


def vocabulary_of(arrays: Arrays, owner: str) -> Vocabulary:
    """Return the user ids if `owner` is "user", or the item ids if `owner` is "item"."""
    return Vocabulary(arrays[f"{owner}_ids"], arrays[f"{owner}_id_starts"], arrays[f"{owner}_id_order"])


def map_parallel(function: Callable[[_Part], _Result], parts: Sequence[_Part]) -> list[_Result]:
    """Apply a function to each part, on all cores, and return the results in order.

    The function must release the interpreter's lock, because otherwise the parts do not run at the same time.
    """
    if len(parts) < 2:
        return [function(part) for part in parts]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, parts))


def _check_types_and_shapes(arrays: Arrays) -> None:
    for name, (dtype, shape) in _expected_types_and_shapes(arrays).items():
        if arrays[name].dtype != dtype or arrays[name].shape != shape:
            raise ValueError(f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {np.dtype(dtype)} {shape}")


def _expected_types_and_shapes(arrays: Arrays) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Return the type and shape that each array must have, as derived from the sizes of a few arrays."""
    n_users, n_items = len(arrays["user_id_order"]), len(arrays["item_id_order"])
    gmf_dim = arrays["gmf_item"].shape[-1]
    widths = [arrays["mlp_bias_1"].shape[-1]]
    expected: dict[str, tuple[type, tuple[int, ...]]] = {
        "gmf_map": (np.float32, (n_items, gmf_dim)),
        "mlp_map": (np.float32, (n_items, widths[0])),
        "mlp_bias_1": (np.float32, (widths[0],)),
        "gmf_item": (np.float32, (n_items, gmf_dim)),
        "mlp_item": (np.float32, (n_items, widths[0])),
        "output_bias": (np.float32, (1,)),
        "bounds_centres": (np.float32, (len(arrays["bounds_centres"]), widths[0])),
        "bounds_cluster": (np.uint16, (n_items,)),
        "bounds_slack": (np.float32, (n_items,)),
        "bounds_rounding": (np.float64, (3,)),
        "decay": (np.float64, (1,)),
        "user_ids": (np.uint8, (arrays["user_ids"].size,)),
        "user_id_starts": (np.int64, (n_users + 1,)),
        "user_id_order": (np.int32, (n_users,)),
        "item_ids": (np.uint8, (arrays["item_ids"].size,)),
        "item_id_starts": (np.int64, (n_items + 1,)),
        "item_id_order": (np.int32, (n_items,)),
        "seen_starts": (np.int64, (n_users + 1,)),
        "seen_items": (np.int32, (int(arrays["seen_starts"][-1]),)),
        "popularity": (np.float32, (n_items,)),
    }
    for layer in range(2, count_mlp_layers(arrays) + 1):
        widths.append(arrays[f"mlp_kernel_{layer}"].shape[-1])
        expected[f"mlp_kernel_{layer}"] = (np.float32, (widths[-2], widths[-1]))
        expected[f"mlp_bias_{layer}"] = (np.float32, (widths[-1],))
    return expected | {"output_mlp": (np.float32, (widths[-1],))}


def _check_finite(arrays: Arrays) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not _is_finite(array):
            raise ValueError(f"{name} holds numbers that are not finite")


def _is_finite(array: NDArray[Any]) -> bool:
    flat = array.reshape(-1)
    parts = [flat[begin : begin + _PART_NUMBERS] for begin in range(0, len(flat), _PART_NUMBERS)]
    return all(map_parallel(_is_part_finite, parts))


def _is_part_finite(part: NDArray[Any]) -> bool:
    return all(np.isfinite(part[begin : begin + _BLOCK_NUMBERS]).all() for begin in range(0, len(part), _BLOCK_NUMBERS))
