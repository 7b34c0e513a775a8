"""Write and read an artifact, which consists of the files of one model version.

| file                   | content                                                                                  |
|------------------------|------------------------------------------------------------------------------------------|
| `model.h5`             | Keras model; `keras.models.load_model` opens it without custom objects                   |
| `mappings.json`        | `{"format": 2, "users": {id: index}, "items": {id: index}}`, for readers of `model.h5`   |
| `serving.npz`          | arrays of `Network` and `Bounds`, ids, histories, popularity; contains no pickled object |
| `metrics.json`         | evaluation, baselines, and data report                                                   |
| `interactions.parquet` | distinct pairs with their earliest times, which `mode=append` adds to                    |
| `content.npz`          | content part, for new items; only if the key had an item catalogue, see `recsys.catalogue`|
| `manifest.json`        | format, array shapes, and size and SHA-256 of every other file; written last             |

To serve requests, only `manifest.json`, `serving.npz` and `content.npz` are read. The digest in the registry verifies
the manifest, and the digests in the manifest verify the other two files. `recsys.model.artifact_checks` checks the
arrays of `serving.npz`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from recsys.errors import ArtifactDamaged, ObjectNotFound
from recsys.model.array_file import view_npz, write_npz
from recsys.model.artifact_checks import Arrays, check_arrays, count_mlp_layers, map_parallel, vocabulary_of
from recsys.model.neumf import Floats, Network
from recsys.model.pruned_search import Bounds
from recsys.model.recommender import ServingModel
from recsys.model.vocabulary import Vocabulary

FORMAT: Final = 2
"""Number of the file format. A server reads files of this format only."""
MODEL: Final = "model.h5"
MAPPINGS: Final = "mappings.json"
SERVING: Final = "serving.npz"
METRICS: Final = "metrics.json"
INTERACTIONS: Final = "interactions.parquet"
CONTENT: Final = "content.npz"
MANIFEST: Final = "manifest.json"
LISTED_FILES: Final = (MODEL, MAPPINGS, SERVING, METRICS, INTERACTIONS)
"""The files that every manifest lists, in upload order; the manifest itself is uploaded last."""

_NETWORK_ARRAYS: Final = {
    "gmf_map": "history_gmf",
    "mlp_map": "history_hidden_1",
    "mlp_bias_1": "mlp_bias_1",
    "gmf_item": "item_gmf",
    "mlp_item": "item_hidden_1",
    "output_mlp": "output_mlp",
}
"""Name of each array in `serving.npz`, and the field of `Network` that holds it."""
_BOUNDS_ARRAYS: Final = ("centres", "cluster", "slack", "rounding")
PART_BYTES: Final = 16 * 2**20
"""Size of a part of a file, in bytes. Each part has its own SHA-256, so that all cores can verify parts at the same
time."""


# -- writing


def write_mappings(folder: Path, user_ids: Sequence[str], item_ids: Sequence[str]) -> None:
    """Write `mappings.json`, in which the index of an id is its position in the list."""
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
    """Compute the bounds for the exact search, and write `serving.npz`.

    Parameters
    ----------
    folder
        An existing directory.
    network
        The trained model.
    user_ids, item_ids
        Distinct ids, in the order of the rows of the arrays.
    seen_starts, seen_items
        Histories of all users, (n_users + 1,) and (n_interactions,); see `ServingModel`.
    popularity
        Share of users who interacted with each item, (n_items,) float32 in [0, 1].
    """
    arrays: dict[str, NDArray[Any]] = {name: getattr(network, field) for name, field in _NETWORK_ARRAYS.items()}
    for layer, (kernel, bias) in enumerate(zip(network.mlp_kernels, network.mlp_biases, strict=True), start=2):
        arrays[f"mlp_kernel_{layer}"] = kernel
        arrays[f"mlp_bias_{layer}"] = bias
    bounds = Bounds.of(network)
    arrays |= {f"bounds_{name}": getattr(bounds, name) for name in _BOUNDS_ARRAYS}
    arrays["output_bias"] = np.array([network.output_bias], dtype=np.float32)
    arrays["decay"] = np.array([network.decay])
    for owner, ids in (("user", Vocabulary.of(user_ids)), ("item", Vocabulary.of(item_ids))):
        arrays |= {f"{owner}_ids": ids.text, f"{owner}_id_starts": ids.starts, f"{owner}_id_order": ids.order}
    arrays |= {"seen_starts": seen_starts, "seen_items": seen_items, "popularity": popularity}
    write_npz(folder / SERVING, arrays)


def write_metrics(folder: Path, metrics: dict[str, Any]) -> None:
    """Write `metrics.json`.

    Raise `ValueError` if a number is not finite, because JSON cannot represent such a number.
    """
    (folder / METRICS).write_text(json.dumps(metrics, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def files_in(folder: Path) -> list[str]:
    """Return the names of the files in a version's folder, in upload order and without the manifest."""
    return [*LISTED_FILES, *([CONTENT] if (folder / CONTENT).exists() else [])]


def write_manifest(folder: Path, version: str) -> str:
    """Write `manifest.json` for the files of a version.

    Parameters
    ----------
    folder
        The directory of the version. It must contain `LISTED_FILES` and may contain `content.npz`.
    version
        Name of the version.

    Returns
    -------
    str
        SHA-256 of the manifest in hexadecimal. Pass it to `read_model` to verify the version.

    Raises
    ------
    FileNotFoundError
        One of `LISTED_FILES` is missing.
    """
    files = {}
    for name in files_in(folder):
        with (folder / name).open("rb") as stream:
            files[name] = describe_file(stream)
    shapes = {name: list(array.shape) for name, array in view_npz((folder / SERVING).read_bytes()).items()}
    manifest = {"format": FORMAT, "version": version, "files": files, "shapes": shapes}
    content = json.dumps(manifest, indent=2).encode()
    (folder / MANIFEST).write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def describe_file(stream: BinaryIO) -> dict[str, Any]:
    """Return a file's entry in the manifest, with the size, the SHA-256 and the SHA-256 of each part of `PART_BYTES`.

    Examples
    --------
    >>> import io
    >>> entry = describe_file(io.BytesIO(b"abc"))
    >>> entry["size_bytes"], entry["sha256"][:8], len(entry["parts_sha256"])
    (3, 'ba7816bf', 1)
    """
    whole, parts, size_bytes = hashlib.sha256(), [], 0
    while part := stream.read(PART_BYTES):
        whole.update(part)
        parts.append(hashlib.sha256(part).hexdigest())
        size_bytes += len(part)
    return {"size_bytes": size_bytes, "sha256": whole.hexdigest(), "parts_sha256": parts}


# -- reading


def read_folder(folder: Path) -> ServingModel:
    """Load a model version from a directory that `recsys train --out` wrote.

    Parameters
    ----------
    folder
        The directory. It contains at least `manifest.json` and `serving.npz`.

    Returns
    -------
    ServingModel
        The model. Its arrays are views of the bytes of `serving.npz`.

    Raises
    ------
    ArtifactDamaged
        A file is missing, does not match the manifest, or contains invalid arrays.

    Examples
    --------
    >>> read_folder(Path("no-such-folder"))
    Traceback (most recent call last):
    recsys.errors.ArtifactDamaged: no-such-folder/manifest.json is missing.
    """

    def read(name: str) -> bytes:
        try:
            return (folder / name).read_bytes()
        except FileNotFoundError as error:
            raise ArtifactDamaged(
                f"{folder / name} is missing.", hint="Pass the directory that `recsys train --out DIR` wrote."
            ) from error

    return read_model(read, manifest_sha256=None)


def read_model(read: Callable[[str], bytes], *, manifest_sha256: str | None) -> ServingModel:
    """Load a model version, and verify its manifest and its arrays.

    Parameters
    ----------
    read
        Function that returns the content of a file of the version, given its name. It raises `ObjectNotFound` if there
        is no such file.
    manifest_sha256
        Expected SHA-256 of the manifest, from the registry. None skips this check.

    Returns
    -------
    ServingModel
        The model. Its arrays are views of the bytes of `serving.npz`.

    Raises
    ------
    ArtifactDamaged
        A file is missing, does not match its digest or has another format, or its arrays are inconsistent or
        contain numbers that are not finite.
    """
    manifest = _read_manifest(read, manifest_sha256)
    if manifest.get("format") != FORMAT:
        raise ArtifactDamaged(
            f"{MANIFEST} has format {manifest.get('format')!r}; this program reads format {FORMAT}.",
            hint="Train again. Send the interactions to POST /v1/train with this key, or run `recsys train`.",
        )
    content = _read_listed(read, manifest, SERVING)
    try:
        return _assemble(manifest["version"], _view_arrays(content), len(content))
    except KeyError as error:
        raise ArtifactDamaged(f"{MANIFEST} or {SERVING} has no entry {error}.") from error
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ArtifactDamaged(f"The arrays of {SERVING} are invalid: {error}.") from error


def read_entry(read: Callable[[str], bytes], name: str, *, manifest_sha256: str | None) -> dict[str, Any] | None:
    """Return the entry of a file in the verified manifest, or None if the manifest does not list it.

    Parameters
    ----------
    read, manifest_sha256
        The same as in `read_model`.
    name
        Name of the file.

    Raises
    ------
    ArtifactDamaged
        The manifest is missing, or does not match its digest.
    """
    files = _read_manifest(read, manifest_sha256).get("files")
    entry = files.get(name) if isinstance(files, dict) else None
    return entry if isinstance(entry, dict) else None


def read_content(read: Callable[[str], bytes], *, manifest_sha256: str | None) -> bytes | None:
    """Return the verified bytes of `content.npz`, or None if the version has no such file.

    The parameters and the errors are the same as in `read_model`.
    """
    manifest = _read_manifest(read, manifest_sha256)
    return _read_listed(read, manifest, CONTENT) if CONTENT in manifest.get("files", ()) else None


def _read_manifest(read: Callable[[str], bytes], manifest_sha256: str | None) -> dict[str, Any]:
    content = _read(read, MANIFEST)
    if manifest_sha256 is not None and hashlib.sha256(content).hexdigest() != manifest_sha256:
        raise ArtifactDamaged(f"The SHA-256 of {MANIFEST} differs from the digest in the registry.")
    return _parse_json(MANIFEST, content)


def _read(read: Callable[[str], bytes], name: str) -> bytes:
    try:
        return read(name)
    except ObjectNotFound as error:
        raise ArtifactDamaged(f"{name} is missing.") from error


def _read_listed(read: Callable[[str], bytes], manifest: dict[str, Any], name: str) -> bytes:
    """Read a file, and compare the SHA-256 of each part with the digest in the manifest."""
    content = _read(read, name)
    try:
        expected = manifest["files"][name]["parts_sha256"]
    except (KeyError, TypeError) as error:
        raise ArtifactDamaged(f"{MANIFEST} does not list {name}.") from error
    parts = [memoryview(content)[begin : begin + PART_BYTES] for begin in range(0, len(content), PART_BYTES)]
    if map_parallel(lambda part: hashlib.sha256(part).hexdigest(), parts) != expected:
        raise ArtifactDamaged(f"The SHA-256 of {name} differs from the digest in {MANIFEST}.")
    return content


def _parse_json(name: str, content: bytes) -> dict[str, Any]:
    try:
        document = json.loads(content)
    except ValueError as error:
        raise ArtifactDamaged(f"{name} is not JSON.") from error
    if not isinstance(document, dict):
        raise ArtifactDamaged(f"{name} is not a JSON object.")
    return document


def _view_arrays(content: bytes) -> Arrays:
    try:
        return view_npz(content)
    except ValueError as error:
        raise ArtifactDamaged(f"{SERVING} cannot be read as arrays.") from error


def _assemble(version: str, arrays: Arrays, size_bytes: int) -> ServingModel:
    """Check the arrays, and build the model from them."""
    check_arrays(arrays)
    layers = range(2, count_mlp_layers(arrays) + 1)
    network = Network(
        **{field: arrays[name] for name, field in _NETWORK_ARRAYS.items()},
        decay=float(arrays["decay"][0]),
        mlp_kernels=tuple(arrays[f"mlp_kernel_{layer}"] for layer in layers),
        mlp_biases=tuple(arrays[f"mlp_bias_{layer}"] for layer in layers),
        output_bias=float(arrays["output_bias"][0]),
    )
    return ServingModel(
        version=version,
        users=vocabulary_of(arrays, "user"),
        items=vocabulary_of(arrays, "item"),
        network=network,
        bounds=Bounds.from_arrays(**{name: arrays[f"bounds_{name}"] for name in _BOUNDS_ARRAYS}),
        seen_starts=arrays["seen_starts"],
        seen_items=arrays["seen_items"],
        popularity=arrays["popularity"],
        size_bytes=size_bytes,
    )
