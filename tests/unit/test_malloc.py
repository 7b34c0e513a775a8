"""Memory of evicted models is returned to the operating system."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has mallopt")

_PROGRAM = """
import sys
import psutil
from recsys_local.malloc import return_large_blocks

if sys.argv[1] == "returning":
    assert return_large_blocks()
# As a cache does: keep some models of 20 MB, and drop the others.
kept = []
for number in range(40):
    block = bytes(20_000_000)
    small = [bytes(100_000) for _ in range(5)]
    kept.append((bytearray(block), small) if number % 8 == 0 else (None, small))
del block
print(psutil.Process().memory_info().rss)
"""


def resident_bytes(how: str) -> int:
    ended = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=True)
    return int(ended.stdout)


def test_freed_models_leave_the_process() -> None:
    assert resident_bytes("returning") < resident_bytes("default") - 20_000_000
