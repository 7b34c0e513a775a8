"""Memory that is freed while a file is read is used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")

_PROGRAM = """
import contextlib, resource, sys
from recsys_train.data.freed_memory import reuse_freed_memory

def chunk():
    return [b"x" * int(sys.argv[2]) for _ in range(4)]

with reuse_freed_memory() if sys.argv[1] == "reusing" else contextlib.nullcontext():
    chunk()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        chunk()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str, n_bytes: int) -> int:
    program = [sys.executable, "-c", _PROGRAM, how, str(n_bytes)]
    return int(subprocess.run(program, capture_output=True, text=True, check=True).stdout)


@pytest.mark.parametrize("n_bytes", [1_000_000, 50_000_000], ids=["chunk", "array-of-a-large-file"])
def test_freed_memory_is_used_again(n_bytes: int) -> None:
    assert page_faults("reusing", n_bytes) < page_faults("default", n_bytes) / 10


_THREAD = """
import threading
import numpy as np
from recsys_train.data.freed_memory import reuse_freed_memory

def fill():
    sums.append(sum(int(np.ones(20_000_000, np.int32).sum()) for _ in range(3)))

sums = []
with reuse_freed_memory():
    thread = threading.Thread(target=fill)
    thread.start()
    thread.join()
fill()
print(sums)
"""


def test_threads_allocate_large_arrays() -> None:
    ended = subprocess.run([sys.executable, "-c", _THREAD], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["[60000000,", "60000000]"]


_FREED = """
import psutil
from recsys_train.data.freed_memory import reuse_freed_memory

process = psutil.Process()
before = process.memory_info().rss
with reuse_freed_memory():
    grown = process.memory_info().rss - before
    large, last = b"x" * 300_000_000, bytearray(100_000)
    del large
print(grown, process.memory_info().rss - before)
"""


def test_reserved_memory_is_not_used_and_freed_memory_is_returned() -> None:
    ended = subprocess.run([sys.executable, "-c", _FREED], capture_output=True, text=True, check=True)
    grown, kept = map(int, ended.stdout.split())
    assert grown < 10_000_000
    assert kept < 30_000_000
