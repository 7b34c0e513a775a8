"""The records of jobs and of model versions."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self, TypeVar

from recsys.clock import Timestamp
from recsys.errors import NotReady, Problem
from recsys.file_options import Mode
from recsys.registry.documents import Document, known_fields, to_document


class JobState(StrEnum):
    """State of a job.

    All states except `queued` and `running` are final. A `held` job has stored a version that did not become current.
    """

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"
    HELD = "held"

    @property
    def is_final(self) -> bool:
        """Whether the state is final, which means that the job can no longer change."""
        return self not in (JobState.QUEUED, JobState.RUNNING)


class JobPurpose(StrEnum):
    """The purpose for which a job uses its file."""

    TRAIN = "train"
    """Train on the file and publish a version."""
    VALIDATE = "validate"
    """Only check the file and write a data report."""
    CATALOGUE = "catalogue"
    """Update the item catalogue of the key from the file."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a training job. `phase` is reading, choosing, fitting, evaluating, refitting or publishing.

    In the phases fitting and refitting, `epoch` is the number of finished epochs out of `epochs`, and `loss` is the
    training loss of the last epoch. In the phase fitting, `validation_ndcg` is the NDCG@20 after the last epoch.
    """

    phase: str
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    validation_ndcg: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the members that are not None, as a JSON object."""
        return {name: value for name in self.__slots__ if (value := getattr(self, name)) is not None}


@dataclass(frozen=True, slots=True)
class Job:
    """A request to train the model of a key on a file, or to use the file for another purpose.

    Parameters
    ----------
    job_id, key_id, object_name
        Id of the job, id of its key, and name of the object that contains the file.
    created_at, updated_at
        Time of creation, and time of the last change.
    state
        State of the job.
    purpose
        Purpose of the job.
    fence
        Number of attempts so far. Attempt n may publish only the version `<job_id>.<n>`.
    lease_owner, lease_until
        The worker that holds the lease, and the time at which the lease expires.
    started_at
        Time at which the current attempt began.
    error_fence
        Number of the last attempt that reported an error.
    kills, killed_after_s
        Number of attempts that were killed, and the duration of the last killed attempt in seconds. An attempt counts
        as killed if it ended without reporting an error. The duration ends with the last renewal of the lease.
    data_timestamp
        Time at which the data arrived, as `<timestamp>#<tiebreak>`. Of two jobs of a key, the job whose text is greater
        has newer data. None until the first claim of the job.
    fingerprint
        SHA-256 of the request body and the options. It distinguishes a repeated request from a changed request.
    options
        Options of the file, as `FileOptions.to_json` returns them, or None. The options of a catalogue job contain its
        `mode`.
    object_version
        Version of the object to use (`ObjectInfo.version`). None means the current version of the object.
    receipt_name, receipted_at
        Name of the receipt of a drop, and the time at which the final receipt was written.
    expires_at
        Time from which the job counts as deleted.
    version, metrics
        The published or held version, and its metrics.
    progress, report, problem
        Progress of the training, data report, and cause of the failure.
    held_reasons
        Reasons why the version is held, as dicts of `code` and `text`.
    comparison
        Counts and metrics of the `current` and the `new` version.
    """

    job_id: str
    key_id: str
    object_name: str
    created_at: Timestamp
    updated_at: Timestamp
    state: JobState = JobState.QUEUED
    purpose: JobPurpose = JobPurpose.TRAIN
    fence: int = 0
    lease_owner: str | None = None
    lease_until: Timestamp | None = None
    started_at: Timestamp | None = None
    error_fence: int = 0
    kills: int = 0
    killed_after_s: int | None = None
    data_timestamp: str | None = None
    fingerprint: str | None = None
    options: dict[str, Any] | None = None
    object_version: str | None = None
    receipt_name: str | None = None
    receipted_at: Timestamp | None = None
    interruptions: int = 0
    """Number of attempts that ended because the operator stopped the worker. They do not count against
    `Settings.max_attempts`."""
    expires_at: Timestamp | None = None
    version: str | None = None
    progress: Progress | None = None
    report: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    problem: Problem | None = None
    held_reasons: list[dict[str, str]] | None = None
    comparison: dict[str, Any] | None = None

    @property
    def mode(self) -> Mode | None:
        """The effect of the file on the interactions that the key already has.

        The mode is None if the job trains no model, because the option `mode` of a catalogue job has other values.
        """
        if self.purpose is not JobPurpose.TRAIN:
            return None
        return Mode((self.options or {}).get("mode", Mode.REPLACE))

    @property
    def counted_attempts(self) -> int:
        """Number of attempts that count against `Settings.max_attempts`, including the current attempt."""
        return self.fence - self.interruptions

    def to_document(self) -> Document:
        """Convert the record to a flat document. Nested members become JSON text."""
        return to_document(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Restore a job from a document. Members that only a newer release knows are ignored.

        Raises
        ------
        NotReady
            A newer release wrote a state or a purpose that this release does not know.
        """
        values = known_fields(cls, document)
        values["state"] = _known(JobState, "state", values["state"])
        values["purpose"] = _known(JobPurpose, "purpose", values.get("purpose", JobPurpose.TRAIN))
        for name in ("options", "progress", "report", "metrics", "problem", "held_reasons", "comparison"):
            if name in values:
                values[name] = json.loads(values[name])
        if "progress" in values:
            values["progress"] = Progress(**values["progress"])
        if "problem" in values:
            values["problem"] = Problem.from_json(values["problem"])
        return cls(**values)


_Choice = TypeVar("_Choice", JobState, JobPurpose)


def _known(choices: type[_Choice], name: str, text: str) -> _Choice:
    try:
        return choices(text)
    except ValueError:
        raise NotReady(
            f"The job has the {name} {text!r}, which a newer release of the service wrote.",
            hint="Retry when the update of the service is complete.",
        ) from None


@dataclass(frozen=True, slots=True)
class Lease:
    """The permission to work on a job. A lease is valid until another claim increments the `fence` of the job."""

    job: Job

    @property
    def fence(self) -> int:
        """Number of this attempt, from 1."""
        return self.job.fence

    @property
    def version(self) -> str:
        """Name of the model version that this attempt may publish."""
        return f"{self.job.job_id}.{self.fence}"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """A published or held version of the model of a key.

    Parameters
    ----------
    key_id, version, job_id
        Id of the key, name of the version, and id of the job that trained it.
    created_at
        Time of publication, or of the comparison if the version is held.
    manifest_sha256
        SHA-256 of the manifest, which lists the digests of the other files.
    metrics
        Quality of the version.
    base_version
        The base version, to whose interactions the file was added. None if the version was trained on the file alone.
    held_reasons
        Reasons why the version is held, as dicts of `code` and `text`. None if it is not held.
    pinned_at
        Time at which the version was pinned. None if it is not pinned.
    deleted_at
        Time at which the version was retired. A retired version counts as deleted, and its files are deleted after the
        grace period.
    expires_at
        Time from which the database may delete the record of a retired version.
    erasures
        Number of the last erasure before the training, which left the erased users out (`recsys.registry.erasures`).
    erase_by
        Time by which the version must be deleted, because it contains users who were erased after the training.
    excluded_items
        Items that the training left out, as text of `recsys.registry.excluded_items`. None if no items were left out.
    """

    key_id: str
    version: str
    job_id: str
    created_at: Timestamp
    manifest_sha256: str
    metrics: dict[str, Any]
    held_reasons: list[dict[str, str]] | None = None
    pinned_at: Timestamp | None = None
    deleted_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    base_version: str | None = None
    erasures: int | None = None
    erase_by: Timestamp | None = None
    excluded_items: str | None = None

    def to_document(self) -> Document:
        """Convert the record to a flat document. `metrics` and `held_reasons` become JSON text."""
        return to_document(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Restore a version from a document. Members that only a newer release knows are ignored."""
        values = known_fields(cls, document)
        for name in ("metrics", "held_reasons"):
            if name in values:
                values[name] = json.loads(values[name])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Assessment:
    """The comparison of a new version with the current version of its key.

    Parameters
    ----------
    current_version
        Version with which the new version was compared. None if the key has no version.
    comparison
        Counts and metrics of both versions. None if the versions were not compared.
    held_reasons
        Reasons to hold the new version, as dicts of `code` and `text`. Empty if the new version may become current.
    """

    current_version: str | None
    comparison: dict[str, Any] | None = None
    held_reasons: list[dict[str, str]] = field(default_factory=list)
