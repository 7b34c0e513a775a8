"""Run functions concurrently in threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def race(*contenders: Callable[[], T]) -> Sequence[T | Exception]:
    """Start all contenders at the same moment. Return what each one returned or raised."""
    barrier = threading.Barrier(len(contenders))

    def run(contender: Callable[[], T]) -> T | Exception:
        barrier.wait()
        try:
            return contender()
        except Exception as error:  # noqa: BLE001 - the test checks the outcome
            return error

    with ThreadPoolExecutor(len(contenders)) as pool:
        return list(pool.map(run, contenders))
