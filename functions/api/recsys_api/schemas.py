"""What the routes take and give, as JSON. Requests are strict: no unknown members, no numbers in quotes."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from recsys.clock import Timestamp
from recsys.http.problems import to_document
from recsys.registry.records import Job, JobState, KeyRecord, ModelVersion

DAY_S: Final = 86_400


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class UploadRequest(_Request):
    """What will be uploaded."""

    gzip: Annotated[bool, Field(description="Whether the file will be compressed.")] = False


class RotateRequest(_Request):
    """How to rotate a key."""

    overlap_s: Annotated[
        int, Field(ge=0, le=7 * DAY_S, description="How long the key before works on, in seconds.")
    ] = DAY_S


class ClaimRequest(_Request):
    """The token of a receipt."""

    claim_token: Annotated[str, Field(min_length=1, max_length=200)]


class JobAccepted(BaseModel):
    """A training that was asked for. `api_key` is shown this once; null when the request came with a key."""

    job_id: str
    key_id: str
    api_key: str | None
    status: JobState
    location: Annotated[str, Field(description="Where to ask how far it is.")]


class ModelTrained(JobAccepted):
    """A training that succeeded while the request waited."""

    model_version: str | None
    metrics: dict[str, Any] | None
    report: Annotated[dict[str, Any] | None, Field(description="What was read, and which lines were left out.")]


class UploadOffered(JobAccepted):
    """Where to send a large file: POST a multipart form with `fields`, then `file`, to `url`."""

    url: str
    fields: dict[str, str]
    max_bytes: int
    expires_in_s: int


class ProgressBody(BaseModel):
    """How far a training is."""

    phase: str
    epoch: int | None
    epochs: int | None
    loss: float | None
    validation_ndcg: float | None


class JobBody(BaseModel):
    """A training: queued, running, and then succeeded, failed, or superseded by newer data."""

    job_id: str
    key_id: str
    status: JobState
    progress: ProgressBody | None
    report: dict[str, Any] | None
    metrics: dict[str, Any] | None
    problem: Annotated[dict[str, Any] | None, Field(description="Why it failed: type, title, detail, hint, errors.")]
    model_version: str | None
    created_at: str
    updated_at: str

    @classmethod
    def of(cls, job: Job) -> JobBody:
        """`job` as it is shown."""
        progress = job.progress
        return cls(
            job_id=job.job_id,
            key_id=job.key_id,
            status=job.state,
            progress=None
            if progress is None
            else ProgressBody(
                phase=progress.phase,
                epoch=progress.epoch,
                epochs=progress.epochs,
                loss=progress.loss,
                validation_ndcg=progress.validation_ndcg,
            ),
            report=job.report,
            metrics=job.metrics,
            problem=to_document(job.problem) if job.problem else None,
            model_version=job.version,
            created_at=job.created_at,
            updated_at=job.updated_at,
        )


class ModelBody(BaseModel):
    """One version of the key's model."""

    version: str
    job_id: str
    created_at: str
    current: bool
    metrics: dict[str, Any]


class ModelsBody(BaseModel):
    """Every version of the key's model, newest first."""

    current_version: str | None
    models: list[ModelBody]

    @classmethod
    def of(cls, key: KeyRecord, versions: list[ModelVersion]) -> ModelsBody:
        """`versions` of `key` as they are shown."""
        models = [
            ModelBody(
                version=version.version,
                job_id=version.job_id,
                created_at=version.created_at,
                current=version.version == key.current_version,
                metrics=version.metrics,
            )
            for version in versions
        ]
        return cls(current_version=key.current_version, models=models)


class ActivatedBody(BaseModel):
    """Which version answers from now on."""

    key_id: str
    current_version: str | None


class KeyBody(BaseModel):
    """What may be known of a key. `expires_at` is set until its first model is published."""

    key_id: str
    created_at: str
    current_version: str | None
    expires_at: str | None
    previous_key_expires_at: Annotated[str | None, Field(description="Until when the key before the rotation works.")]

    @classmethod
    def of(cls, key: KeyRecord, *, now: Timestamp) -> KeyBody:
        """`key` as it is shown: nothing of its secrets."""
        previous_runs = key.previous_expires_at is not None and now < key.previous_expires_at
        return cls(
            key_id=key.key_id,
            created_at=key.created_at,
            current_version=key.current_version,
            expires_at=key.expires_at,
            previous_key_expires_at=key.previous_expires_at if previous_runs else None,
        )


class KeyIssued(BaseModel):
    """A key in clear, shown this once."""

    key_id: str
    api_key: str


class HealthBody(BaseModel):
    """The service answers."""

    status: str
