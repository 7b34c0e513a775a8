"""An object appeared in the store: the one road to training, whoever put it there."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass

from recsys.clock import DAY_S, Timestamp, after
from recsys.errors import InvalidRequest, JobNotFound, KeyExists
from recsys.keys.base62 import KEY_ID_LENGTH, derived_base62, job_id_of_object
from recsys.objects import layout
from recsys.objects.layout import Drop
from recsys.objects.names import checked_name
from recsys.registry.records import Job, KeyRecord
from recsys_train.job import Trainer
from recsys_train.receipts import write_receipt

logger = logging.getLogger("recsys.train")


@dataclass(frozen=True, slots=True)
class ObjectCreated:
    """`version` tells one write of `name` from the next; `order` (`Timestamp#tiebreak`) which data is newer."""

    name: str
    version: str
    order: str


def process(event: ObjectCreated, trainer: Trainer) -> Job | None:
    """Train on the object and, for a drop, write the receipt; a repeated event changes nothing.

    Returns
    -------
    The job, final; None where the object asks for no training, and the log says why: a name that is none of ours or
    that no store can read, an upload that nobody announced or that was announced under another name.

    Raises
    ------
    JobBusy, LeaseLost, Unavailable
        Ask again later.
    """
    job = _job_of(event, trainer)
    if job is None:
        return None
    job = trainer.run(job.job_id, data_timestamp=event.order)
    if job.receipt_name is not None and job.receipted_at is None:
        write_receipt(job, trainer.store, trainer.registry, trainer.clock)
    return job


def _job_of(event: ObjectCreated, trainer: Trainer) -> Job | None:
    """The job that the object asks for; None, and a line in the log, where it asks for none."""
    try:
        source = layout.parse_source(checked_name(event.name))
        if isinstance(source, Drop):
            return _announce_drop(event, source, trainer)
        job = trainer.registry.get_job(source.job_id) if source is not None else None
    except InvalidRequest as error:
        reason = error.detail
    except JobNotFound:
        reason = "nobody announced this upload"
    else:
        if job is not None and job.object_name == event.name:
            return job
        reason = "its job was announced under another name" if job is not None else "its name is not that of a source"
    logger.info("Object ignored: %s", reason, extra={"object_name": event.name})
    return None


def _announce_drop(event: ObjectCreated, drop: Drop, trainer: Trainer) -> Job:
    """Create the job of a drop, and the key where somebody new dropped it; both ids follow from the event."""
    job_id = job_id_of_object(event.name, event.version)
    now = trainer.clock()
    # It does not expire: the file stays, and a worker that starts again must know that it is done.
    job = trainer.registry.create_job(
        Job(
            job_id,
            drop.key_id or derived_base62(KEY_ID_LENGTH, "key-of-drop", job_id),
            event.name,
            created_at=now,
            updated_at=now,
            object_version=event.version,
            receipt_name=layout.receipt(drop),
        )
    )
    # Not for a job that is final: its key may have expired unclaimed, and would start anew without a model.
    if drop.key_id is None and not job.state.is_final:
        with contextlib.suppress(KeyExists):
            trainer.registry.create_key(
                KeyRecord(job.key_id, now, expires_at=_days(now, trainer.settings.unproven_key_days))
            )
    return job


def _days(now: Timestamp, days: int) -> Timestamp:
    return after(now, days * DAY_S)
