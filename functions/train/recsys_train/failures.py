"""Describe the reason for a failed training, for the tenant and for the log."""

from __future__ import annotations

import logging
import traceback
from typing import Final

from recsys.errors import Problem, RecsysError
from recsys.redaction import redacted
from recsys.registry.records import Job, Lease

_logger: Final = logging.getLogger("recsys.train")
_RENEWAL_GAP_S: Final = 60.0
"""Longest time between the last renewal of a lease and the end of a killed worker."""


def log_last_failure(lease: Lease, error: Exception) -> None:
    """Log the error that ended the last attempt of a job, with the traceback."""
    # As text, because a message can quote a secret, and a formatter that prints exc_info would not redact it.
    text = redacted("".join(traceback.format_exception(error)))
    job = {"job_id": lease.job.job_id, "key_id": lease.job.key_id, "attempt": lease.fence}
    _logger.error("Training failed in its last attempt\n%s", text, extra=job)


def reason_of(error: Exception) -> str:
    """Describe an error for the tenant.

    For an unexpected error, the description contains only the type, because the message may be confidential.
    """
    return error.detail.rstrip(".") if isinstance(error, RecsysError) else f"an unexpected {type(error).__name__}"


def kill_reason(job: Job, *, time_limit_s: float) -> str:
    """Describe the probable reason why an attempt ended without reporting an error."""
    after_s = job.killed_after_s
    if after_s is None:
        return "the worker was terminated from outside"
    if after_s + _RENEWAL_GAP_S >= time_limit_s:
        return f"the worker ran out of time after {after_s} s"
    return f"the worker was terminated from outside after about {after_s} s, most likely because memory ran out"


def training_failed(n_attempts: int, reason: str) -> Problem:
    """Return the problem of a job that failed after its last attempt."""
    return Problem(
        "training-failed",
        "The training failed",
        f"Training failed {n_attempts} time{'' if n_attempts == 1 else 's'}. Reason for the last failure: {reason}.",
        "Send the file again. If the training fails again, send fewer rows or give the training more memory and time.",
    )
