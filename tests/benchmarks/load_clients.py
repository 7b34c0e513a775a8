"""Clients that keep their connections open, and compare each response with the list that the model must give."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np

from recsys.model.recommender import ServingModel, recommend
from tests.integration.live_service import LiveService

N = 10
CHECKED_SHARE = 0.1
"""Share of the responses that are parsed and compared, so that the clients leave the cores to the service."""


@dataclass(frozen=True, slots=True)
class Case:
    """A request, and the item ids of the correct response."""

    request: bytes
    expected: list[str]


@dataclass(slots=True)
class Outcome:
    """What the clients observed."""

    seconds: float = 0.0
    latencies_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    n_wrong: int = 0

    @property
    def n_responses(self) -> int:
        """Number of responses with status 200."""
        return len(self.latencies_ms)

    def percentile_ms(self, q: float) -> float:
        """Return a percentile of the latencies in ms, q in [0, 100]."""
        return float(np.percentile(self.latencies_ms, q)) if self.latencies_ms else float("nan")


def case_of(api_key: str, model: ServingModel, user_id: str) -> Case:
    """Return the request for a user's recommendations, with the list that `model` gives."""
    body = json.dumps({"user_id": user_id, "n": N}).encode()
    head = (
        "POST /v1/recommendations HTTP/1.1\r\nHost: service\r\nContent-Type: application/json\r\n"
        f"X-API-Key: {api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return Case(head.encode() + body, [item.item_id for item in recommend(model, user_id, n=N).items])


def run_clients(service: LiveService, cases: Sequence[Case], n_connections: int, seconds: float) -> Outcome:
    """Send the requests in random order from `n_connections` clients for `seconds`."""
    return asyncio.run(_run(service.base_url, cases, n_connections, seconds))


async def _run(url: str, cases: Sequence[Case], n_connections: int, seconds: float) -> Outcome:
    outcome, started_s = Outcome(), time.perf_counter()
    clients = [_client(url, cases, started_s + seconds, outcome, seed) for seed in range(n_connections)]
    await asyncio.gather(*clients)
    outcome.seconds = time.perf_counter() - started_s
    return outcome


async def _client(url: str, cases: Sequence[Case], until_s: float, outcome: Outcome, seed: int) -> None:
    address, generator = urlsplit(url), random.Random(seed)
    try:
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        while (started_s := time.perf_counter()) < until_s:
            case = generator.choice(cases)
            writer.write(case.request)
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            body = await reader.readexactly(int(length))
            latency_ms = 1000 * (time.perf_counter() - started_s)
            if not head.startswith(b"HTTP/1.1 200 "):
                outcome.errors.append(f"{head[9:12].decode()} {body[:200]!r}")
                continue
            outcome.latencies_ms.append(latency_ms)
            if generator.random() < CHECKED_SHARE:
                outcome.n_wrong += [item["item_id"] for item in json.loads(body)["items"]] != case.expected
        writer.close()
    except (OSError, asyncio.IncompleteReadError) as error:
        outcome.errors.append(repr(error))
