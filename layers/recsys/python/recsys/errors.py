"""All errors that a caller can see, as one tree.

    RecsysError
    ├── InvalidRequest             the request is malformed
    │   ├── EmptyUpload            the body is empty
    │   ├── UnsupportedMediaType   the route does not accept the body's content type
    │   └── IdempotencyMismatch    an Idempotency-Key was reused for a different file or other options
    ├── PayloadTooLarge            the body exceeds the limit of the route
    ├── InvalidData                a file of interactions or items cannot be used
    │   ├── UntrainableData        the CSV was read, but too little of it is usable
    │   └── UnusableItems          a file of items was read, but too little of it is usable
    ├── InvalidApiKey              the key is missing, malformed, unknown or revoked
    │   └── ApiKeyRequired         the service does not accept training without a key
    ├── Forbidden
    │   ├── InsufficientScope      a scoped key does not permit the operation
    │   └── OriginNotAllowed       the origin of the web page is not permitted
    ├── RateLimited                the key or the client address has made too many requests
    ├── NotFound
    │   ├── JobNotFound
    │   ├── KeyNotFound
    │   ├── ScopedKeyNotFound
    │   ├── VersionNotFound
    │   ├── ItemNotFound           the model does not contain the item
    │   └── ObjectNotFound
    ├── Conflict
    │   ├── ModelNotReady          the key has no published model yet
    │   ├── ObjectExists           a create-only write found an existing object
    │   ├── KeyExists
    │   ├── TooManyScopedKeys
    │   ├── TooManyPinnedVersions
    │   ├── NoCatalogue            the request needs an item catalogue and the key has none
    │   ├── TooManyErasures
    │   └── JobNotClaimable
    │       ├── JobBusy            another worker holds the job's lease
    │       └── JobFinished        the job is in a final state
    ├── Gone                       a claim token was already used, has expired or is unknown
    │   └── SignInLinkGone         a sign-in link was used or replaced
    ├── LeaseLost                  another worker took over the job; this worker must stop
    ├── ArtifactDamaged            a model file does not match its manifest
    ├── Unavailable                a store did not respond; a retry may succeed
    │   ├── CatalogueChanged       another update of an item catalogue was published during this one
    │   └── NotReady               the service cannot handle the request, and the response states the reason
    ├── InvalidSetting             an environment variable has an invalid value
    ├── RegistryTooNew             a newer release wrote the registry file
    ├── DataDirInUse               another service uses the data directory
    ├── DataDirUnusable            the data directory cannot be written
    ├── NoRegistry                 a command needs a registry, and the data directory has none
    ├── RegistryMissing            the data directory has models that its registry does not know
    ├── BackupRefused              a backup or a restore would overwrite something
    ├── BackupDamaged              a backup is incomplete or does not match its digests
    ├── OutputNotWritable          the result of a command cannot be written
    └── CannotListen               the port cannot be opened

The classes that several packages raise are defined here. The others are defined next to the code that raises them. An
error does not contain an HTTP status, because `recsys.http.problems` maps each class to a status.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple, Self


class FieldError(NamedTuple):
    """One error in the input, with its position.

    Parameters
    ----------
    code
        The kind of error, for programs, such as `blank-user-id`.
    detail
        Explanation of the error, for readers.
    line
        Line of the file, counted from 1. In a Parquet file or a JSON array, the number of the row or element.
    pointer
        JSON pointer into the request body.
    column
        Name of the column.
    """

    code: str
    detail: str
    line: int | None = None
    pointer: str | None = None
    column: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields that are not None, as a JSON object."""
        return {name: value for name, value in self._asdict().items() if value is not None}


class Problem(NamedTuple):
    """An RFC 9457 problem without `type` and `status`, so that it can also be stored with a failed job."""

    code: str
    title: str
    detail: str
    hint: str | None = None
    errors: tuple[FieldError, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the problem as a JSON object. Empty members are omitted."""
        document: dict[str, Any] = {"code": self.code, "title": self.title, "detail": self.detail}
        if self.hint:
            document["hint"] = self.hint
        if self.errors:
            document["errors"] = [error.to_json() for error in self.errors]
        return document

    @classmethod
    def from_json(cls, document: dict[str, Any]) -> Self:
        """Parse a problem that `to_json` wrote."""
        return cls(
            code=document["code"],
            title=document["title"],
            detail=document["detail"],
            hint=document.get("hint"),
            errors=tuple(FieldError(**error) for error in document.get("errors", ())),
        )


class RecsysError(Exception):
    """Base class of all errors of recsys.

    Parameters
    ----------
    detail
        The expected and the received input, in one or two sentences.
    code
        Machine-readable code of this error. Defaults to the code of the class.
    hint
        A suggestion for fixing the error. Defaults to the hint of the class.
    errors
        Errors at single positions of the input, such as the bad lines of a CSV.
    retry_after_s
        Seconds after which a retry may succeed.

    Examples
    --------
    >>> error = JobNotFound("There is no job with the id 'j1'.")
    >>> error.to_problem().to_json()
    {'code': 'job-not-found', 'title': 'Job not found', 'detail': "There is no job with the id 'j1'."}
    """

    code: ClassVar[str] = "internal-error"
    title: ClassVar[str] = "Internal error"
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
        """Return the error as a `Problem`, which can be stored and sent."""
        return Problem(self.problem_code, self.title, self.detail, self.hint, self.errors)


class InvalidRequest(RecsysError):
    """Raised when a request is malformed."""

    code = "invalid-request"
    title = "The request is not valid"


class EmptyUpload(InvalidRequest):
    """Raised when the body of an upload is empty."""

    code = "empty-upload"
    title = "The upload is empty"
    default_hint = "Check that the file contains data, and send it again."


class UnsupportedMediaType(InvalidRequest):
    """Raised when the route does not accept the content type of the body."""

    code = "unsupported-media-type"
    title = "The content type is not supported"


class IdempotencyMismatch(InvalidRequest):
    """Raised when an Idempotency-Key is reused with a different file or different options."""

    code = "idempotency-mismatch"
    title = "The Idempotency-Key was already used for a different request"
    default_hint = "Send a new Idempotency-Key whenever the file or an option changes."


class PayloadTooLarge(RecsysError):
    """Raised when the body exceeds the limit of the route."""

    code = "payload-too-large"
    title = "The request body is too large for this route"
    default_hint = "Request an upload form with POST /v1/uploads. The form accepts larger files."


class InvalidData(RecsysError):
    """Raised when a file of interactions or items cannot be used."""

    code = "invalid-data"
    title = "The data cannot be used"


class InvalidApiKey(RecsysError):
    """Raised when the API key is missing, malformed, unknown or revoked.

    Unknown and revoked keys cause the same message, so that a response does not reveal which keys exist.
    """

    code = "invalid-api-key"
    title = "The API key is not valid"
    default_hint = (
        "In the X-API-Key header, send the key that POST /v1/train or, after a rotation, POST /v1/key/rotate returned."
    )


class ApiKeyRequired(InvalidApiKey):
    """Raised when a request to train has no API key, and the service does not create keys over HTTP."""

    code = "api-key-required"
    title = "An API key is required"
    default_hint = "Send your key in the X-API-Key header, or request one from the operator of the service."


class Forbidden(RecsysError):
    """Raised when the API key is valid but does not permit the request."""

    code = "forbidden"
    title = "The request is not permitted"


class InsufficientScope(Forbidden):
    """Raised when a scoped key does not permit the operation."""

    code = "insufficient-scope"
    title = "The API key does not permit this operation"


class OriginNotAllowed(Forbidden):
    """Raised when the origin of a web page is not permitted to make the request."""

    code = "origin-not-allowed"
    title = "Pages of this origin are not permitted"


class NotFound(RecsysError):
    """Raised when the requested resource does not exist."""

    code = "not-found"
    title = "Not found"


class JobNotFound(NotFound):
    """Raised when the job does not exist or belongs to another key."""

    code = "job-not-found"
    title = "Job not found"


class KeyNotFound(NotFound):
    """Raised when the key does not exist, has expired or is revoked."""

    code = "key-not-found"
    title = "Key not found"


class ScopedKeyNotFound(NotFound):
    """Raised when the key has no scoped key with the requested id."""

    code = "scoped-key-not-found"
    title = "Scoped key not found"
    default_hint = "GET /v1/keys lists the scoped keys of this key."


class VersionNotFound(NotFound):
    """Raised when the key has no model version with the requested name."""

    code = "version-not-found"
    title = "Model version not found"
    default_hint = "GET /v1/models lists the versions of this key."


class ItemNotFound(NotFound):
    """Raised when the model does not contain the item."""

    code = "item-not-found"
    title = "Item not found"
    default_hint = (
        "Item ids must match the training data exactly, including case and leading zeros. "
        "To add new items, send a file that contains them to POST /v1/train."
    )


class ObjectNotFound(NotFound):
    """Raised when the object store has no object with the requested name."""

    code = "object-not-found"
    title = "Object not found"


class Conflict(RecsysError):
    """Raised when the request conflicts with the current state of a resource."""

    code = "conflict"
    title = "The request conflicts with the current state"


class ModelNotReady(Conflict):
    """Raised when the key has no published model yet."""

    code = "model-not-ready"
    title = "The model is not ready"
    default_hint = (
        "Check the training with GET /v1/jobs/{job_id}. If the training failed, upload a corrected file with this key."
    )


class ObjectExists(Conflict):
    """Raised when a create-only write finds an existing object of the same name."""

    code = "object-exists"
    title = "The object already exists"


class KeyExists(Conflict):
    """Raised when a key with the same id already exists."""

    code = "key-exists"
    title = "The key already exists"


class TooManyScopedKeys(Conflict):
    """Raised when a key already has the largest permitted number of scoped keys."""

    code = "too-many-scoped-keys"
    title = "The key has too many scoped keys"
    default_hint = "With DELETE /v1/keys/{scoped_key_id}, delete a scoped key that is no longer used."


class TooManyPinnedVersions(Conflict):
    """Raised when a key already has the largest permitted number of pinned versions."""

    code = "too-many-pinned-versions"
    title = "The key has too many pinned versions"
    default_hint = "With DELETE /v1/models/{version}/pin, unpin a version that is no longer needed."


class NoCatalogue(Conflict):
    """Raised when a request uses attributes of items, but the key has no item catalogue."""

    code = "no-catalogue"
    title = "The key has no item catalogue"
    default_hint = "Send the items with PUT /v1/items, or leave out the options that need a catalogue."


class TooManyErasures(Conflict):
    """Raised when a key already has the largest permitted number of erased users."""

    code = "too-many-erasures"
    title = "The key has too many erased users"
    default_hint = (
        "To erase the user without this route, train on a complete file (mode=replace) that does not contain the user."
    )


class JobNotClaimable(Conflict):
    """Raised when a worker cannot claim a job. The subclasses `JobBusy` and `JobFinished` state the reason."""

    code = "job-not-claimable"
    title = "The job cannot be claimed"


class JobBusy(JobNotClaimable):
    """Raised when another worker holds the lease of the job."""


class JobFinished(JobNotClaimable):
    """Raised when the job is already in a final state."""


class RateLimited(RecsysError):
    """Raised when a key or a client address has used up a rate limit."""

    code = "rate-limited"
    title = "Too many requests"
    default_hint = "Retry after the number of seconds in Retry-After."


class Gone(RecsysError):
    """Raised when a claim token was already used, has expired or is unknown.

    All three cases have the same message, so that a response does not reveal which tokens exist.
    """

    code = "claim-gone"
    title = "The claim token is no longer valid"
    default_hint = (
        "A token works once and expires at the time that claim_expires_at in the receipt states. "
        "Drop the file into the inbox again to get a new receipt."
    )


class LeaseLost(RecsysError):
    """Raised when another worker took over the job. The worker that sees this error must stop working on the job."""

    code = "lease-lost"
    title = "Another worker took over the job"


class ArtifactDamaged(RecsysError):
    """Raised when a model file does not match its manifest."""

    code = "artifact-damaged"
    title = "The model files are damaged"
    default_hint = "Activate another version with POST /v1/models/{version}/activate, or retrain with POST /v1/train."


class Unavailable(RecsysError):
    """Raised when the object store or the registry does not respond. A retry may succeed."""

    code = "unavailable"
    title = "The service is temporarily unavailable"
    default_hint = "Retry in a few seconds."


class NotReady(Unavailable):
    """Raised when the service cannot handle a request, for example because the disk is full.

    The response contains the `detail` of this error. For every other `Unavailable` error, only the log contains the
    detail.
    """

    code = "not-ready"
    title = "The service is not ready"
