"""Accept uploaded files with the items of a catalogue.

Each file gets a job. The job is created before the file is stored, because the arrival of the file starts the job.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from enum import StrEnum

from recsys.clock import DAY_S, Clock, after
from recsys.errors import ObjectExists
from recsys.keys.base62 import new_job_id
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose, JobState
from recsys.registry.registry import Registry
from recsys.settings import Settings
from recsys_api.training import NewFile


class CatalogueMode(StrEnum):
    """The treatment of those items and attributes of a catalogue that an uploaded file does not mention."""

    REPLACE = "replace"
    """Items and attributes that the file does not mention are deleted."""
    MERGE = "merge"
    """Items and attributes that the file does not mention are kept."""


@dataclass(frozen=True, slots=True)
class CatalogueUpdates:
    """The part of the API that accepts uploaded files with the items of a catalogue.

    Parameters
    ----------
    registry, store
        Registry of the jobs, and object store of the files.
    settings
        Settings, which define the lifetime of a job.
    clock
        Function that returns the current time.
    """

    registry: Registry
    store: ObjectStore
    settings: Settings
    clock: Clock

    def accept(self, file: NewFile, *, key: KeyRecord, mode: CatalogueMode, job_id: str | None = None) -> Job:
        """Store a file with items, and create the job that updates the catalogue of `key` with this file.

        The job is returned. If a job with the id `job_id` exists, the existing job is returned unchanged. By default,
        the id is random.
        """
        job_id, now = job_id or new_job_id(), self.clock()
        job = self.registry.create_job(
            Job(
                job_id,
                key.key_id,
                layout.items_upload(job_id),
                created_at=now,
                updated_at=now,
                fingerprint=file.fingerprint,
                options={"mode": mode.value, **file.options.to_json()},
                purpose=JobPurpose.CATALOGUE,
                expires_at=after(now, self.settings.job_days * DAY_S),
            )
        )
        if job.state is JobState.QUEUED:
            with contextlib.suppress(ObjectExists):
                self.store.create(job.object_name, file.content)
        return job
