"""The local store and registry for the tests of training jobs, with faults on demand and a clock that tests move."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from recsys.clock import DAY_S, Timestamp, after
from recsys.keys.api_key import ApiKey, claim_token_sha256
from recsys.model import artifact
from recsys.model.recommender import ServingModel
from recsys.objects.created import ObjectCreated
from recsys.objects.files import FileObjectStore
from recsys.objects.store import ObjectInfo
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from recsys_train.events import process
from recsys_train.job import Trainer

START = Timestamp("2026-03-01T12:00:00.000000Z")
LEASE_S = 60
VERSION_FILES = ["interactions.parquet", "manifest.json", "mappings.json", "metrics.json", "model.h5", "serving.npz"]
GOOD_CSV = b"user_id,item_id\n" + b"".join(
    b"u%d,i%d\n" % (user, item) for user in range(8) for item in range(6) if (user + item) % 3
)
BAD_CSV = b"user_id,item_id\nanna,tea\nben\nanna,\n"


class Killed(BaseException):
    """The process was killed: no `except Exception` of the code under test may run."""


class FaultyStore(FileObjectStore):
    """A store that calls `before[method]` with the object's name before the method; it may raise or change the state.

    `opened` are the streams that were opened for reading.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: dict[str, Callable[[str], None]] = {}
        self.opened: list[BinaryIO] = []

    def create(self, name: str, body: bytes | BinaryIO) -> ObjectInfo:
        self.before.get("create", _nothing)(name)
        return super().create(name, body)

    def open(self, name: str) -> BinaryIO:
        self.opened.append(super().open(name))
        return self.opened[-1]

    def replace(self, name: str, body: bytes) -> ObjectInfo:
        self.before.get("replace", _nothing)(name)
        return super().replace(name, body)

    def delete(self, name: str) -> None:
        self.before.get("delete", _nothing)(name)
        super().delete(name)


def _nothing(_name: str) -> None:
    pass


def at_call(number: int, step: Callable[[], None]) -> Callable[[str], None]:
    """Return a function that runs `step` at its call of this number, counted from 1, and otherwise does nothing."""
    calls = 0

    def count(_name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            step()

    return count


def raising(error: BaseException) -> Callable[..., None]:
    """Return a function that raises `error`."""

    def step(*_args: object, **_kwargs: object) -> None:
        raise error

    return step


@dataclass
class Backend:
    """A store, a registry and a clock: everything that a worker uses. `fits` counts the calls of `fit`."""

    root: Path
    store: FaultyStore
    now: Timestamp = START
    settings: Settings = field(default_factory=lambda: Settings(lease_s=LEASE_S))
    fits: int = 0

    def __post_init__(self) -> None:
        self.registry = SqliteRegistry(self.root / "registry.sqlite3", clock=self.clock)

    def clock(self) -> Timestamp:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now = after(self.now, seconds)

    def worker(self, owner: str = "worker-1", **fields: Any) -> Trainer:
        return Trainer(self.store, self.registry, self.settings, owner=owner, clock=self.clock, **fields)

    def process(self, event: ObjectCreated, worker: Trainer | None = None) -> Job | None:
        return process(event, worker or self.worker())

    def finish(self, event: ObjectCreated, worker: Trainer | None = None) -> Job:
        """Process an event that starts a training job."""
        job = self.process(event, worker)
        assert job is not None
        assert job.state.is_final
        return job

    def put(self, name: str, content: bytes = GOOD_CSV) -> ObjectCreated:
        """Write an object and return its event; a later call writes newer data."""
        self.pass_s(1)
        info = self.store.replace(name, content)
        return ObjectCreated(name, info.version, data_timestamp=f"{self.now}#{name}")

    def add_key(self) -> ApiKey:
        api_key = ApiKey.mint()
        expires_at = after(self.now, 7 * DAY_S)
        self.registry.create_key(
            KeyRecord(api_key.key_id, self.now, secret_sha256=api_key.sha256(), expires_at=expires_at)
        )
        return api_key

    def upload(self, job_id: str, key_id: str, content: bytes = GOOD_CSV) -> ObjectCreated:
        """Create a job and then its file, as the API does."""
        name = f"uploads/{job_id}.csv"
        self.registry.create_job(Job(job_id, key_id, name, created_at=self.now, updated_at=self.now))
        return self.put(name, content)

    def objects(self, prefix: str) -> list[str]:
        return [info.name for info in self.store.list(prefix)]

    def load(self, key_id: str) -> ServingModel:
        """Read the key's current model as a server does."""
        key = self.registry.get_key(key_id)
        prefix = f"models/{key_id}/{key.current_version}/"
        return artifact.read_model(
            lambda name: self.store.read(prefix + name), manifest_sha256=key.current_manifest_sha256
        )

    def only_version_is(self, key_id: str, version: str) -> bool:
        """Whether this version is complete, loadable and the only one in the store and in the registry."""
        assert self.objects("models/") == [f"models/{key_id}/{version}/{name}" for name in VERSION_FILES]
        assert [each.version for each in self.registry.list_versions(key_id)] == [version]
        return self.load(key_id).version == version

    def receipt(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.store.read(name))
        return document

    def claim(self, receipt_name: str) -> KeyRecord:
        """Claim the key that a receipt offers, as the API does."""
        return self.registry.claim_key(claim_token_sha256(self.receipt(receipt_name)["claim_token"]), "5" * 64)
