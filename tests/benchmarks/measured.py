"""Measure time and memory of a process, and the time of each phase of a training run."""

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
    """The output of a process, its time, and its peak resident set, which includes Python and libraries."""

    printed: str
    wall_s: float
    peak_gib: float


def run_task(name: str, **arguments: Any) -> tuple[dict[str, Any], Run]:
    """Run a function of `tests.benchmarks.tasks` in a process of its own and return its result."""
    done = run([sys.executable, "-m", "tests.benchmarks.tasks", name, json.dumps(arguments)])
    result: dict[str, Any] = json.loads(done.printed.splitlines()[-1])
    return result, done


def run(command: list[str], environment: dict[str, str] | None = None) -> Run:
    """Run a command; stderr is passed through. Raise `SystemExit` if it fails."""
    started = time.perf_counter()
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | (environment or {}), stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout as stdout:
        printed = stdout.read()
    _, status, usage = os.wait4(process.pid, 0)  # Popen.wait does not return the resource usage
    process.returncode = os.waitstatus_to_exitcode(status)
    unit = 1 if sys.platform == "darwin" else 1024
    done = Run(printed, time.perf_counter() - started, usage.ru_maxrss * unit / GIB)
    if process.returncode:
        usage_text = f"after {done.wall_s:.0f} s, peak memory {done.peak_gib:.1f} GiB"
        raise SystemExit(f"{' '.join(command)} exited with status {process.returncode} {usage_text}:\n{printed}")
    return done


def seconds_by_phase(marks: list[tuple[str, float]], ended: float) -> dict[str, float]:
    """Return the seconds of each phase from `(phase, time of its report)`; a phase lasts until the next report."""
    seconds: dict[str, float] = {}
    for (phase, started), (_, until) in zip(marks, [*marks[1:], ("", ended)], strict=True):
        seconds[phase] = seconds.get(phase, 0.0) + until - started
    return seconds
