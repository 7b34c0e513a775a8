"""A small artifact in memory, and ways to load, change and sign it."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from typing import Any

import numpy as np

from recsys.errors import ObjectNotFound
from recsys.model import artifact
from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel
from tests.made_models import random_network, serving_model

DIMS = Dims(n_users=3, n_items=4, gmf_dim=2, mlp_dim=2, hidden_dims=(3, 2))
Arrays = dict[str, np.ndarray[Any, Any]]


def example_model() -> ServingModel:
    return serving_model(random_network(DIMS), seen=[[3, 0], [1], []], version="job.7")


def load(files: dict[str, bytes], *, manifest_sha256: str | None = None) -> ServingModel:
    def read(name: str) -> bytes:
        if name not in files:
            raise ObjectNotFound(f"There is no object named {name!r}.")
        return files[name]

    return artifact.read_model(read, manifest_sha256=manifest_sha256)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def signed(files: dict[str, bytes], **members: Any) -> dict[str, bytes]:
    """Return the files with a manifest that matches them, as a faulty writer would publish them."""
    manifest = json.loads(files[artifact.MANIFEST])
    manifest["files"] = {name: artifact.describe_file(io.BytesIO(files[name])) for name in artifact.LISTED_FILES}
    return files | {artifact.MANIFEST: json.dumps(manifest | members).encode()}


def change_arrays(files: dict[str, bytes], change: Callable[[Arrays], Any], *, allow_pickle: bool = False) -> None:
    with np.load(io.BytesIO(files[artifact.SERVING])) as stored:
        arrays = {name: stored[name] for name in stored.files}
    change(arrays)
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=allow_pickle, **arrays)
    files[artifact.SERVING] = stream.getvalue()
