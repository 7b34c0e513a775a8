"""Compute metrics at each scrape from the registry, the queue file, the disk and the heartbeats of the workers.

The training workers are other processes. They record all their results in the registry, so that no metrics are sent
between processes.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client import Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from recsys.clock import Clock, Timestamp, to_datetime, utc_now
from recsys.errors import Unavailable
from recsys.registry.records import JobState
from recsys.registry.sqlite import SqliteRegistry
from recsys_local.metrics.job_times import JobTimes, list_job_times, newest_version_at
from recsys_local.metrics.names import prometheus_name
from recsys_local.queue_file import QueueFile

_logger: Final = logging.getLogger("recsys.service")

FINAL_STATES: Final = frozenset(str(state) for state in JobState if state.is_final)
REFRESH_S: Final = 5.0
"""Smallest interval between two reads of the registry, in seconds. Reading 10,000 jobs takes 0.2 s."""
JOB_BUCKETS_S: Final = (1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1200)
"""Upper bounds of the histogram's buckets, in seconds. They range from the bundled sample to twice the default of
`RECSYS_TRAIN_BUDGET_S`."""


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The objects and functions from which `StateCollector` computes the metrics of the service's state.

    Parameters
    ----------
    registry
        Registry of the jobs and versions.
    queue_file
        File with the positions of the waiting jobs.
    data_dir
        Data directory. The space on its disk is measured.
    silent_s
        Function that returns the seconds since the last heartbeat of each worker.
    n_connections
        Function that returns the number of open connections.
    """

    registry: SqliteRegistry
    queue_file: QueueFile
    data_dir: Path
    silent_s: Callable[[], Sequence[float]]
    n_connections: Callable[[], int]


class StateCollector(Collector):
    """A collector of metrics that describe the state of the service, such as the queue length and the free disk space.

    Jobs that ended before the collector was created are not counted, because a Prometheus counter starts at zero when
    its process starts.

    Parameters
    ----------
    state
        Sources of the state.
    clock
        Function that returns the current time.
    refresh_s
        Time in seconds for which values from the registry are cached.
    """

    def __init__(self, state: ServiceState, *, clock: Clock = utc_now, refresh_s: float = REFRESH_S) -> None:
        self._state = state
        self._clock = clock
        self._refresh_s = refresh_s
        self._read_at_s = float("-inf")
        self._reading = threading.Lock()
        self._outcomes = JobOutcomes()
        self._created_at: dict[str, Timestamp] = {}
        self._newest_version_at: Timestamp | None = None
        self._read_registry()

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics. Metrics that cannot be determined are left out."""
        with self._reading:
            if time.monotonic() - self._read_at_s >= self._refresh_s:
                self._read_registry()
            yield from self._queue_metrics()
            yield from self._outcomes.collect()
        yield from self._model_metrics()
        yield from self._disk_metrics()
        yield self._worker_metric()
        yield _gauge("Connections", "", "Open connections of clients.", self._state.n_connections())

    def _read_registry(self) -> None:
        self._read_at_s = time.monotonic()
        try:
            jobs = list_job_times(self._state.registry)
            self._newest_version_at = newest_version_at(self._state.registry)
        except Unavailable:
            _logger.warning("The metrics of the registry could not be read.", exc_info=True)
            return
        self._outcomes.count_ended(jobs)
        self._created_at = {job.job_id: job.created_at for job in jobs if job.state not in FINAL_STATES}

    def _queue_metrics(self) -> Iterator[Metric]:
        # Not every queued job waits for a worker, because an upload form that was never used has a job without a file.
        waiting = self._state.queue_file.positions()
        ages_s = [self._age_s(self._created_at[job_id]) for job_id in waiting if job_id in self._created_at]
        yield _gauge("QueueLength", "", "Files that wait for their training.", len(waiting))
        yield _gauge(
            "QueueAge", "seconds", "Age of the oldest job that waits for its training.", max(ages_s, default=0)
        )

    def _model_metrics(self) -> Iterator[Metric]:
        if self._newest_version_at is not None:
            age_s = self._age_s(self._newest_version_at)
            yield _gauge("ModelAge", "seconds", "Time since the newest publication of any key.", age_s)

    def _disk_metrics(self) -> Iterator[Metric]:
        try:
            usage = shutil.disk_usage(self._state.data_dir)
        except OSError:
            _logger.warning("The disk space could not be determined.", exc_info=True)
            return
        yield _gauge("DiskFree", "bytes", "Free space on the disk of the data directory.", usage.free)
        yield _gauge("DiskUsed", "bytes", "Used space on the disk of the data directory.", usage.used)

    def _worker_metric(self) -> Metric:
        name = prometheus_name("WorkerSilent", "seconds")
        silent = GaugeMetricFamily(name, "Time since the last heartbeat of each worker.", labels=["worker"])
        for number, silent_s in enumerate(self._state.silent_s(), start=1):
            silent.add_metric([str(number)], silent_s)
        return silent

    def _age_s(self, moment: Timestamp) -> float:
        return max(0.0, (to_datetime(self._clock()) - to_datetime(moment)).total_seconds())


class JobOutcomes:
    """The counts of ended jobs per final state and their durations, from comparisons of successive lists of jobs."""

    def __init__(self) -> None:
        self._ended: set[str] | None = None
        self._counters = {
            state: Counter(prometheus_name(f"Jobs{state.capitalize()}"), f"Jobs that ended as {state}.", registry=None)
            for state in sorted(FINAL_STATES)
        }
        self._duration = Histogram(
            prometheus_name("JobDuration", "seconds"),
            "Time from the start of a job's last attempt to its end.",
            buckets=JOB_BUCKETS_S,
            registry=None,
        )

    def count_ended(self, jobs: list[JobTimes]) -> None:
        """Count the jobs that have ended since the previous call. The first call counts no jobs."""
        ended = {job.job_id: job for job in jobs if job.state in FINAL_STATES}
        if self._ended is not None:
            for job_id in ended.keys() - self._ended:
                self._count(ended[job_id])
        self._ended = set(ended)

    def collect(self) -> Iterator[Metric]:
        """Yield the counters and the histogram."""
        for metric in (*self._counters.values(), self._duration):
            yield from metric.collect()

    def _count(self, job: JobTimes) -> None:
        self._counters[job.state].inc()
        if job.started_at is not None:
            duration = to_datetime(job.updated_at) - to_datetime(job.started_at)
            self._duration.observe(duration.total_seconds())


def _gauge(name: str, unit: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(prometheus_name(name, unit), text, value=value)
