"""Every error a caller can meet, as one tree.

    RecsysError
    ├── InvalidRequest             the request cannot be understood
    │   ├── EmptyUpload            the body holds no bytes
    │   ├── UnsupportedMediaType   the body is of a type that the route does not take
    │   └── IdempotencyMismatch    an Idempotency-Key came back with another body
    ├── PayloadTooLarge            the body is over the limit of this route
    ├── InvalidData                the CSV cannot be trained on
    ├── InvalidApiKey              no key, a typo, an unknown or a revoked one
    ├── NotFound
    │   ├── JobNotFound
    │   ├── KeyNotFound
    │   ├── VersionNotFound
    │   ├── ItemNotFound           the model knows no such item
    │   └── ObjectNotFound
    ├── Conflict
    │   ├── ModelNotReady          no version of this key's model is published yet
    │   ├── ObjectExists           a create-only write met an object
    │   ├── KeyExists
    │   └── JobNotClaimable        finished, or another worker holds its lease
    │       ├── JobBusy            another worker holds its lease
    │       └── JobFinished        it reached a final state
    ├── Gone                       a claim token is used up, expired or was never issued
    ├── LeaseLost                  another worker took the job over; stop working on it
    ├── ArtifactDamaged            a model file is not what its manifest says
    └── Unavailable                a store did not answer; trying again may help
        └── NotReady               the machine lacks something, such as disk space; the reason may be shown

An error knows no HTTP status: `recsys.http.problems` maps classes to problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Self


@dataclass(frozen=True, slots=True)
class FieldError:
    """One place in the input that is wrong.

    `line` is the 1-based line of a CSV (the header is line 1); `pointer` a JSON pointer into a request body.
    """

    code: str
    detail: str
    line: int | None = None
    pointer: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class Problem:
    """What went wrong, in the words of RFC 9457, without the transport: it is kept with a failed job."""

    code: str
    title: str
    detail: str
    hint: str | None = None
    errors: tuple[FieldError, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """A JSON object; empty members are left out."""
        document: dict[str, Any] = {"code": self.code, "title": self.title, "detail": self.detail}
        if self.hint:
            document["hint"] = self.hint
        if self.errors:
            document["errors"] = [error.to_json() for error in self.errors]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """The inverse of `to_json`."""
        return cls(
            code=document["code"],
            title=document["title"],
            detail=document["detail"],
            hint=document.get("hint"),
            errors=tuple(FieldError(**error) for error in document.get("errors", ())),
        )


class RecsysError(Exception):
    """The root. `detail` says what was expected and what came; `hint` says the mend."""

    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Something went wrong on our side"
    default_hint: ClassVar[str | None] = None

    def __init__(
        self,
        detail: str,
        *,
        code: str | None = None,
        hint: str | None = None,
        errors: Sequence[FieldError] = (),
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problem_code = code or self.code
        self.hint = hint or self.default_hint
        self.errors = tuple(errors)
        self.retry_after_s = retry_after_s

    def to_problem(self) -> Problem:
        """The error as a value that can be stored and sent."""
        return Problem(self.problem_code, self.title, self.detail, self.hint, self.errors)


class InvalidRequest(RecsysError):
    """The request cannot be understood."""

    code = "invalid-request"
    title = "The request is not valid"


class EmptyUpload(InvalidRequest):
    """The body holds no bytes."""

    code = "empty-upload"
    title = "The upload is empty"
    default_hint = "Send a CSV with the columns user_id,item_id and at least two users and two items."


class UnsupportedMediaType(InvalidRequest):
    """The body is of a type that the route does not take."""

    code = "unsupported-media-type"
    title = "The body is of a type that this route does not take"


class IdempotencyMismatch(InvalidRequest):
    """An Idempotency-Key came back with another body."""

    code = "idempotency-mismatch"
    title = "This Idempotency-Key was used for another request"
    default_hint = "Use a new Idempotency-Key for a new file."


class PayloadTooLarge(RecsysError):
    """The body is over the limit of this route."""

    code = "payload-too-large"
    title = "The upload is too large for this route"
    default_hint = "POST /v1/uploads gives an address that takes large files."


class InvalidData(RecsysError):
    """The CSV cannot be trained on."""

    code = "invalid-data"
    title = "The data cannot be trained on"


class InvalidApiKey(RecsysError):
    """No key, a typo, an unknown or a revoked one. The message never says which of the last two."""

    code = "invalid-api-key"
    title = "The API key is not valid"
    default_hint = "Send the key that POST /v1/train returned in the X-API-Key header."


class NotFound(RecsysError):
    """The thing that was asked for does not exist."""

    code = "not-found"
    title = "Not found"


class JobNotFound(NotFound):
    """No such job, or it belongs to another key."""

    code = "job-not-found"
    title = "No such job"


class KeyNotFound(NotFound):
    """No such key."""

    code = "key-not-found"
    title = "No such key"


class VersionNotFound(NotFound):
    """No such model version of this key."""

    code = "version-not-found"
    title = "No such model version"
    default_hint = "GET /v1/models lists the versions of this key."


class ItemNotFound(NotFound):
    """The model knows no such item."""

    code = "item-not-found"
    title = "No such item"
    default_hint = "Vocabulary are compared as they stand in the CSV. Items that are new since need another training."


class ObjectNotFound(NotFound):
    """The object store holds no such object."""

    code = "object-not-found"
    title = "No such object"


class Conflict(RecsysError):
    """The request does not fit the present state."""

    code = "conflict"
    title = "The request does not fit the present state"


class ModelNotReady(Conflict):
    """No version of this key's model is published yet."""

    code = "model-not-ready"
    title = "The model is not ready"
    default_hint = "GET /v1/jobs/{job_id} says how far its training is; if it failed, POST a mended file with this key."


class ObjectExists(Conflict):
    """A create-only write met an object of that name."""

    code = "object-exists"
    title = "The object exists"


class KeyExists(Conflict):
    """A key of that id exists."""

    code = "key-exists"
    title = "The key exists"


class JobNotClaimable(Conflict):
    """The job cannot be worked on now."""

    code = "job-not-claimable"
    title = "The job cannot be claimed"


class JobBusy(JobNotClaimable):
    """Another worker holds the job's lease."""


class JobFinished(JobNotClaimable):
    """The job reached a final state."""


class Gone(RecsysError):
    """A claim token is used up, expired or was never issued; the message does not say which."""

    code = "claim-gone"
    title = "The claim token is not valid any more"
    default_hint = "A token works once, within 24 hours. Drop the file again for a new receipt."


class LeaseLost(RecsysError):
    """Another worker took the job over; whoever meets this stops working on it."""

    code = "lease-lost"
    title = "The job was taken over"


class ArtifactDamaged(RecsysError):
    """A model file is not what its manifest says."""

    code = "artifact-damaged"
    title = "The model's files are damaged"
    default_hint = "Activate another version with POST /v1/models/{version}/activate, or train again."


class Unavailable(RecsysError):
    """A store did not answer; trying again may help."""

    code = "unavailable"
    title = "The service is not available right now"
    default_hint = "Try again in a few seconds."


class NotReady(Unavailable):
    """Raised when the service should not receive requests; unlike other faults, the caller is told the reason."""

    code = "not-ready"
    title = "The service is not ready"
