"""Operations on training jobs and their leases."""

from __future__ import annotations

from typing import Any

from recsys.clock import Timestamp
from recsys.errors import Problem
from recsys.registry import rules
from recsys.registry.reading import job_address, unexpired
from recsys.registry.records import Job, Lease, Progress
from recsys.registry.table import Change
from recsys.registry.transactions import TableOperations


class JobOperations(TableOperations):
    """The part of `Registry` for jobs. Every method raises `Unavailable` if the database does not respond."""

    def create_job(self, job: Job) -> Job:
        """Store a new job and return it.

        If a job with the same id exists, the existing job is returned unchanged, so that a request can be repeated.
        """

        def decide(now: Timestamp) -> tuple[Job, list[Change]]:
            row = self._table.get(job_address(job.job_id))
            existing = unexpired(row, now)
            if existing is not None:
                return Job.from_document(existing), []
            return job, [row.changed_to(job.to_document())]

        return self._commit_with_retry(decide)

    def get_job(self, job_id: str) -> Job:
        """Return a job, with a consistent read.

        Raises
        ------
        JobNotFound
            The job does not exist or has expired.
        """
        return self._read_job(job_id, self._clock())[1]

    def claim_job(self, job_id: str, *, owner: str, data_timestamp: str, lease_s: float) -> Lease:
        """Start the next attempt of a job and take its lease, in one conditional write.

        The job must be queued, or it must be running with a lease that has expired or that the same owner holds. The
        problem and the progress of the previous attempt are removed.

        Parameters
        ----------
        job_id, owner
            Id of the job, and name of the worker.
        data_timestamp
            Time at which the data arrived, see `Job.data_timestamp`. It is ignored if an earlier claim of the job has
            set the time.
        lease_s
            Duration of the lease, in seconds.

        Returns
        -------
        Lease
            The running job, with its fence incremented.

        Raises
        ------
        JobNotFound
            The job does not exist or has expired.
        JobFinished
            The job is in a final state.
        JobBusy
            Another worker holds the lease.
        """

        def decide(now: Timestamp) -> tuple[Lease, list[Change]]:
            row, job = self._read_job(job_id, now)
            claimed = rules.claimed(job, owner=owner, data_timestamp=data_timestamp, lease_s=lease_s, now=now)
            return Lease(claimed), [row.changed_to(claimed.to_document())]

        return self._commit_with_retry(decide)

    def renew_lease(self, lease: Lease, *, lease_s: float, progress: Progress | None) -> None:
        """Extend a lease, and store the progress of the training.

        An expired lease can be renewed as long as no other worker has claimed the job.

        Parameters
        ----------
        lease
            The lease, as returned by `claim_job`.
        lease_s
            Duration of the lease from now, in seconds.
        progress
            Progress to store. None keeps the stored progress.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.renewed(job, lease_s=lease_s, progress=progress, now=now))

    def release_job(self, lease: Lease) -> None:
        """Return the job to the state `queued`, because its worker is being stopped.

        The attempt does not count against `Settings.max_attempts`.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.released(job, now=now))

    def record_error(self, lease: Lease) -> None:
        """Record that the attempt ended with an error, so that the next claim does not count the attempt as killed.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.with_reported_error(job, now=now))

    def fail_job(self, lease: Lease, problem: Problem, report: dict[str, Any] | None) -> None:
        """End a job as failed, store the cause and the data report, and record the failure in the audit log of the key.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        """
        self._change_leased_job(
            lease,
            lambda job, now: rules.failed(job, problem, report, now=now),
            "job.failed",
            {"job_id": lease.job.job_id, "code": problem.code},
        )

    def finish_validation(self, lease: Lease, report: dict[str, Any]) -> None:
        """End a validation job as succeeded, and store its data report.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.validated(job, report, now=now))

    def supersede_job(self, lease: Lease) -> None:
        """End a job as superseded, which means that its file is not used because newer data exists.

        Raises
        ------
        LeaseLost
            The job is not running, or another attempt has started.
        """
        self._change_leased_job(lease, lambda job, now: rules.superseded(job, now=now))

    def mark_receipted(self, job_id: str) -> None:
        """Record that the final receipt of a drop was written.

        Raises
        ------
        JobNotFound
            The job does not exist or has expired.
        """

        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_job(job_id, now)
            return None, [row.changed_to({**job.to_document(), "receipted_at": now})]

        self._commit_with_retry(decide)
