"""Waiting times of trainings on one machine or on AWS: turns among keys beside first come, first served.

python -m tests.benchmarks.fairness [--aws] [--tenants 1000] [--jobs 5000] [--load 0.9] [--workers 1] [--seed 0]

With --aws, the order is that of `recsys.registry.turns`, the workers are the slots of `train`, and --load is the share
of the time that all slots together would be busy.

A simulation. Job durations are heavy-tailed (Pareto, most take seconds, a few take ten minutes), a few
tenants send most jobs, and a flood of anonymous jobs arrives at once. The order is that of `recsys_local.scheduler`.
"""

from __future__ import annotations

import argparse
import heapq
import math
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

import numpy as np

from recsys.registry.sqlite import SqliteTable
from recsys_local.scheduler import FairQueue, QueuedJob
from tests.benchmarks.aws_turns import MessageGroups, TurnsOnAws
from tests.benchmarks.tables import Table

QUANTILES: Final = (0.5, 0.9, 0.99, 1.0)
SHORTEST_S: Final = 2.0
LONGEST_S: Final = 600.0  # the time budget of a training
TAIL_INDEX: Final = 1.1
"""Exponent of the Pareto distribution; below 2, the variance of the durations would be infinite without the limit."""
ANONYMOUS_SHARE: Final = 0.2
FLOOD_SIZE: Final = 200
TRAIN_CONCURRENCY: Final = 4
"""Slots of `train` on AWS (`TrainConcurrency` in template.yaml)."""


class Queue(Protocol):
    """What the simulated worker takes its jobs from."""

    def add(self, job: QueuedJob) -> QueuedJob | None:
        """Add a job; return the job that it supersedes."""

    def start(self) -> QueuedJob | None:
        """Remove the next job and return it."""

    def finish(self, key_id: str, *, now_s: float) -> None:
        """Record the end of a job."""


@dataclass(slots=True)
class ArrivalOrder:
    """First come, first served."""

    jobs: deque[QueuedJob] = field(default_factory=deque)

    def add(self, job: QueuedJob) -> None:
        """Append a job."""
        self.jobs.append(job)

    def start(self) -> QueuedJob | None:
        """Return the job that arrived first."""
        return self.jobs.popleft() if self.jobs else None

    def finish(self, key_id: str, *, now_s: float) -> None:
        """Do nothing: the past does not matter."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The wait of a key: from the arrival of its oldest waiting job to the start of its training.

    Parameters
    ----------
    job
        The job that started.
    wait_s
        Duration of the wait.
    n_known, n_anonymous
        Number of keys that had a waiting or running job at any time during the wait, the key itself included.
    """

    job: QueuedJob
    wait_s: float
    n_known: int
    n_anonymous: int

    def bound_s(self, longest_s: float) -> float:
        """Return the longest wait that the rules of `FairQueue` allow."""
        if self.job.is_known:
            return (self.n_known + (self.n_anonymous > 0)) * longest_s
        # The anonymous keys share one turn among the known ones.
        return self.n_anonymous * (self.n_known + 1) * longest_s


def simulate(jobs: Sequence[QueuedJob], queue: Queue, *, n_workers: int = 1) -> list[Wait]:
    """Run jobs, sorted by arrival, on workers; a job takes `cost` seconds. Superseded jobs are not run."""
    waits: list[Wait] = []
    active_until_s: dict[str, float] = {}
    is_known = {job.key_id: job.is_known for job in jobs}
    waiting_since_s: dict[str, list[float]] = {}
    running: list[tuple[float, str]] = []
    now_s, n_arrived = 0.0, 0
    while True:
        while n_arrived < len(jobs) and jobs[n_arrived].arrived_s <= now_s:
            job = jobs[n_arrived]
            n_arrived += 1
            if queue.add(job) is None:
                waiting_since_s.setdefault(job.key_id, []).append(job.arrived_s)
        started = queue.start() if len(running) < n_workers else None
        if started is not None:
            since_s = waiting_since_s[started.key_id].pop(0)
            if not waiting_since_s[started.key_id]:
                del waiting_since_s[started.key_id]
            active = {key_id for key_id, until_s in active_until_s.items() if until_s > since_s}
            active |= {started.key_id, *waiting_since_s}
            n_known = sum(is_known[key_id] for key_id in active)
            waits.append(Wait(started, now_s - since_s, n_known, len(active) - n_known))
            active_until_s[started.key_id] = now_s + started.cost
            heapq.heappush(running, (now_s + started.cost, started.key_id))
            continue
        # Only a worker that is free notices an arrival.
        arrival_s = jobs[n_arrived].arrived_s if n_arrived < len(jobs) and len(running) < n_workers else math.inf
        if running and running[0][0] <= arrival_s:
            now_s, key_id = heapq.heappop(running)
            queue.finish(key_id, now_s=now_s)
        elif arrival_s < math.inf:
            now_s = arrival_s
        else:
            return waits


def made_jobs(n_tenants: int, n_jobs: int, *, load: float, seed: int) -> list[QueuedJob]:
    """Return jobs in order of arrival; `load` is the share of the time that one worker would be busy without a flood.

    Tenants send jobs by Zipf's law. An anonymous job has a key of its own. In the middle, a flood of `FLOOD_SIZE`
    anonymous jobs arrives within six seconds.
    """
    generator = np.random.default_rng(seed)
    durations_s = np.minimum(SHORTEST_S * (1.0 + generator.pareto(TAIL_INDEX, n_jobs)), LONGEST_S)
    times_s = np.cumsum(generator.exponential(durations_s.mean() / load, n_jobs))
    popularity = 1.0 / np.arange(1, n_tenants + 1)
    tenants = generator.choice(n_tenants, n_jobs, p=popularity / popularity.sum())
    is_known = generator.random(n_jobs) >= ANONYMOUS_SHARE
    jobs = [
        QueuedJob(f"job{number}", f"tenant{tenant}" if known else f"anonymous{number}", float(time_s), float(s), known)
        for number, (tenant, known, time_s, s) in enumerate(
            zip(tenants.tolist(), is_known.tolist(), times_s, durations_s, strict=True)
        )
    ]
    flood_s = float(times_s[n_jobs // 2])
    jobs += [
        QueuedJob(f"flood{number}", f"flood{number}", flood_s + 6.0 * number / FLOOD_SIZE, SHORTEST_S, is_known=False)
        for number in range(FLOOD_SIZE)
    ]
    return sorted(jobs, key=lambda job: job.arrived_s)


def beyond_bound(waits: Sequence[Wait]) -> list[Wait]:
    """Return the waits that are longer than the rules allow."""
    longest_s = max(wait.job.cost for wait in waits)
    return [wait for wait in waits if wait.wait_s > wait.bound_s(longest_s) + 1e-6]


def quantiles_s(waits: Sequence[Wait], select: Callable[[QueuedJob], bool]) -> list[float]:
    """Return the quantiles of the waits of the selected jobs, in seconds; see `QUANTILES`."""
    return [float(value) for value in np.quantile([wait.wait_s for wait in waits if select(wait.job)], QUANTILES)]


GROUPS: Final[dict[str, Callable[[QueuedJob], bool]]] = {
    "known keys": lambda job: job.is_known,
    "known keys, small jobs (≤ 5 s)": lambda job: job.is_known and job.cost <= 5,
    "known keys, large jobs (≥ 60 s)": lambda job: job.is_known and job.cost >= 60,
    "anonymous keys": lambda job: not job.is_known,
}


def main() -> None:
    """Print the quantiles of the waiting times under both orders, and check the bound."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "--aws", action="store_true", help="compare orders on AWS, with 4 slots unless --workers is given"
    )
    parser.add_argument("--tenants", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--load", type=float, default=0.9)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    n_workers = arguments.workers or (TRAIN_CONCURRENCY if arguments.aws else 1)
    load = arguments.load * (n_workers if arguments.aws else 1)
    jobs = made_jobs(arguments.tenants, arguments.jobs, load=load, seed=arguments.seed)
    columns = {"keys": "", "order": "", "trainings": ",d"}
    table = Table("Wait in seconds", columns | dict.fromkeys(("p50", "p90", "p99", "max"), ",.0f"))
    orders: dict[str, Queue] = {"first come": ArrivalOrder(), "turns": FairQueue()}
    with tempfile.TemporaryDirectory() as folder:
        if arguments.aws:
            rows = SqliteTable(Path(folder) / "registry.sqlite3")
            orders |= {"message groups": MessageGroups(), "turns": TurnsOnAws(rows)}
        waits_by_order = {order: simulate(jobs, queue, n_workers=n_workers) for order, queue in orders.items()}
    for group, select in GROUPS.items():
        for order, waits in waits_by_order.items():
            n_trainings = sum(select(wait.job) for wait in waits)
            table.rows.append([group, order, n_trainings, *quantiles_s(waits, select)])
    print(table.text())
    broken = beyond_bound(waits_by_order["turns"])
    print(f"{len(broken)} of {len(waits_by_order['turns']):,} waits under turns exceed the bound.")
    raise SystemExit(bool(broken))


if __name__ == "__main__":
    main()
