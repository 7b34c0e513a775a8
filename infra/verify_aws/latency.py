"""Latency of recommendations as a client sees it, with new and with warm environments of the function."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import ceil
from typing import Final

from verify_aws.flows import Service, check

N_COLD: Final = 5
"""Simultaneous requests, each of which needs an environment. New accounts have a limit of ten."""
N_WARM: Final = 100


@dataclass(frozen=True, slots=True)
class Latencies:
    """Sorted times of requests in milliseconds."""

    name: str
    times_ms: Sequence[float]

    def percentile(self, percent: float) -> float:
        """Return the smallest time that at least `percent` % of the requests did not exceed."""
        return self.times_ms[max(0, ceil(percent / 100 * len(self.times_ms)) - 1)]

    def __str__(self) -> str:
        figures = ", ".join(f"p{percent} {self.percentile(percent):.0f} ms" for percent in (50, 90, 99))
        requests = "1 request" if len(self.times_ms) == 1 else f"{len(self.times_ms)} requests"
        return f"{self.name} ({requests}): {figures}"


def measure(service: Service, api_key: str, *, n_cold: int = N_COLD, n_warm: int = N_WARM) -> Iterator[Latencies]:
    """Yield the latencies of cold, then of warm requests.

    Cold requests are sent at the same time to a function that has not been called yet, so that each starts an
    environment and loads the model. Warm requests are sent one after another.
    """
    with ThreadPoolExecutor(n_cold) as pool:
        cold = list(pool.map(lambda _: _time_ms(service, api_key), range(n_cold)))
    yield Latencies("cold", sorted(cold))
    # One connection per request, so the times include the handshake of TLS.
    yield Latencies("warm", sorted(_time_ms(service, api_key) for _ in range(n_warm)))


def _time_ms(service: Service, api_key: str) -> float:
    started_s = time.perf_counter()
    check(service.recommend(api_key, user_id="u1"), 200)
    return 1000 * (time.perf_counter() - started_s)
