"""What the registry keeps, as values; and each value as a flat document, the one form every adapter stores."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

from recsys.clock import Timestamp
from recsys.errors import Problem

Document = dict[str, str | int]
"""Text and whole numbers only; a field that is None is left out."""


class JobState(StrEnum):
    """Where a job is. The last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        """Whether nothing will change any more."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key as the registry knows it; the key itself is kept nowhere.

    `revision` rises with every change. `secret_sha256` is None until a dropped file's receipt is claimed.
    `previous_sha256` is the rotated-out secret, valid until `previous_expires_at`. `expires_at` is set until the key
    has both a secret and a version, so that a key without a model and an unclaimed key expire.
    `current_data_timestamp` says how recent the data of the current version is, see `Job.data_timestamp`. Activating
    a version sets it to the time of the activation, so that a training already under way cannot undo it.
    """

    key_id: str
    created_at: Timestamp
    revision: int = 0
    secret_sha256: str | None = None
    previous_sha256: str | None = None
    previous_expires_at: Timestamp | None = None
    revoked_at: Timestamp | None = None
    expires_at: Timestamp | None = None
    current_version: str | None = None
    current_manifest_sha256: str | None = None
    current_data_timestamp: str | None = None

    def to_document(self) -> Document:
        """The record as a flat document."""
        return _to_document(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """The inverse of `to_document`; members it does not know are passed over."""
        return cls(**_known_fields(cls, document))


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training is. `phase` is reading, choosing, fitting, evaluating, refitting or publishing."""

    phase: str
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    validation_ndcg: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """One request to train `key_id` on `object_name`.

    `object_version` is the write of that name which is meant (`ObjectInfo.version`); None: whatever lies there.
    `fence` counts the attempts; attempt n owns the prefix of version `<job_id>.<n>`. `data_timestamp` orders jobs of a
    key by when their data arrived (`Timestamp#tiebreak`, compares as text); it is set by the first claim.
    `fingerprint` is the SHA-256 of the request's body, to tell a repeated request from a changed one.
    `receipt_name` is where the outcome of a drop goes; `receipted_at` when it was written.
    """

    job_id: str
    key_id: str
    object_name: str
    created_at: Timestamp
    updated_at: Timestamp
    state: JobState = JobState.QUEUED
    fence: int = 0
    lease_owner: str | None = None
    lease_until: Timestamp | None = None
    data_timestamp: str | None = None
    fingerprint: str | None = None
    object_version: str | None = None
    receipt_name: str | None = None
    receipted_at: Timestamp | None = None
    interruptions: int = 0
    """Attempts that ended because the operator stopped the worker; they do not count against `max_attempts`."""
    expires_at: Timestamp | None = None
    version: str | None = None
    progress: Progress | None = None
    report: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    problem: Problem | None = None

    @property
    def counted_attempts(self) -> int:
        """Number of attempts that count against `Settings.max_attempts`, the current one included."""
        return self.fence - self.interruptions

    def to_document(self) -> Document:
        """The record as a flat document; the nested members become JSON text."""
        return _to_document(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """The inverse of `to_document`; members it does not know are passed over."""
        values = _known_fields(cls, document)
        values["state"] = JobState(values["state"])
        for name in ("progress", "report", "metrics", "problem"):
            if name in values:
                values[name] = json.loads(values[name])
        if "progress" in values:
            values["progress"] = Progress(**values["progress"])
        if "problem" in values:
            values["problem"] = Problem.from_json(values["problem"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to work on a job: valid while the job's `fence` is this one and the lease did not run out."""

    job: Job

    @property
    def fence(self) -> int:
        """Which attempt this is, from 1."""
        return self.job.fence

    @property
    def version(self) -> str:
        """The version this attempt may publish."""
        return f"{self.job.job_id}.{self.fence}"


@dataclass(frozen=True, slots=True)
class ModelVersion:
    """One published model of a key."""

    key_id: str
    version: str
    job_id: str
    created_at: Timestamp
    manifest_sha256: str
    metrics: dict[str, Any]

    def to_document(self) -> Document:
        """The record as a flat document; `metrics` becomes JSON text."""
        return _to_document(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """The inverse of `to_document`; members it does not know are passed over."""
        values = _known_fields(cls, document)
        values["metrics"] = json.loads(values["metrics"])
        return cls(**values)


def to_json_text(value: Progress | Problem | dict[str, Any]) -> str:
    """A nested member as it stands in a document."""
    if isinstance(value, Problem):
        value = value.to_json()
    elif isinstance(value, Progress):
        value = {name: getattr(value, name) for name in Progress.__slots__ if getattr(value, name) is not None}
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def _to_document(record: KeyRecord | Job | ModelVersion) -> Document:
    document: Document = {}
    for field in fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Progress | Problem | dict):
            value = to_json_text(value)
        if value is not None:
            document[field.name] = value
    return document


def _known_fields(cls: type[KeyRecord | Job | ModelVersion], document: Document) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in document.items() if name in names}
