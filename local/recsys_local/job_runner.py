"""Run the jobs of a training worker one by one.

Show the progress, log the outcome, and put the job of a stopped worker back into the queue.
"""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Final

from recsys.clock import utc_now
from recsys.errors import JobBusy, LeaseLost, Unavailable
from recsys.objects.created import ObjectCreated
from recsys.registry.records import Job, JobState, Lease, Progress
from recsys.registry.registry import Registry
from recsys_local.disk_space import is_full_disk
from recsys_local.progress import TrainingProgress
from recsys_local.training_queue import EndJob
from recsys_local.watcher import ObjectWatcher
from recsys_train.events import process
from recsys_train.job import Trainer

_logger: Final = logging.getLogger("recsys.worker")


class CurrentJob:
    """The current job of a worker, whose progress is shown and which returns to the queue if the worker is stopped.

    Parameters
    ----------
    registry
        Registry of the job.
    draws_bars
        Whether the progress is shown as a bar on a terminal. Several workers would overwrite each other's bars.
    """

    def __init__(self, registry: Registry, *, draws_bars: bool = True) -> None:
        self._registry = registry
        self._draws_bars = draws_bars
        self._job: Job | None = None
        self._display = contextlib.ExitStack()
        self._show = TrainingProgress()

    def __call__(self, job: Job, progress: Progress) -> None:
        """Show a progress report of `job`, which becomes the current job."""
        if self._job is None or (job.job_id, job.fence) != (self._job.job_id, self._job.fence):
            self.close()
            self._job = job
            self._show = self._display.enter_context(
                TrainingProgress(f"job {job.job_id[:6]}…", draws_bars=self._draws_bars)
            )
        self._show(progress)

    def close(self) -> None:
        """End the display of the current job, regardless of its outcome."""
        self._display.close()
        self._job = None

    def release(self) -> None:
        """Put the current job back into the queue without counting the attempt. Any thread may call this method."""
        job = self._job
        if job is not None:
            with contextlib.suppress(LeaseLost, Unavailable):  # if the registry is unavailable, the attempt counts
                self._registry.release_job(Lease(job))


@dataclass(frozen=True, slots=True)
class JobRunner:
    """A runner that executes the job of each file, logs the outcome, and marks the file as done.

    Parameters
    ----------
    trainer
        Trainer that runs the training.
    watcher
        Watcher that finds the files. It stops reporting a file that is marked as done.
    current
        The current job, whose progress is shown.
    """

    trainer: Trainer
    watcher: ObjectWatcher
    current: CurrentJob

    def run(self, event: ObjectCreated, end: EndJob = process) -> bool:
        """Run the job of a file, log the outcome, and mark the file as done.

        Return False if the job must be retried. In this case, the file is not marked as done.

        Parameters
        ----------
        event
            Event that names the file.
        end
            Function that brings the job into a final state. The default trains a model or validates the file.
        """
        started_at = utc_now()
        try:
            with contextlib.closing(self.current):
                job = end(event, self.trainer)
        except (JobBusy, LeaseLost, Unavailable) as error:
            _logger.warning("%s: %s Retrying.", event.name, error.detail)
            return False
        except Exception as error:  # continue with other files; the number of attempts per job is limited
            if is_full_disk(error):
                _logger.warning("%s: the disk became full during the training. Retrying.", event.name)
            else:
                _logger.exception("%s: the training failed. Retrying.", event.name)
            return False
        self.watcher.mark_done(event)
        # After a restart, the files of finished jobs are found again. Their outcomes have already been logged.
        if job is not None and job.updated_at >= started_at:
            _logger.info("%s: %s", event.name, _outcome(job))
        return True


def _outcome(job: Job) -> str:
    if job.state is JobState.SUCCEEDED and job.version is None:
        return "the file is valid"
    if job.state is JobState.SUCCEEDED:
        return f"version {job.version} is live"
    if job.state is JobState.HELD:
        reasons = " ".join(reason["text"] for reason in job.held_reasons or ())
        return f"version {job.version} is held. {reasons} Activate it, or send the file again with force=true."
    if job.problem is not None:
        return f"{job.state}: {job.problem.detail}"
    return str(job.state)
