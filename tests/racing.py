"""Many threads that do one thing at the same moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


def race(*contenders: Callable[[], T]) -> Sequence[T | Exception]:
    """What each contender returned or raised; all start together."""
    barrier = threading.Barrier(len(contenders))

    def run(contender: Callable[[], T]) -> T | Exception:
        barrier.wait()
        try:
            return contender()
        except Exception as error:  # noqa: BLE001 - the outcome is what the test looks at
            return error

    with ThreadPoolExecutor(len(contenders)) as pool:
        return list(pool.map(run, contenders))
