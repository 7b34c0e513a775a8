"""Requests over kept-alive connections: `recsys serve` beside a bare FastAPI app under the same uvicorn.

python -m tests.benchmarks.serving_keepalive [--seconds 10] [--connections 1 32]

The load generator runs on the same machine, so both servers share the cores with it; the ratio is what compares.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final
from urllib.parse import urlsplit

import httpx
import numpy as np

from recsys.model.neumf import Dims
from recsys.objects.files import FileObjectStore
from recsys.registry.sqlite import SqliteRegistry
from tests.benchmarks.serving_stage import new_shop, random_model
from tests.benchmarks.tables import Table
from tests.integration.live_service import eventually, running_service

DIMS: Final = Dims(n_users=1000, n_items=4000, gmf_dim=64, mlp_dim=32, hidden_dims=(64, 32, 16, 8))
N_ITEMS: Final = 10
WARM_UP_S: Final = 3.0
ROUND_S: Final = 1.0
"""The servers are measured in turn for this long, so that other programs on the machine slow down both alike."""
_BARE_APP: Final = """
import socket
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

app = FastAPI()


class Query(BaseModel):
    user_id: str
    n: int = 10


@app.post("/v1/recommendations")
async def recommendations(query: Query):
    items = [{"item_id": str(rank), "rank": rank, "score": 0.5} for rank in range(1, query.n + 1)]
    return {"user_id": query.user_id, "items": items}


listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
listener.bind(("127.0.0.1", 0))
print(f"http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
config = uvicorn.Config(app, http="h11", log_level="warning", access_log=False, lifespan="off")
uvicorn.Server(config).run(sockets=[listener])
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=10.0, help="duration of each row and server")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 32])
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder:
        print(f"\n{measure_keepalive(Path(folder), arguments.seconds, arguments.connections).text()}", flush=True)


def measure_keepalive(folder: Path, seconds: float, connections: list[int]) -> Table:
    """Send requests to both servers in turn.

    Parameters
    ----------
    folder
        Empty directory for the service's state.
    seconds
        Duration of each measurement.
    connections
        Numbers of connections to measure with. Every connection sends one request after the other.

    Returns
    -------
    One row per number of connections: median and 99th percentile of the latency, requests per second, and the ratio of
    the two rates.
    """
    model, n_rounds = random_model(DIMS), max(1, round(seconds / ROUND_S))
    table = Table(
        "POST /v1/recommendations over kept-alive connections",
        {
            "connections": "d",
            "bare p50 ms": ".2f",
            "ours p50 ms": ".2f",
            "ours p99 ms": ".2f",
            "bare requests/s": ",.0f",
            "ours requests/s": ",.0f",
            "ours ÷ bare": ".2f",
        },
        notes=[
            f"{N_ITEMS} of {DIMS.n_items:,} items, {DIMS.n_users:,} users; {n_rounds} rounds of {ROUND_S:g} s each."
        ],
    )
    with running_service(folder / "data", folder / "log") as service, _bare_service() as bare_url:
        registry = SqliteRegistry(folder / "data" / "registry.sqlite3")
        shop = new_shop(registry, FileObjectStore(folder / "data"), folder / "model", model)
        requests = [_request(shop.api_key, user_id) for user_id in model.users]
        for n_connections in connections:
            latencies_ms: dict[str, list[float]] = {bare_url: [], service.base_url: []}
            for url in latencies_ms:
                asyncio.run(_load(url, requests, n_connections, WARM_UP_S))
            for _ in range(n_rounds):
                for url, measured in latencies_ms.items():
                    measured.extend(asyncio.run(_load(url, requests, n_connections, ROUND_S)))
            bare, ours = latencies_ms.values()
            bare_rate, ours_rate = len(bare) / (n_rounds * ROUND_S), len(ours) / (n_rounds * ROUND_S)
            p50, p99 = np.percentile(ours, [50, 99])
            table.rows.append(
                [n_connections, np.percentile(bare, 50), p50, p99, bare_rate, ours_rate, ours_rate / bare_rate]
            )
        registry.close()
    return table


@contextlib.contextmanager
def _bare_service() -> Iterator[str]:
    """Run the bare app in a process of its own; yields its URL."""
    process = subprocess.Popen([sys.executable, "-c", _BARE_APP], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        eventually(lambda: httpx.get(f"{url}/openapi.json", trust_env=False).is_success, "the bare app did not start")
        yield url
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _request(api_key: str, user_id: str) -> bytes:
    body = json.dumps({"user_id": user_id, "n": N_ITEMS}).encode()
    head = (
        "POST /v1/recommendations HTTP/1.1\r\nHost: service\r\nContent-Type: application/json\r\n"
        f"X-API-Key: {api_key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _load(url: str, requests: list[bytes], n_connections: int, seconds: float) -> list[float]:
    """Return the latencies in ms of all requests that `n_connections` clients sent within `seconds`."""
    latencies_ms: list[float] = []
    until_s = time.perf_counter() + seconds

    async def run_client(first: int) -> None:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        number = first
        while (started_s := time.perf_counter()) < until_s:
            writer.write(requests[number % len(requests)])
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 "), head
            length = head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length))
            latencies_ms.append(1000 * (time.perf_counter() - started_s))
            number += n_connections
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(run_client(first) for first in range(n_connections)))
    return latencies_ms


if __name__ == "__main__":
    main()
