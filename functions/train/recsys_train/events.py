"""An object appeared in the store: the one road to training, whoever put it there."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from recsys import object_names
from recsys.clock import Timestamp, after
from recsys.errors import JobNotFound, KeyExists
from recsys.identifiers import KEY_ID_LENGTH, derived_base62, job_id_of_object
from recsys.object_names import Drop, Upload
from recsys.registry.records import Job, KeyRecord
from recsys_train.pipeline import Trainer
from recsys_train.receipts import write_receipt

DAY_S = 86_400


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
    The job, final; None where the object asks for no training (another name, or an upload nobody announced).

    Raises
    ------
    JobBusy, LeaseLost, Unavailable
        Ask again later.
    """
    source = object_names.parse_source(event.name)
    if source is None:
        return None
    job_id = source.job_id if isinstance(source, Upload) else _announce_drop(event, source, trainer).job_id
    try:
        job = trainer.run(job_id, source_order=event.order)
    except JobNotFound:
        return None
    if job.receipt_name is not None and job.receipted_at is None:
        write_receipt(job, trainer.store, trainer.registry, trainer.clock)
    return job


def _announce_drop(event: ObjectCreated, drop: Drop, trainer: Trainer) -> Job:
    """Create the job of a drop, and the key where somebody new dropped it; both ids follow from the event."""
    job_id = job_id_of_object(event.name, event.version)
    now = trainer.clock()
    if drop.key_id is None:
        key_id = derived_base62(KEY_ID_LENGTH, "key-of-drop", job_id)
        with contextlib.suppress(KeyExists):
            trainer.registry.create_key(
                KeyRecord(key_id, now, expires_at=_days(now, trainer.settings.unproven_key_days))
            )
    else:
        key_id = drop.key_id
    # It does not expire: the file stays, and a worker that starts again must know that it is done.
    return trainer.registry.create_job(
        Job(job_id, key_id, event.name, created_at=now, updated_at=now, receipt_name=object_names.receipt(drop))
    )


def _days(now: Timestamp, days: int) -> Timestamp:
    return after(now, days * DAY_S)
