"""Records of the registry, and their conversion to the flat documents that every adapter stores."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any, Self

from recsys.clock import Timestamp
from recsys.errors import NotReady, Problem
from recsys.file_options import Mode
from recsys.registry import scoped_keys
from recsys.registry.scoped_keys import ScopedKey

Document = dict[str, str | int]
"""A flat document of strings and integers. Fields that are None are omitted."""


class JobState(StrEnum):
    """State of a job. `succeeded`, `failed` and `superseded` are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SUPERSEDED = "superseded"

    @property
    def is_final(self) -> bool:
        """Whether the state is final, so that the job can no longer change."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.SUPERSEDED)


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """An API key. Only hashes of its secrets are stored.

    Parameters
    ----------
    key_id
        Public part of the key.
    created_at
        Time of creation.
    revision
        Number of changes so far.
    secret_sha256
        Hash of the current secret. None until the receipt of a drop is claimed.
    previous_sha256, previous_expires_at
        Hash of the secret before the last rotation, and the time until which it is valid.
    revoked_at
        Time of the revocation.
    expires_at
        Time from which the key counts as deleted. It is set until the key has both a secret and a model, so that
        unused keys expire.
    current_version, current_manifest_sha256
        The model version that is served, and the digest of its manifest.
    current_data_timestamp
        `Job.data_timestamp` of the current version. Activating a version sets it to the time of
        the activation, so that a running training job cannot undo the activation.
    scoped_keys
        The scoped keys.
    replaced_data_timestamp
        `current_data_timestamp` as the last complete file or activation set it. A file that is to be added may be older
        than what was added before, but not older than this. None, from an earlier release, means
        `current_data_timestamp`.
    erasures
        The erased users, as text of `recsys.registry.erasures`.
    current_erasures
        `ModelVersion.erasures` of the current version.
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
    scoped_keys: tuple[ScopedKey, ...] = ()
    replaced_data_timestamp: str | None = None
    erasures: str | None = None
    current_erasures: int | None = None

    def to_document(self) -> Document:
        """Return the record as a flat document. `scoped_keys` becomes JSON text."""
        return _to_document(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Return the record that `to_document` wrote. Unknown members, written by a newer release, are ignored."""
        values = _known_fields(cls, document)
        if "scoped_keys" in values:
            values["scoped_keys"] = scoped_keys.from_json_text(values["scoped_keys"])
        return cls(**values)


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a training job. `phase` is reading, choosing, fitting, evaluating, refitting or publishing."""

    phase: str
    epoch: int | None = None
    epochs: int | None = None
    loss: float | None = None
    validation_ndcg: float | None = None


@dataclass(frozen=True, slots=True)
class Job:
    """A request to train the model of `key_id` on the object `object_name`.

    Parameters
    ----------
    job_id, key_id, object_name
        Ids of the job and its key, and the name of the object with the data.
    created_at, updated_at
        Times of creation and of the last change.
    state
        State of the job.
    fence
        Number of attempts so far. Attempt n may publish only the version `<job_id>.<n>`.
    lease_owner, lease_until
        The worker that holds the lease, and the time at which the lease expires.
    started_at
        Time at which the current attempt began.
    error_fence
        Number of the last attempt that reported an error.
    kills, killed_after_s
        Number of attempts that were killed, that is, ended without reporting an error, and the time from the start of
        the last of them to the last renewal of its lease, in seconds.
    data_timestamp
        Time at which the data arrived, as `<timestamp>#<tiebreak>`. The jobs of a key are ordered by comparing it as
        text. The first claim sets it.
    fingerprint
        SHA-256 of the request body and its options. It distinguishes a repeated request from a changed one.
    options
        Options for reading the file (`FileOptions.to_json`), or None.
    object_version
        Version of the object to train on (`ObjectInfo.version`), or None for the current one.
    receipt_name, receipted_at
        Name of the receipt of a drop, and the time at which its final version was written.
    expires_at
        Time from which the job counts as deleted.
    version, metrics
        The published version and its metrics.
    progress, report, problem
        Progress of the training, data report and cause of failure.
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
    """Attempts that ended because the operator stopped the worker; they do not count against `max_attempts`."""
    expires_at: Timestamp | None = None
    version: str | None = None
    progress: Progress | None = None
    report: dict[str, Any] | None = None
    metrics: dict[str, Any] | None = None
    problem: Problem | None = None

    @property
    def mode(self) -> Mode:
        """What the file does to the interactions that the key already has."""
        return Mode((self.options or {}).get("mode", Mode.REPLACE))

    @property
    def counted_attempts(self) -> int:
        """Number of attempts that count against `Settings.max_attempts`, the current one included."""
        return self.fence - self.interruptions

    def to_document(self) -> Document:
        """Return the record as a flat document. Nested members become JSON text."""
        return _to_document(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Return the record that `to_document` wrote. Unknown members, written by a newer release, are ignored."""
        values = _known_fields(cls, document)
        values["state"] = _known_state(values["state"])
        for name in ("options", "progress", "report", "metrics", "problem"):
            if name in values:
                values[name] = json.loads(values[name])
        if "progress" in values:
            values["progress"] = Progress(**values["progress"])
        if "problem" in values:
            values["problem"] = Problem.from_json(values["problem"])
        return cls(**values)


def _known_state(text: str) -> JobState:
    try:
        return JobState(text)
    except ValueError:
        raise NotReady(
            f"The job has the state {text!r}, which a newer release of the service wrote.",
            hint="Retry when the update of the service is complete.",
        ) from None


@dataclass(frozen=True, slots=True)
class Lease:
    """Permission to work on a job. It is valid until another worker claims the job and increments its `fence`."""

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
    """A published version of the model of a key.

    Parameters
    ----------
    key_id, version, job_id, created_at
        Name of the version, and where it comes from.
    manifest_sha256, metrics
        Digest of its manifest, and its metrics.
    base_version
        The version to whose interactions a file was added; None if the file is all that it was trained on.
    erasures
        Number of the last erasure that it was trained without (`recsys.registry.erasures`).
    erase_by
        Time by which it is to be deleted, because it contains users who were erased afterwards.
    """

    key_id: str
    version: str
    job_id: str
    created_at: Timestamp
    manifest_sha256: str
    metrics: dict[str, Any]
    base_version: str | None = None
    erasures: int | None = None
    erase_by: Timestamp | None = None

    def to_document(self) -> Document:
        """Return the record as a flat document. `metrics` becomes JSON text."""
        return _to_document(self)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Return the record that `to_document` wrote. Unknown members, written by a newer release, are ignored."""
        values = _known_fields(cls, document)
        values["metrics"] = json.loads(values["metrics"])
        return cls(**values)


def to_json_text(value: Progress | Problem | dict[str, Any]) -> str:
    """Return a nested member as the JSON text that a document stores."""
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
        elif isinstance(value, tuple):
            value = scoped_keys.to_json_text(value) if value else None
        if value is not None:
            document[field.name] = value
    return document


def _known_fields(cls: type[KeyRecord | Job | ModelVersion], document: Document) -> dict[str, Any]:
    names = {field.name for field in fields(cls)}
    return {name: value for name, value in document.items() if name in names}
