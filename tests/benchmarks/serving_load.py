"""Load from many clients while versions change and a key is revoked; every response is checked.

The load generators locust and autocannon count status codes, but do not compare each response with the lists that the
two versions may return. This one keeps its connections open, writes plain HTTP/1.1, and reads every response.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from recsys.model.neumf import Dims
from recsys.model.recommender import ServingModel, recommend
from recsys.objects.files import FileObjectStore
from recsys.registry.registry import Registry
from recsys.registry.sqlite import SqliteRegistry
from tests.benchmarks.serving_stage import Shop, new_shop, publish, random_model
from tests.integration.live_service import running_service

CONNECTIONS = 32
REVOKED_WITHIN_S = 5.0
FLIP_S = (0.5, 1.5)
"""Range of seconds for which a version stays current. It is random, because a fixed time could run in step with the
expiry of the key cache. The service looks up a key every few seconds, so a short run can miss a version."""
N = 10

Expected = dict[str, list[str]]
"""Expected item ids of a user, best first, by model version."""


@dataclass
class Seen:
    """Observations of the clients."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    rejected: int = 0
    last_answer_after_revoked_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def percentile(self, q: float) -> float:
        """Return a percentile of the latencies in ms, q in [0, 100]."""
        return float(np.percentile(self.latencies_ms, q))


@dataclass
class _Case:
    """A request, and the responses that are correct."""

    request: bytes
    expected: Expected
    has_revoked_key: bool


def run_load(
    folder: Path,
    seconds: float,
    *,
    dims: Dims,
    n_users: int = 200,
    flip_s: tuple[float, float] = FLIP_S,
    seed: int = 0,
) -> Seen:
    """Start the service with two tenants and send requests from 32 connections for `seconds`."""
    models = [random_model(dims, seed=version) for version in (1, 2)]
    with running_service(folder / "data", folder / "log") as service:
        registry = SqliteRegistry(folder / "data" / "registry.sqlite3")
        store = FileObjectStore(folder / "data")
        flipping = new_shop(registry, store, folder / "1", models[0])
        second = publish(registry, store, flipping.key_id, folder / "2", models[1])
        revoked = new_shop(registry, store, folder / "3", models[0])
        models_by_key = {
            flipping.api_key: {flipping.version: models[0], second: models[1]},
            revoked.api_key: {revoked.version: models[0]},
        }
        cases = [
            _case(key, versions, f"u{user}", has_revoked_key=key == revoked.api_key)
            for key, versions in models_by_key.items()
            for user in range(n_users if key == flipping.api_key else n_users // 10)
        ]
        load = _Load(service.base_url, cases, seconds, flip_s, seed)
        seen = asyncio.run(load.run(registry, flipping, [flipping.version, second], revoked))
        registry.close()
    return seen


def _case(api_key: str, versions: Mapping[str, ServingModel], user_id: str, *, has_revoked_key: bool) -> _Case:
    body = json.dumps({"user_id": user_id, "n": N}).encode()
    head = (
        "POST /v1/recommendations HTTP/1.1\r\nHost: service\r\nContent-Type: application/json\r\n"
        f"X-API-Key: {api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    expected = {
        version: [item.item_id for item in recommend(model, user_id, n=N).items] for version, model in versions.items()
    }
    return _Case(head.encode() + body, expected, has_revoked_key)


class _Load:
    def __init__(
        self, base_url: str, cases: Sequence[_Case], seconds: float, flip_s: tuple[float, float], seed: int
    ) -> None:
        parts = urlsplit(base_url)
        self._address = (parts.hostname, parts.port)
        self._cases = cases
        self._seconds = seconds
        self._flip_s = flip_s
        self._random = random.Random(seed)
        self._revocation_time = float("inf")
        self._seen = Seen()

    async def run(self, registry: Registry, flipping: Shop, versions: Sequence[str], revoked: Shop) -> Seen:
        """Run the clients while versions change and a key is revoked; return their observations."""
        started = time.perf_counter()
        self._until = started + self._seconds
        clients = [self._client() for _ in range(CONNECTIONS)]
        await asyncio.gather(*clients, self._flip(registry, flipping, versions), self._revoke(registry, revoked))
        self._seen.seconds = time.perf_counter() - started
        return self._seen

    async def _flip(self, registry: Registry, shop: Shop, versions: Sequence[str]) -> None:
        turn = 0
        while time.perf_counter() < self._until:
            await asyncio.to_thread(registry.activate_version, shop.key_id, versions[turn % 2])
            turn += 1
            await asyncio.sleep(self._random.uniform(*self._flip_s))

    async def _revoke(self, registry: Registry, shop: Shop) -> None:
        await asyncio.sleep(max(0.0, self._seconds / 2 - REVOKED_WITHIN_S / 2))
        await asyncio.to_thread(registry.revoke_key, shop.key_id)
        self._revocation_time = time.perf_counter()

    async def _client(self) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            while time.perf_counter() < self._until:
                case = self._random.choice(self._cases)
                started = time.perf_counter()
                writer.write(case.request)
                status, body = await _read_response(reader)
                self._judge(case, status, body, started)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._seen.errors.append(repr(error))
        finally:
            writer.close()

    def _judge(self, case: _Case, status: int, body: bytes, started: float) -> None:
        ended = time.perf_counter()
        self._seen.latencies_ms.append((ended - started) * 1000)
        if case.has_revoked_key and status == 401 and ended >= self._revocation_time:
            self._seen.rejected += 1
            return
        if status != 200:
            self._seen.errors.append(f"{status} {body[:200]!r}")
            return
        response = json.loads(body)
        if [item["item_id"] for item in response["items"]] != case.expected.get(response["model_version"]):
            self._seen.wrong.append(body[:200].decode())
        self._seen.versions[response["model_version"]] += 1
        if case.has_revoked_key and started > self._revocation_time:
            self._seen.last_answer_after_revoked_s = max(
                self._seen.last_answer_after_revoked_s, started - self._revocation_time
            )


async def _read_response(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    lengths = [line.partition(":")[2] for line in lines[1:] if line.lower().startswith("content-length:")]
    return int(lines[0].split(" ")[1]), await reader.readexactly(int(lengths[0]))
