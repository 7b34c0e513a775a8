"""The artifact: the files of one model version, what is in them, and reading them without trusting them.

model.h5         Keras model: `keras.models.load_model` opens it with no custom objects
mappings.json    {"format": 1, "users": {id: index}, "items": {id: index}}
serving.npz      the arrays of `recsys.neumf.Network`, who had what, popularity; never pickled
metrics.json     evaluation, baselines, data report
manifest.json    format, shapes, size and SHA-256 of every other file; written last
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArtifactDamaged, ObjectNotFound
from recsys.neumf import Floats, Network
from recsys.ranking import ServingModel

FORMAT: Final = 1
MODEL: Final = "model.h5"
MAPPINGS: Final = "mappings.json"
SERVING: Final = "serving.npz"
METRICS: Final = "metrics.json"
MANIFEST: Final = "manifest.json"
LISTED_FILES: Final = (MODEL, MAPPINGS, SERVING, METRICS)
"""What the manifest lists, in the order in which it is uploaded; the manifest itself goes last."""

_PLAIN_ARRAYS: Final = ("gmf_user", "gmf_item", "mlp_user", "mlp_item", "output_mlp")


def write_mappings(folder: Path, user_ids: list[str], item_ids: list[str]) -> None:
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
    seen_starts: NDArray[np.int64],
    seen_items: NDArray[np.int32],
    popularity: Floats,
) -> None:
    """Write `serving.npz`; see `ServingModel` for the arrays."""
    arrays: dict[str, NDArray[Any]] = {name: getattr(network, name) for name in _PLAIN_ARRAYS}
    for layer, (kernel, bias) in enumerate(zip(network.mlp_kernels, network.mlp_biases, strict=True), start=2):
        arrays[f"mlp_kernel_{layer}"] = kernel
        arrays[f"mlp_bias_{layer}"] = bias
    arrays["output_bias"] = np.array([network.output_bias], dtype=np.float32)
    arrays |= {"seen_starts": seen_starts, "seen_items": seen_items, "popularity": popularity}
    np.savez(folder / SERVING, allow_pickle=False, **arrays)


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write `metrics.json`."""
    (folder / METRICS).write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_manifest(folder: Path, version: str) -> str:
    """Write `manifest.json` over the files that lie in `folder`; returns its SHA-256, which readers must be told."""
    files = {}
    for name in LISTED_FILES:
        content = (folder / name).read_bytes()
        files[name] = {"size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    with np.load(folder / SERVING, allow_pickle=False) as arrays:
        shapes = {name: list(arrays[name].shape) for name in arrays.files}
    manifest = {"format": FORMAT, "version": version, "files": files, "shapes": shapes}
    content = json.dumps(manifest, indent=2).encode()
    (folder / MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


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
        raise ArtifactDamaged(f"{MANIFEST} has format {manifest.get('format')!r}; this program reads format {FORMAT}.")
    mappings = _parse_json(MAPPINGS, _read_listed(read, manifest, MAPPINGS))
    arrays = _read_arrays(_read_listed(read, manifest, SERVING))
    try:
        return _assemble(manifest["version"], mappings, arrays)
    except KeyError as error:
        raise ArtifactDamaged(f"{MANIFEST}, {SERVING} or {MAPPINGS} holds no {error}.") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise _unfit() from error


def _read(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except ObjectNotFound as error:
        raise ArtifactDamaged(f"{name} is missing.") from error


def _read_listed(read: Callable[[str], bytes], manifest: dict[str, Any], name: str) -> bytes:
    content = _read(read, name)
    try:
        expected = manifest["files"][name]["sha256"]
    except (KeyError, TypeError) as error:
        raise ArtifactDamaged(f"{MANIFEST} does not list {name}.") from error
    if hashlib.sha256(content).hexdigest() != expected:
        raise ArtifactDamaged(f"{name} is not the file that {MANIFEST} lists: the SHA-256 differs.")
    return content


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
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (EOFError, OSError, TypeError, ValueError, zipfile.BadZipFile) as error:  # TypeError: it is one bare array
        raise ArtifactDamaged(f"{SERVING} cannot be read as arrays.") from error


def _assemble(version: str, mappings: dict[str, Any], arrays: dict[str, NDArray[Any]]) -> ServingModel:
    n_layers = sum(name.startswith("mlp_kernel_") for name in arrays) + 1
    layers = range(2, n_layers + 1)
    network = Network(
        **{name: arrays[name] for name in _PLAIN_ARRAYS},
        mlp_kernels=tuple(arrays[f"mlp_kernel_{layer}"] for layer in layers),
        mlp_biases=tuple(arrays[f"mlp_bias_{layer}"] for layer in layers),
        output_bias=float(arrays["output_bias"][0]),
    )
    model = ServingModel(
        version=version,
        users=mappings["users"],
        items=mappings["items"],
        item_ids=list(mappings["items"]),
        network=network,
        seen_starts=arrays["seen_starts"],
        seen_items=arrays["seen_items"],
        popularity=arrays["popularity"],
        size_bytes=sum(array.nbytes for array in arrays.values()) + _mappings_bytes(mappings),
    )
    _check_shapes(model)
    for name, array in arrays.items():
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise ArtifactDamaged(f"{name} in {SERVING} holds numbers that are not finite.")
    return model


def _mappings_bytes(mappings: dict[str, Any]) -> int:
    """Roughly what the ids take in memory: a str object, a dict slot and a list slot each."""
    return sum(len(item) + 180 for ids in (mappings["users"], mappings["items"]) for item in ids)


def _check_shapes(model: ServingModel) -> None:
    network = model.network
    n_users, n_items = len(model.users), len(model.items)
    widths = [network.mlp_item.shape[-1], *(kernel.shape[-1] for kernel in network.mlp_kernels)]
    fits = (
        network.gmf_user.shape == (n_users, network.gmf_item.shape[-1])
        and len(network.gmf_item) == len(network.mlp_item) == n_items
        and network.mlp_user.shape == (n_users, widths[0])
        and all(
            kernel.shape == shape and bias.shape == shape[1:]
            for kernel, bias, shape in zip(network.mlp_kernels, network.mlp_biases, pairwise(widths), strict=True)
        )
        and network.output_mlp.shape == (widths[-1],)
        and model.popularity.shape == (n_items,)
        and model.seen_starts.shape == (n_users + 1,)
        and model.seen_items.shape == (int(model.seen_starts[-1]),)
        and (len(model.seen_items) == 0 or 0 <= model.seen_items.min() <= model.seen_items.max() < n_items)
    )
    if not fits:
        raise _unfit()


def _unfit() -> ArtifactDamaged:
    return ArtifactDamaged(f"The arrays of {SERVING} and the ids of {MAPPINGS} do not fit together.")
