"""The service in one process: both apps in one, on the local adapters, and a client that needs no socket."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import uvicorn
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

import recsys_api.app
import recsys_recommend.app
from recsys.clock import Timestamp, after
from recsys.http import problems
from recsys.keys.api_key import ApiKey
from recsys.keys.base62 import new_job_id
from recsys.model import artifact
from recsys.model.neumf import Network
from recsys.objects import layout
from recsys.objects.files import FileObjectStore
from recsys.objects.store import ObjectStore
from recsys.registry.key_record import KeyRecord
from recsys.registry.rate_limits import MemoryBuckets
from recsys.registry.records import Job, ModelVersion
from recsys.registry.registry import Registry
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings

START = Timestamp("2026-03-01T12:00:00.000000Z")
CSV = b"user_id,item_id\nu1,A\nu2,B\nu2,C\n"
METRICS = {"ndcg_at_20": 0.25}
REPORT = {"rows": 3}


@dataclass
class Now:
    """A clock and a timer that only advance when a test moves them."""

    timestamp: Timestamp = START
    seconds: float = 1000.0

    def clock(self) -> Timestamp:
        return self.timestamp

    def timer(self) -> float:
        return self.seconds

    def move(self, seconds: float) -> None:
        self.timestamp = after(self.timestamp, seconds)
        self.seconds += seconds


class Client:
    """Sends requests to an ASGI app whose event loop runs in another thread."""

    def __init__(self, app: Any, portal: BlockingPortal) -> None:
        self.app = app
        self._portal = portal
        self._http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service")

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def call() -> httpx.Response:
            return await self._http.request(method, path, **options)

        return self._portal.call(call)

    def get(self, path: str, key: str | None = None) -> httpx.Response:
        return self.request("GET", path, headers=key_header(key))

    def post(self, path: str, key: str | None = None, *, json: Any = None) -> httpx.Response:
        return self.request("POST", path, headers=key_header(key), **({} if json is None else {"json": json}))

    def delete(self, path: str, key: str) -> httpx.Response:
        return self.request("DELETE", path, headers=key_header(key))

    def train(self, body: bytes = CSV, key: str | None = None, **headers: str) -> httpx.Response:
        names = {name.replace("_", "-"): value.encode("latin-1") for name, value in headers.items()}
        return self.request(
            "POST", "/v1/train", content=body, headers={"content-type": b"text/csv", **key_header(key), **names}
        )

    def recommend(self, key: str | None, user_id: str = "u1", **body: Any) -> httpx.Response:
        return self.post("/v1/recommendations", key, json={"user_id": user_id, **body})

    def recommend_for(self, key: str | None, **body: Any) -> httpx.Response:
        return self.post("/v1/recommendations", key, json=body)

    def run(self, call: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """Run a coroutine on the event loop of the app."""
        return self._portal.call(call)

    def all_at_once(self, calls: list[Callable[[httpx.AsyncClient], Coroutine[Any, Any, Any]]]) -> list[Any]:
        async def run() -> list[Any]:
            return await asyncio.gather(*(call(self._http) for call in calls))

        return self._portal.call(run)


@dataclass
class Service:
    """The running service as tests use it."""

    client: Client
    registry: SqliteRegistry
    store: FileObjectStore
    folder: Path
    now: Now
    counted: list[str] = field(default_factory=list)

    def stored(self) -> list[str]:
        return [info.name for info in self.store.list("")]

    def new_key(self) -> ApiKey:
        return new_key(self.registry, self.now.timestamp)

    def published_key(self, *, version_name: str = "model") -> ApiKey:
        api_key = self.new_key()
        publish(self.registry, self.store, api_key.key_id, self.folder / version_name, self.now)
        return api_key


@contextmanager
def running(folder: Path, **settings: Any) -> Iterator[Service]:
    """Run both apps in one, as the local server does, on a clock that only advances when a test moves it."""
    shared = shared_app(Settings(**settings))
    now = shared.reset_now()
    shared.counted.clear()
    registry = shared.registry.target = SqliteRegistry(folder / "registry.sqlite3", now.clock)
    shared.table.target = registry.table
    store = shared.store.target = FileObjectStore(folder / "objects")
    with start_blocking_portal() as portal:
        yield Service(Client(shared.app, portal), registry, store, folder, now, shared.counted)
    registry.close()


class Delegate:
    """Forwards every attribute to `target`, which each test replaces."""

    target: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self.target, name)


class SharedApp:
    """An app that tests use one after the other, because building it takes 40 ms."""

    def __init__(self, settings: Settings) -> None:
        self.registry: Any = Delegate()
        self.table: Any = Delegate()
        self.registry.table = self.table
        self.store: Any = Delegate()
        self.counted: list[str] = []
        self._now = Now()
        self.app = combined_app(self.registry, self.store, settings, self._now, self.counted)

    def reset_now(self) -> Now:
        """Set the clock and the timer to the start."""
        self._now.timestamp, self._now.seconds = Now.timestamp, Now.seconds
        return self._now


shared_app = lru_cache(maxsize=8)(SharedApp)


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Run uvicorn on a free port in a thread, and yield its base URL."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            eventually(lambda: server.started)
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def combined_app(registry: Registry, store: ObjectStore, settings: Settings, now: Now, counted: list[str]) -> FastAPI:
    app = FastAPI(openapi_url=None)
    problems.install(app)
    buckets = MemoryBuckets(now.timer)
    app.include_router(
        recsys_api.app.create_router(registry, store, settings, clock=now.clock, recommendation_buckets=buckets)
    )
    app.include_router(
        recsys_recommend.app.create_router(
            registry,
            store,
            settings,
            clock=now.clock,
            timer=now.timer,
            count_metric=counted.append,
            buckets=buckets,
        )
    )
    return app


def new_key(registry: Registry, now: Timestamp) -> ApiKey:
    api_key = ApiKey.mint()
    registry.create_key(KeyRecord(api_key.key_id, now, secret_sha256=api_key.sha256()))
    return api_key


def new_job(registry: Registry, key_id: str, now: Timestamp) -> Job:
    job_id = new_job_id()
    return registry.create_job(Job(job_id, key_id, layout.upload(job_id, gzipped=False), now, now))


def publish(
    registry: Registry,
    store: ObjectStore,
    key_id: str,
    folder: Path,
    now: Now,
    *,
    job: Job | None = None,
    item_ids: Sequence[str] = ("A", "B", "C", "D"),
    spoil: Callable[[Path], None] = lambda _: None,
) -> ModelVersion:
    """Publish a small hand-made model as a training job would.

    Items A, B, C, D have logits 3, 2, 1, 0 for every user. The history of u1 is A, that of u2 is B and C. The
    popularity of A and B is 0.5, that of C is 1, that of D is 0. `spoil` changes the files before they are published.
    """
    job = job or new_job(registry, key_id, now.timestamp)
    # Later than the previous version, or this one would be superseded.
    now.move(1)
    lease = registry.claim_job(job.job_id, owner="test", data_timestamp=f"{now.timestamp}#test", lease_s=60)
    folder.mkdir(parents=True, exist_ok=True)
    for name in (artifact.MODEL, artifact.INTERACTIONS):
        (folder / name).write_bytes(b"not read by serving")
    artifact.write_mappings(folder, ["u1", "u2"], item_ids)
    artifact.write_serving(
        folder,
        small_network(),
        user_ids=["u1", "u2"],
        item_ids=item_ids,
        seen_starts=np.array([0, 1, 3], dtype=np.int64),
        seen_items=np.array([0, 1, 2], dtype=np.int32),
        popularity=np.array([0.5, 0.5, 1.0, 0.0], dtype=np.float32),
    )
    artifact.write_metrics(folder, METRICS)
    artifact.write_manifest(folder, lease.version)
    spoil(folder)
    digest = sha256((folder / artifact.MANIFEST).read_bytes())
    for path in sorted(folder.iterdir()):
        store.create(layout.model_prefix(key_id, lease.version) + path.name, path.read_bytes())
    version = ModelVersion(key_id, lease.version, job.job_id, now.timestamp, digest, METRICS)
    registry.publish_version(lease, version, REPORT)
    return version


def small_network() -> Network:
    return Network(
        history_gmf=np.ones((4, 1), dtype=np.float32),
        history_hidden_1=np.zeros((4, 1), dtype=np.float32),
        mlp_bias_1=np.zeros(1, dtype=np.float32),
        decay=0.0,
        item_gmf=np.array([[3], [2], [1], [0]], dtype=np.float32),
        item_hidden_1=np.zeros((4, 1), dtype=np.float32),
        mlp_kernels=(),
        mlp_biases=(),
        output_mlp=np.zeros(1, dtype=np.float32),
        output_bias=0.0,
    )


def registry_is_empty(service: Service) -> bool:
    """Return whether the registry's table has no row of any kind, except for rate limits."""
    count = "SELECT count(*) FROM registry WHERE partition NOT LIKE 'LIMIT#%'"
    rows = service.registry._sqlite_table._connection().execute(count).fetchone()
    return bool(rows[0] == 0)


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a background task has made `condition` true."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, "The condition did not become true within 10 seconds."
        time.sleep(0.005)


def key_header(key: object) -> dict[str, bytes]:
    return {} if key is None else {"x-api-key": str(key).encode("latin-1")}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """Check the properties of every problem document, and return it."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["type"] == f"urn:recsys:problem:{code}", document
    assert document["status"] == status
    assert document["title"]
    assert document["detail"]
    assert document["request_id"] == response.headers["x-request-id"]
    return document
