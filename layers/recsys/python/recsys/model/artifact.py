"""The artifact: the files of one model version, what is in them, and reading them without trusting them.

model.h5         Keras model: `keras.models.load_model` opens it with no custom objects
mappings.json    {"format": 2, "users": {id: index}, "items": {id: index}}; for people, no server reads it
serving.npz      the arrays of `recsys.model.neumf.Network`, ids, who had what and when, popularity; never pickled
metrics.json     evaluation, baselines, data report
manifest.json    format, shapes, size and SHA-256 of every other file and of its parts; written last
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArtifactDamaged, ObjectNotFound
from recsys.model.array_file import view_npz, write_npz
from recsys.model.neumf import Floats, Network
from recsys.model.pruned_search import Bounds
from recsys.model.recommender import ServingModel
from recsys.model.vocabulary import Vocabulary

FORMAT: Final = 2
MODEL: Final = "model.h5"
MAPPINGS: Final = "mappings.json"
SERVING: Final = "serving.npz"
METRICS: Final = "metrics.json"
MANIFEST: Final = "manifest.json"
LISTED_FILES: Final = (MODEL, MAPPINGS, SERVING, METRICS)
"""What the manifest lists, in the order in which it is uploaded; the manifest itself goes last."""

_NETWORK_ARRAYS: Final = {
    "gmf_map": "history_gmf",
    "mlp_map": "history_hidden_1",
    "mlp_bias_1": "mlp_bias_1",
    "gmf_item": "item_gmf",
    "mlp_item": "item_hidden_1",
    "output_mlp": "output_mlp",
}
"""The array's name in `serving.npz` and the field of `Network` that holds it."""
_BOUNDS: Final = ("centres", "cluster", "slack", "rounding")
PART_BYTES: Final = 16 * 2**20
"""Of a file, that have a digest of their own: they are verified at once, on all cores."""
_PART: Final = 2**22
_BLOCK: Final = 2**16


def write_mappings(folder: Path, user_ids: Sequence[str], item_ids: Sequence[str]) -> None:
    """Write `mappings.json`; the index of an id is its place in the list."""
    mappings = {
        "format": FORMAT,
        "users": {user_id: index for index, user_id in enumerate(user_ids)},
        "items": {item_id: index for index, item_id in enumerate(item_ids)},
    }
    (folder / MAPPINGS).write_text(json.dumps(mappings, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def write_serving(
    folder: Path,
    network: Network,
    *,
    user_ids: Sequence[str],
    item_ids: Sequence[str],
    seen_starts: NDArray[np.int64],
    seen_items: NDArray[np.int32],
    popularity: Floats,
) -> None:
    """Write `serving.npz`; see `ServingModel` for the arrays."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(network, field) for name, field in _NETWORK_ARRAYS.items()}
    for layer, (kernel, bias) in enumerate(zip(network.mlp_kernels, network.mlp_biases, strict=True), start=2):
        arrays[f"mlp_kernel_{layer}"] = kernel
        arrays[f"mlp_bias_{layer}"] = bias
    bounds = Bounds.of(network)
    arrays |= {f"bounds_{name}": getattr(bounds, name) for name in _BOUNDS}
    arrays["output_bias"] = np.array([network.output_bias], dtype=np.float32)
    arrays["decay"] = np.array([network.decay])
    for owner, ids in (("user", Vocabulary.of(user_ids)), ("item", Vocabulary.of(item_ids))):
        arrays |= {f"{owner}_ids": ids.text, f"{owner}_id_starts": ids.starts, f"{owner}_id_order": ids.order}
    arrays |= {"seen_starts": seen_starts, "seen_items": seen_items, "popularity": popularity}
    write_npz(folder / SERVING, arrays)


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write `metrics.json`."""
    (folder / METRICS).write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_manifest(folder: Path, version: str) -> str:
    """Write `manifest.json` over the files that lie in `folder`; returns its SHA-256, which readers must be told."""
    files = {}
    for name in LISTED_FILES:
        with (folder / name).open("rb") as stream:
            files[name] = describe_file(stream)
    shapes = {name: list(array.shape) for name, array in view_npz((folder / SERVING).read_bytes()).items()}
    manifest = {"format": FORMAT, "version": version, "files": files, "shapes": shapes}
    content = json.dumps(manifest, indent=2).encode()
    (folder / MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def describe_file(stream: BinaryIO) -> dict[str, Any]:
    """What the manifest says of a file: its size, its SHA-256 for people, and that of each `PART_BYTES` of it."""
    whole, parts, size_bytes = hashlib.sha256(), [], 0
    while part := stream.read(PART_BYTES):
        whole.update(part)
        parts.append(hashlib.sha256(part).hexdigest())
        size_bytes += len(part)
    return {"size_bytes": size_bytes, "sha256": whole.hexdigest(), "parts_sha256": parts}


def read_folder(folder: Path) -> ServingModel:
    """Load the version that lies in a directory, as `recsys train --out` writes it.

    Raises
    ------
    ArtifactDamaged
        A file is missing or is not what the manifest says.
    """

    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError as error:
            raise ArtifactDamaged(
                f"{folder / name} is missing.", hint="Give the directory that `recsys train --out DIR` wrote."
            ) from error

    return read_model(read, manifest_sha256=None)


def read_model(read: Callable[[str], bytes], *, manifest_sha256: str | None) -> ServingModel:
    """Load a version through `read(file name)`, verifying every byte that is used.

    Parameters
    ----------
    manifest_sha256
        What the registry says the manifest's digest is; None where there is no registry.

    Raises
    ------
    ArtifactDamaged
        A file is missing, was changed, has another format, shapes that do not fit together or numbers that are not
        finite.
    """
    manifest_bytes = _read(read, MANIFEST)
    if manifest_sha256 is not None and hashlib.sha256(manifest_bytes).hexdigest() != manifest_sha256:
        raise ArtifactDamaged(f"{MANIFEST} is not the one the registry names.")
    manifest = _parse_json(MANIFEST, manifest_bytes)
    if manifest.get("format") != FORMAT:
        raise ArtifactDamaged(
            f"{MANIFEST} has format {manifest.get('format')!r}; this program reads format {FORMAT}.",
            hint="Train again: POST the interactions to /v1/train with this key, or run recsys train.",
        )
    content = _read_listed(read, manifest, SERVING)
    try:
        return _assemble(manifest["version"], _read_arrays(content), len(content))
    except KeyError as error:
        raise ArtifactDamaged(f"{MANIFEST} or {SERVING} holds no {error}.") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise _unfit(str(error)) from error


def _read(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except ObjectNotFound as error:
        raise ArtifactDamaged(f"{name} is missing.") from error


def _read_listed(read: Callable[[str], bytes], manifest: dict[str, Any], name: str) -> bytes:
    content = _read(read, name)
    try:
        expected = manifest["files"][name]["parts_sha256"]
    except (KeyError, TypeError) as error:
        raise ArtifactDamaged(f"{MANIFEST} does not list {name}.") from error
    parts = [memoryview(content)[begin : begin + PART_BYTES] for begin in range(0, len(content), PART_BYTES)]
    if _in_parallel(lambda part: hashlib.sha256(part).hexdigest(), parts) != expected:
        raise ArtifactDamaged(f"{name} is not the file that {MANIFEST} lists: the SHA-256 differs.")
    return content


def _in_parallel(function: Callable[[Any], Any], pieces: list[Any]) -> list[Any]:
    """The function of each piece, in order; for what leaves the interpreter's lock."""
    if len(pieces) < 2:
        return [function(piece) for piece in pieces]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(function, pieces))


def _parse_json(name: str, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ArtifactDamaged(f"{name} is not JSON.") from error
    if not isinstance(document, dict):
        raise ArtifactDamaged(f"{name} is not a JSON object.")
    return document


def _read_arrays(content: bytes) -> dict[str, NDArray[Any]]:
    try:
        return view_npz(content)
    except ValueError as error:
        raise ArtifactDamaged(f"{SERVING} cannot be read as arrays.") from error


def _assemble(version: str, arrays: dict[str, NDArray[Any]], size_bytes: int) -> ServingModel:
    _check(arrays)
    layers = range(2, _n_layers(arrays) + 1)
    network = Network(
        **{field: arrays[name] for name, field in _NETWORK_ARRAYS.items()},
        decay=float(arrays["decay"][0]),
        mlp_kernels=tuple(arrays[f"mlp_kernel_{layer}"] for layer in layers),
        mlp_biases=tuple(arrays[f"mlp_bias_{layer}"] for layer in layers),
        output_bias=float(arrays["output_bias"][0]),
    )
    return ServingModel(
        version=version,
        users=_ids(arrays, "user"),
        items=_ids(arrays, "item"),
        network=network,
        bounds=Bounds(**{name: arrays[f"bounds_{name}"] for name in _BOUNDS}),
        seen_starts=arrays["seen_starts"],
        seen_items=arrays["seen_items"],
        popularity=arrays["popularity"],
        size_bytes=size_bytes,
    )


def _check(arrays: dict[str, NDArray[Any]]) -> None:
    """Refuse arrays that a request could stumble over, whoever wrote them."""
    for name, (dtype, shape) in _expected(arrays).items():
        if arrays[name].dtype != dtype or arrays[name].shape != shape:
            raise _unfit(f"{name} is {arrays[name].dtype} {arrays[name].shape}, not {np.dtype(dtype)} {shape}")
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not _is_finite(array):
            raise ArtifactDamaged(f"{name} in {SERVING} holds numbers that are not finite.")
    for owner in ("user", "item"):
        if not _ids(arrays, owner).is_sound:
            raise _unfit(f"{owner}_ids, {owner}_id_starts and {owner}_id_order name no ids")
    if arrays["bounds_cluster"].max(initial=0) >= len(arrays["bounds_centres"]):
        raise _unfit("bounds_cluster names rows outside bounds_centres")
    starts, items, n_items = arrays["seen_starts"], arrays["seen_items"], len(arrays["gmf_item"])
    if starts[0] != 0 or (np.diff(starts) < 0).any():
        raise _unfit("seen_starts falls")
    if len(items) and not 0 <= items.min() <= items.max() < n_items:
        raise _unfit(f"seen_items names rows outside the {n_items} items")


def _expected(arrays: dict[str, NDArray[Any]]) -> dict[str, tuple[type, tuple[int, ...]]]:
    """Type and shape that each array must have, given those that others follow from."""
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
    for layer in range(2, _n_layers(arrays) + 1):
        widths.append(arrays[f"mlp_kernel_{layer}"].shape[-1])
        expected[f"mlp_kernel_{layer}"] = (np.float32, (widths[-2], widths[-1]))
        expected[f"mlp_bias_{layer}"] = (np.float32, (widths[-1],))
    return expected | {"output_mlp": (np.float32, (widths[-1],))}


def _n_layers(arrays: dict[str, NDArray[Any]]) -> int:
    return sum(name.startswith("mlp_kernel_") for name in arrays) + 1


def _ids(arrays: dict[str, NDArray[Any]], owner: str) -> Vocabulary:
    return Vocabulary(arrays[f"{owner}_ids"], arrays[f"{owner}_id_starts"], arrays[f"{owner}_id_order"])


def _is_finite(array: NDArray[Any]) -> bool:
    flat = array.reshape(-1)
    return all(_in_parallel(_is_finite_part, [flat[begin : begin + _PART] for begin in range(0, len(flat), _PART)]))


def _is_finite_part(part: NDArray[Any]) -> bool:
    """In blocks that stay in cache: twice as fast as at once."""
    return all(np.isfinite(part[begin : begin + _BLOCK]).all() for begin in range(0, len(part), _BLOCK))


def _unfit(why: str) -> ArtifactDamaged:
    return ArtifactDamaged(f"The arrays of {SERVING} do not fit together: {why}.")
