"""JSON bodies of the routes, except those for keys (`key_schemas.py`)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, Field

from recsys.file_options import OPTION_TEXTS, Mode
from recsys.http.problems import to_document
from recsys.registry.audit import AuditPage
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose, JobState, ModelVersion, Progress
from recsys_api.schema_fields import CreatedAt, CurrentVersion, KeyId, StrictRequest

_JobId = Annotated[str, Field(description="Id of the job.")]
_Metrics = Annotated[
    dict[str, Any], Field(description="Metrics of the model and of the baselines on held-out interactions.")
]
_FinalMetrics = Annotated[
    dict[str, Any] | None,
    Field(
        description="Metrics of the model and of the baselines on held-out interactions; null unless the job "
        "trained a version."
    ),
]
_Mode = Annotated[
    Mode | None,
    Field(
        description="`replace` if the model is trained on this file alone, `append` if the file is added to the data "
        "of the current version; null if the job trains no model."
    ),
]
_Report = Annotated[
    dict[str, Any] | None,
    Field(
        description="Data report, with counts of the lines that were read and skipped; null until the data has been "
        "read."
    ),
]


_HeldReasons = Annotated[
    list[dict[str, str]],
    Field(
        description="Reasons for which the version is held, each with `code` and `text`. Empty if the version is not "
        "held. `POST /v1/models/{version}/activate` makes a held version current."
    ),
]
_Comparison = Annotated[
    dict[str, Any] | None,
    Field(
        description="Counts and metrics of the `current` and the `new` version. Null if there was no version to "
        "compare with."
    ),
]
_Purpose = Annotated[
    JobPurpose,
    Field(
        description="`train`, `validate` if the file is only checked, or `catalogue` if the file updates the item "
        "catalogue."
    ),
]


class UploadRequest(StrictRequest):
    """Options of an upload form and of the file to upload. The file has the same options as in `POST /v1/train`."""

    gzip: Annotated[bool, Field(description="Whether the file is compressed with gzip.")] = False
    # Not strict, because JSON has no enumerations.
    purpose: Annotated[
        JobPurpose,
        Field(
            strict=False,
            description="`train` trains a model on the file, `validate` only checks it, and `catalogue` replaces the "
            "item catalogue with it. Default: `train`.",
        ),
    ] = JobPurpose.TRAIN
    user: Annotated[str | None, Field(description=OPTION_TEXTS["user"])] = None
    item: Annotated[str | None, Field(description=OPTION_TEXTS["item"])] = None
    time: Annotated[str | None, Field(description=OPTION_TEXTS["time"])] = None
    score: Annotated[str | None, Field(description=OPTION_TEXTS["score"])] = None
    delimiter: Annotated[str | None, Field(description=OPTION_TEXTS["delimiter"])] = None
    charset: Annotated[str | None, Field(description=OPTION_TEXTS["charset"])] = None
    decimal: Annotated[str | None, Field(description=OPTION_TEXTS["decimal"])] = None
    time_format: Annotated[str | None, Field(description=OPTION_TEXTS["time_format"])] = None
    min_score: Annotated[float | None, Field(description=OPTION_TEXTS["min_score"])] = None
    exclude_items: Annotated[
        list[str] | None,
        Field(
            description="Item ids whose rows are skipped. The list is kept with the model and used for later files of "
            "the key until the option is set again. An empty list clears it."
        ),
    ] = None
    event: Annotated[str | None, Field(description=OPTION_TEXTS["event"])] = None
    events: Annotated[
        list[str] | None, Field(description="Kinds of events whose rows are used, such as `purchase`. Default: all.")
    ] = None
    force: Annotated[bool | None, Field(description=OPTION_TEXTS["force"])] = None
    mode: Annotated[str | None, Field(description=OPTION_TEXTS["mode"])] = None


class JobAccepted(BaseModel):
    """Response to a training or validation request that was accepted."""

    job_id: _JobId
    purpose: _Purpose
    key_id: Annotated[str, Field(description="Public id of the API key to which the job belongs.")]
    api_key: Annotated[
        str | None,
        Field(
            description="The new API key, shown only in this response; null if the request was made with an API key."
        ),
    ]
    status: Annotated[JobState, Field(description="Status of the job.")]
    mode: _Mode
    location: Annotated[str, Field(description="Path at which the status of the job can be polled.")]


class ModelTrained(JobAccepted):
    """Response to a training request that waited until the training succeeded."""

    model_version: Annotated[str | None, Field(description="The published version of the model.")]
    metrics: _FinalMetrics
    report: _Report


class TrainingEnded(JobAccepted):
    """Response to a training request that waited until the training ended without a new current version."""

    model_version: Annotated[
        str | None, Field(description="The version that is held; null if the training was superseded.")
    ]
    metrics: _FinalMetrics
    report: _Report
    held_reasons: _HeldReasons
    comparison: _Comparison


class FileValidated(JobAccepted):
    """Response to a validation request that waited until the validation ended."""

    report: _Report


class UploadOffered(JobAccepted):
    """A form for uploading a file directly to the object store."""

    url: Annotated[str, Field(description="Address to which the multipart form must be sent with `POST`.")]
    fields: Annotated[dict[str, str], Field(description="Form fields to send, unchanged and before the part `file`.")]
    max_bytes: Annotated[int, Field(description="Largest file that the form accepts, in bytes.")]
    expires_in_s: Annotated[int, Field(description="Time for which the form is valid, in seconds.")]


class ProgressBody(BaseModel):
    """The progress of a training job."""

    phase: Annotated[
        str,
        Field(
            description="Current step: `reading` the file, `choosing` hyperparameters, `fitting` without the held-out "
            "interactions, `evaluating` on them, `refitting` on all interactions, or `publishing`."
        ),
    ]
    epoch: Annotated[
        int | None, Field(description="Number of completed epochs; null outside of `fitting` and `refitting`.")
    ]
    epochs: Annotated[int | None, Field(description="Maximum number of epochs; training can stop earlier.")]
    loss: Annotated[float | None, Field(description="Mean training loss of the last completed epoch.")]
    validation_ndcg: Annotated[float | None, Field(description="NDCG@20 on the validation data; null if not measured.")]

    @classmethod
    def of(cls, progress: Progress) -> ProgressBody:
        """Return the body that describes the progress of a job."""
        return cls(
            phase=progress.phase,
            epoch=progress.epoch,
            epochs=progress.epochs,
            loss=progress.loss,
            validation_ndcg=progress.validation_ndcg,
        )


class JobBody(BaseModel):
    """A job that trains a model, validates a file or updates an item catalogue."""

    job_id: _JobId
    purpose: _Purpose
    key_id: Annotated[str, Field(description="Public id of the API key to which the job belongs.")]
    status: Annotated[
        JobState,
        Field(
            description="`queued`, `running`, or a final status: `succeeded`, `failed`, `held` or `superseded`. A job "
            "is `held` if its version compares badly with the current one, which then remains current. It is "
            "`superseded` if a version trained on newer data was published first, or if a newer file of the key "
            "replaced this one in the queue."
        ),
    ]
    mode: _Mode
    progress: Annotated[
        ProgressBody | None, Field(description="Last reported progress; null until the training starts.")
    ]
    report: _Report
    metrics: _FinalMetrics
    problem: Annotated[
        dict[str, Any] | None,
        Field(
            description="Problem that made the job fail, with `type`, `title`, `detail`, `hint` and `errors`; null "
            "if the job did not fail."
        ),
    ]
    model_version: Annotated[
        str | None,
        Field(description="Version that the job published, or that is held; null if there is none."),
    ]
    held_reasons: _HeldReasons
    comparison: _Comparison
    queue_position: Annotated[
        int | None,
        Field(
            description="Position in the queue of the local service. The job at position 1 starts next. The position "
            "can increase, because keys take turns. Null unless the job is queued, and always null on AWS."
        ),
    ]
    estimated_wait_s: Annotated[
        int | None,
        Field(description="Estimated seconds until the training starts; null if there is no estimate."),
    ]
    created_at: CreatedAt
    updated_at: Annotated[str, Field(description="Time of the last change (UTC, ISO 8601).")]

    @classmethod
    def of(cls, job: Job, *, position: int | None = None, wait_s: int | None = None) -> JobBody:
        """Return the body that describes a job.

        `position` and `wait_s` are the position of a queued job and its estimated waiting time in seconds, or None.
        """
        return cls(
            job_id=job.job_id,
            purpose=job.purpose,
            key_id=job.key_id,
            status=job.state,
            mode=job.mode,
            progress=ProgressBody.of(job.progress) if job.progress else None,
            report=job.report,
            metrics=job.metrics,
            problem=to_document(job.problem) if job.problem else None,
            model_version=None if job.purpose is JobPurpose.CATALOGUE else job.version,
            held_reasons=job.held_reasons or [],
            comparison=job.comparison,
            queue_position=position,
            estimated_wait_s=wait_s,
            created_at=job.created_at,
            updated_at=job.updated_at,
        )


class ModelBody(BaseModel):
    """A version of a model."""

    version: Annotated[str, Field(description="Name of the version.")]
    job_id: Annotated[str, Field(description="Id of the job that trained the version.")]
    created_at: CreatedAt
    current: Annotated[bool, Field(description="Whether the version serves requests.")]
    pinned: Annotated[bool, Field(description="Whether the version is kept until it is unpinned.")]
    held: Annotated[
        bool,
        Field(description="Whether the version is held. `POST /v1/models/{version}/activate` makes it current."),
    ]
    held_reasons: _HeldReasons
    metrics: _Metrics


class ModelsBody(BaseModel):
    """All versions of a key's model, including held versions."""

    current_version: CurrentVersion
    models: Annotated[list[ModelBody], Field(description="The versions, newest first.")]

    @classmethod
    def of(cls, key: KeyRecord, versions: list[ModelVersion]) -> ModelsBody:
        """Return the body that lists the model versions of `key`."""
        models = [
            ModelBody(
                version=version.version,
                job_id=version.job_id,
                created_at=version.created_at,
                current=version.version == key.current_version,
                pinned=version.pinned_at is not None,
                held=bool(version.held_reasons),
                held_reasons=version.held_reasons or [],
                metrics=version.metrics,
            )
            for version in versions
        ]
        return cls(current_version=key.current_version, models=models)


class ActivatedBody(BaseModel):
    """The current version of a key after an activation."""

    key_id: KeyId
    current_version: CurrentVersion


class PinnedBody(BaseModel):
    """A version after it was pinned or unpinned."""

    version: Annotated[str, Field(description="Name of the version.")]
    pinned: Annotated[bool, Field(description="Whether the version is kept until it is unpinned.")]


class AuditEventBody(BaseModel):
    """A change to the key, its scoped keys or its model."""

    at: Annotated[str, Field(description="Time of the change (UTC, ISO 8601).")]
    event: Annotated[str, Field(description="Name of the event, such as `key.rotated` or `version.published`.")]
    detail: Annotated[
        dict[str, Any],
        Field(description="Values that belong to the event, such as the version. They never contain a secret."),
    ]


class AuditBody(BaseModel):
    """A page of the audit log."""

    events: Annotated[list[AuditEventBody], Field(description="The events, newest first.")]
    next: Annotated[
        str | None, Field(description="Value of `cursor` for the next page. Null if there are no older events.")
    ]

    @classmethod
    def of(cls, page: AuditPage) -> AuditBody:
        """Return the response body for a page of the audit log."""
        events = [AuditEventBody(at=event.at, event=event.event, detail=event.detail) for event in page.events]
        return cls(events=events, next=page.next_cursor)


class UserErased(BaseModel):
    """An erased user, and the time of the erasure."""

    user_id: Annotated[str, Field(description="The user id of the request.")]
    erased_at: Annotated[str, Field(description="Time of the erasure (UTC, ISO 8601).")]


class HealthBody(BaseModel):
    """The result of a health check."""

    status: Annotated[str, Field(description="`live` or `ready`.")]
