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
    return [b"x" * size for size in range(1_000_000, 1_000_008)]

with reuse_freed_memory() if sys.argv[1] == "reusing" else contextlib.nullcontext():
    chunk()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        chunk()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(how: str) -> int:
    ended = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
    return int(ended.stdout)


def test_freed_chunks_are_used_again() -> None:
    assert page_faults("reusing") < page_faults("default") / 10
