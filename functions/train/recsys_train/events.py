"""Process "object created" events. Such an event starts each job, whether its file was uploaded or dropped."""

from __future__ import annotations

import contextlib
import logging
from typing import Final

from recsys.clock import DAY_S, after
from recsys.errors import InvalidRequest, JobNotFound, KeyExists, ObjectNotFound
from recsys.file_options import FileOptions, Mode
from recsys.keys.base62 import KEY_ID_LENGTH, derived_base62, job_id_of_object
from recsys.objects.created import ObjectCreated
from recsys.objects.names import checked_name
from recsys.objects.sources import Drop, parse_source, sidecar
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job
from recsys_train.job import Trainer
from recsys_train.receipts import write_receipt

_logger: Final = logging.getLogger("recsys.train")


def process(event: ObjectCreated, trainer: Trainer) -> Job | None:
    """Run the job of an object, and write the receipt if the object was dropped into the inbox.

    A repeated event changes nothing.

    Parameters
    ----------
    event
        Event that names the object.
    trainer
        Trainer that runs the job.

    Returns
    -------
    Job or None
        The finished job. None if the object does not start a job, because the name of the object is invalid, the object
        is not a source file, or no job was created for this upload. The reason is logged.

    Raises
    ------
    JobBusy, LeaseLost
        Another worker works on the job. Retry later.
    Unavailable
        The object store or the registry did not respond. Retry later.
    """
    job = find_or_create_job(event, trainer)
    if job is None:
        return None
    return _receipted(trainer.run(job.job_id, data_timestamp=event.data_timestamp), trainer)


def supersede(event: ObjectCreated, trainer: Trainer) -> Job | None:
    """End the job of an object as superseded, without training, because a newer file of the same key waits.

    If the object was dropped, the receipt is written. A job that is already in a final state keeps its outcome.

    Returns
    -------
    Job or None
        The finished job, or None if the object does not start a job.

    Raises
    ------
    JobBusy
        Another worker works on the job. Retry later.
    Unavailable
        The object store or the registry did not respond. Retry later.
    """
    job = find_or_create_job(event, trainer)
    if job is None:
        return None
    return _receipted(trainer.supersede(job.job_id, data_timestamp=event.data_timestamp), trainer)


def _receipted(job: Job, trainer: Trainer) -> Job:
    """Write the receipt of a finished job if its file was dropped into the inbox and has no receipt. Return the job."""
    if job.receipt_name is not None and job.receipted_at is None:
        write_receipt(job, trainer.store, trainer.registry, trainer.clock)
    return job


def find_or_create_job(event: ObjectCreated, trainer: Trainer) -> Job | None:
    """Return the job of an upload, or create the job of a drop.

    If the event of a drop is repeated, the existing job is returned. If the object does not start a job, the reason is
    logged and None is returned.
    """
    try:
        source = parse_source(checked_name(event.name))
        if isinstance(source, Drop):
            return _create_job(event, source, trainer)
        job = trainer.registry.get_job(source.job_id) if source is not None else None
    except InvalidRequest as error:
        reason = error.detail
    except JobNotFound:
        reason = "No job was created for this upload."
    else:
        if job is not None and job.object_name == event.name:
            return job
        reason = (
            "The object is neither an upload nor a file in the inbox."
            if job is None
            else f"The job {job.job_id} expects the object {job.object_name!r}."
        )
    _logger.info("Object ignored: %s", reason, extra={"object_name": event.name})
    return None


def _create_job(event: ObjectCreated, drop: Drop, trainer: Trainer) -> Job:
    """Create the job of a drop, and a key if the drop is not in the folder of a key.

    Both ids are derived from the event, so that a repeated event finds the same job and key. The file stays in the
    inbox. The job therefore never expires, because only the job shows that the file has been processed.
    """
    job_id = job_id_of_object(event.name, event.version)
    now = trainer.clock()
    job = trainer.registry.create_job(
        Job(
            job_id,
            drop.key_id or derived_base62(KEY_ID_LENGTH, "key-of-drop", job_id),
            event.name,
            created_at=now,
            updated_at=now,
            object_version=event.version,
            options={"mode": Mode.APPEND.value} if _is_append(event, drop, trainer) else None,
            receipt_name=drop.receipt_name,
        )
    )
    # The key of a finished job may have expired unclaimed. If the key were created again, it would have no model.
    if drop.key_id is None and not job.state.is_final:
        expires_at = after(now, trainer.settings.unproven_key_days * DAY_S)
        with contextlib.suppress(KeyExists):
            trainer.registry.create_key(KeyRecord(job.key_id, now, expires_at=expires_at))
    return job


def _is_append(event: ObjectCreated, drop: Drop, trainer: Trainer) -> bool:
    """Return whether the folder or the sidecar of a drop requests that the file is added to the key's interactions."""
    if drop.is_append:
        return True
    try:
        return FileOptions.from_text(trainer.store.read(sidecar(event.name))).mode == Mode.APPEND
    except (ObjectNotFound, InvalidRequest):  # an invalid sidecar fails the job when its options are read
        return False
