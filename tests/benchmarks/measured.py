"""Seconds and memory: a program run on its own, and the phases of a training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.protocol import ROOT

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class Run:
    """`peak_gib` is the largest resident set of the process, Python and libraries included."""

    printed: str
    wall_s: float
    peak_gib: float


def run_task(name: str, **arguments: Any) -> tuple[dict[str, Any], Run]:
    """The result of a function of `tests.benchmarks.tasks`."""
    done = run([sys.executable, "-m", "tests.benchmarks.tasks", name, json.dumps(arguments)])
    result: dict[str, Any] = json.loads(done.printed.splitlines()[-1])
    return result, done


def run(command: list[str], environment: dict[str, str] | None = None) -> Run:
    """Raises SystemExit where the command fails; what it says to stderr is seen."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | (environment or {}), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # Popen.wait would not say what the child used
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    done = Run(printed, time.perf_counter() - started, usage.ru_maxrss * unit / GIB)
    if process.returncode:
        held = f"after {done.wall_s:.0f} s and {done.peak_gib:.1f} GiB at most"
        raise SystemExit(f"{' '.join(command)} ended with status {process.returncode} {held}:\n{printed}")
    return done


def seconds_by_phase(marks: list[tuple[str, float]], ended: float) -> dict[str, float]:
    """From `(phase, when it was reported)`: what lies between a report and the next one is the first one's phase."""
    seconds: dict[str, float] = {}
    for (phase, started), (_, until) in zip(marks, [*marks[1:], ("", ended)], strict=True):
        seconds[phase] = seconds.get(phase, 0.0) + until - started
    return seconds
