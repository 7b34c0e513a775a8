"""Set-up of the HTTP benchmarks: a published model, the packaged function, and a bare function to compare with."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np

from deployment import package
from recsys.clock import utc_now
from recsys.keys.api_key import ApiKey
from recsys.keys.base62 import new_job_id
from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, ModelVersion
from recsys.registry.registry import Registry
from tests.integration.lambda_function import Function
from tests.made_models import random_network, serving_model, write_model

_RUNTIME_PACKAGES: Final = ("awslambdaric", "simplejson", "snapshot-restore-py")
BARE_HANDLER: Final = """
from fastapi import FastAPI
from mangum import Mangum
from pydantic import BaseModel

app = FastAPI()


class Query(BaseModel):
    user_id: str
    n: int = 10


@app.post("/v1/recommendations")
async def recommendations(question: Query):
    items = [{"item_id": str(rank), "rank": rank, "score": 0.5} for rank in range(1, question.n + 1)]
    return {"user_id": question.user_id, "items": items}


handle = Mangum(app, lifespan="off")
"""


@dataclass(frozen=True)
class Runtime:
    """A Python command that runs a packaged function, and the module path it uses."""

    python: Sequence[str]
    path: str
    description: str

    def start(self, handler: str, environment: Mapping[str, str], log: Path) -> Function:
        """Start a new, cold instance of a function."""
        environment = {**environment, "PYTHONPATH": self.path, "PYTHONDONTWRITEBYTECODE": "1"}
        return Function(handler, environment, log, timeout_s=60, python=self.python)


def packaged_runtime(folder: Path) -> Runtime:
    """Return a runtime with the unpacked zip of `recommend`, its layer, and Lambda's runtime client.

    It uses Lambda's version of Python. If that is not installed, this Python runs the sources instead.
    """
    (folder / "bare").mkdir()
    (folder / "bare" / "bare_handler.py").write_text(BARE_HANDLER)
    python = package.lambda_python()
    if python is None:
        paths = [folder / "bare", *(Path(path) for path in sys.path if path)]
        return Runtime((sys.executable,), _joined(paths), "sources, on this Python: no Python 3.13 is installed")
    package.build_tree("recommend", folder / "recommend")
    package.build_tree("shared", folder / "shared")
    _install_runtime_client(python, folder / "runtime")
    for tree in ("bare", "runtime"):
        subprocess.run([python, "-m", "compileall", "-q", str(folder / tree)], check=True)
    paths = [folder / "recommend", folder / "shared" / "python", folder / "bare", folder / "runtime"]
    return Runtime((python, "-S"), _joined(paths), "the packaged zip and its layer, unpacked, on Python 3.13")


def _install_runtime_client(python: str, target: Path) -> None:
    requirements = [f"{name}=={version(name)}" for name in _RUNTIME_PACKAGES]
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, "--only-binary=:all:", "--target", str(target), *requirements], check=True)


def _joined(paths: Sequence[Path]) -> str:
    return os.pathsep.join(map(str, paths))


@dataclass(frozen=True)
class Shop:
    """An API key with a published model."""

    api_key: str
    key_id: str
    version: str


def random_model(dims: Dims, *, seed: int = 0, n_seen: int = 60, version: str = "random.1") -> ServingModel:
    """Return a random model, in which every history has up to `n_seen` items."""
    generator = np.random.default_rng(seed)
    seen = generator.integers(0, dims.n_items, (dims.n_users, n_seen)).tolist()
    return serving_model(random_network(dims, seed), [list(dict.fromkeys(items)) for items in seen], version=version)


def new_shop(registry: Registry, store: ObjectStore, folder: Path, model: ServingModel) -> Shop:
    """Create an API key and publish `model` as its first version."""
    api_key = ApiKey.mint()
    registry.create_key(KeyRecord(api_key.key_id, utc_now(), secret_sha256=api_key.sha256()))
    return Shop(str(api_key), api_key.key_id, publish(registry, store, api_key.key_id, folder, model))


def publish(registry: Registry, store: ObjectStore, key_id: str, folder: Path, model: ServingModel) -> str:
    """Publish `model` as the next version of a key and return the name of the version."""
    now = utc_now()
    job = registry.create_job(Job(new_job_id(), key_id, "uploads/random.csv", now, now))
    data_timestamp = f"{now}#{secrets.token_hex(4)}"
    lease = registry.claim_job(job.job_id, owner="benchmark", data_timestamp=data_timestamp, lease_s=600)
    digest = write_model(folder, replace(model, version=lease.version))
    for path in sorted(folder.iterdir()):
        store.create(layout.model_prefix(key_id, lease.version) + path.name, path.read_bytes())
    registry.publish_version(lease, ModelVersion(key_id, lease.version, job.job_id, now, digest, {}), {})
    return lease.version
