"""Many clients at once while versions flip and a key is revoked: is every answer one of those that are right?

Load generators from PyPI and npm (locust, autocannon) count statuses; none holds each answer against what two versions
may say. This one keeps its connections open, writes plain HTTP/1.1 and reads every answer.
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
from tests.benchmarks.serving_stage import Shop, made_model, new_shop, publish
from tests.integration.live_service import running_service

CONNECTIONS = 32
REVOKED_WITHIN_S = 5.0
FLIP_S = (0.5, 1.5)
"""A version is current for so long, one second on average: a fixed time would beat against that of the key cache.

The service looks up a key every few seconds: a run of a minute meets both versions, a short one may miss one of them.
"""
N = 10

Expected = dict[str, list[str]]
"""By version: the items that a user is recommended, best first."""


@dataclass
class Seen:
    """What the clients met."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    versions: Counter[str] = field(default_factory=Counter)
    refused: int = 0
    last_answer_after_revoked_s: float = 0.0
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    def percentile(self, q: float) -> float:
        """Of the latencies, in ms."""
        return float(np.percentile(self.latencies_ms, q))


@dataclass
class _Question:
    """What one connection asks, and what may come back."""

    request: bytes
    expected: Expected
    is_of_revoked_key: bool


def run_load(
    folder: Path,
    seconds: float,
    *,
    dims: Dims,
    n_users: int = 200,
    flip_s: tuple[float, float] = FLIP_S,
    seed: int = 0,
) -> Seen:
    """Start the service on a directory with two shops, and ask it from 32 connections for so long."""
    models = [made_model(dims, seed=version) for version in (1, 2)]
    with running_service(folder / "data", folder / "log") as service:
        registry = SqliteRegistry(folder / "data" / "registry.sqlite3")
        store = FileObjectStore(folder / "data")
        flipping = new_shop(registry, store, folder / "1", models[0])
        second = publish(registry, store, flipping.key_id, folder / "2", models[1])
        revoked = new_shop(registry, store, folder / "3", models[0])
        answers = {
            flipping.api_key: {flipping.version: models[0], second: models[1]},
            revoked.api_key: {revoked.version: models[0]},
        }
        questions = [
            _question(key, versions, f"u{user}", is_of_revoked_key=key == revoked.api_key)
            for key, versions in answers.items()
            for user in range(n_users if key == flipping.api_key else n_users // 10)
        ]
        load = _Load(service.base_url, questions, seconds, flip_s, seed)
        seen = asyncio.run(load.run(registry, flipping, [flipping.version, second], revoked))
        registry.close()
    return seen


def _question(
    api_key: str, versions: Mapping[str, ServingModel], user_id: str, *, is_of_revoked_key: bool
) -> _Question:
    body = json.dumps({"user_id": user_id, "n": N}).encode()
    head = (
        "POST /v1/recommendations HTTP/1.1\r\nHost: service\r\nContent-Type: application/json\r\n"
        f"X-API-Key: {api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    expected = {
        version: [item.item_id for item in recommend(model, user_id, n=N).items] for version, model in versions.items()
    }
    return _Question(head.encode() + body, expected, is_of_revoked_key)


class _Load:
    def __init__(
        self, base_url: str, questions: Sequence[_Question], seconds: float, flip_s: tuple[float, float], seed: int
    ) -> None:
        parts = urlsplit(base_url)
        self._address = (parts.hostname, parts.port)
        self._questions = questions
        self._seconds = seconds
        self._flip_s = flip_s
        self._random = random.Random(seed)
        self._revoked_at = float("inf")
        self._seen = Seen()

    async def run(self, registry: Registry, flipping: Shop, versions: Sequence[str], revoked: Shop) -> Seen:
        """Ask, flip and revoke; the end of all of it."""
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
        self._revoked_at = time.perf_counter()

    async def _client(self) -> None:
        reader, writer = await asyncio.open_connection(*self._address)
        try:
            while time.perf_counter() < self._until:
                question = self._random.choice(self._questions)
                started = time.perf_counter()
                writer.write(question.request)
                status, body = await _read_answer(reader)
                self._judge(question, status, body, started)
        except (OSError, asyncio.IncompleteReadError) as error:
            self._seen.errors.append(repr(error))
        finally:
            writer.close()

    def _judge(self, question: _Question, status: int, body: bytes, started: float) -> None:
        ended = time.perf_counter()
        self._seen.latencies_ms.append((ended - started) * 1000)
        if question.is_of_revoked_key and status == 401 and ended >= self._revoked_at:
            self._seen.refused += 1
            return
        if status != 200:
            self._seen.errors.append(f"{status} {body[:200]!r}")
            return
        answer = json.loads(body)
        if [item["item_id"] for item in answer["items"]] != question.expected.get(answer["model_version"]):
            self._seen.wrong.append(body[:200].decode())
        self._seen.versions[answer["model_version"]] += 1
        if question.is_of_revoked_key and started > self._revoked_at:
            self._seen.last_answer_after_revoked_s = max(
                self._seen.last_answer_after_revoked_s, started - self._revoked_at
            )


async def _read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    lengths = [line.partition(":")[2] for line in lines[1:] if line.lower().startswith("content-length:")]
    return int(lines[0].split(" ")[1]), await reader.readexactly(int(lengths[0]))
