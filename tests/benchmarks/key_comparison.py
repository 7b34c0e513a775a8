"""Duration of authenticating right and wrong API keys: `python -m tests.benchmarks.key_comparison`.

A comparison that stops at the first difference would take longer, the longer the common prefix of guess and secret is.
The keys are compared by their digests, whose prefix a client cannot choose; the rows with a digest that differs in its
first or its last character show that even a client who could would learn nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import hmac
import random
import statistics
import time
from collections.abc import Callable

from recsys.clock import Timestamp
from recsys.errors import InvalidApiKey
from recsys.keys.api_key import ApiKey
from recsys.keys.authentication import Authenticator
from recsys.registry.key_record import KeyRecord

NOW = Timestamp("2026-03-01T12:00:00.000000Z")


class _Stored:
    """A registry whose key has the given digest."""

    def __init__(self, sha256: str) -> None:
        self._record = KeyRecord("shop12345678", NOW, secret_sha256=sha256)

    def get_key(self, key_id: str) -> KeyRecord:
        return self._record


def _authentication(text: str, stored_sha256: str) -> Callable[[], object]:
    authenticator = Authenticator(_Stored(stored_sha256), clock=lambda: NOW)

    def authenticate() -> None:
        with contextlib.suppress(InvalidApiKey):
            authenticator.authenticate(text)

    return authenticate


def _changed(sha256: str, position: int) -> str:
    other = "0" if sha256[position] != "0" else "1"
    characters = list(sha256)
    characters[position] = other
    return "".join(characters)


def measure(cases: dict[str, Callable[[], object]], *, rounds: int) -> dict[str, list[float]]:
    """Return the durations of each case in nanoseconds; every round runs the cases in another order."""
    rng = random.Random(0)
    names = list(cases)
    durations: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        rng.shuffle(names)
        for name in names:
            started_ns = time.perf_counter_ns()
            cases[name]()
            durations[name].append(time.perf_counter_ns() - started_ns)
    return durations


def main() -> None:
    """Print the median and the quartiles of each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=50_000)
    rounds = parser.parse_args().rounds
    key = ApiKey.mint("shop12345678")
    digest = key.sha256()
    first, last = _changed(digest, 0), _changed(digest, 63)
    cases = {
        "right key": _authentication(str(key), digest),
        "wrong key, first character of the digest differs": _authentication(str(key), first),
        "wrong key, last character of the digest differs": _authentication(str(key), last),
        "hmac.compare_digest, first character": lambda: hmac.compare_digest(digest, first),
        "hmac.compare_digest, last character": lambda: hmac.compare_digest(digest, last),
    }
    for name, found in measure(cases, rounds=rounds).items():
        lower, median, upper = statistics.quantiles(found, n=4)
        print(f"{name:<52} median {median:8,.0f} ns   quartiles {lower:8,.0f} to {upper:8,.0f} ns")


if __name__ == "__main__":
    main()
