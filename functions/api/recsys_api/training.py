"""Accept requests to train on a file or to validate a file.

Each request registers a key if it has none, creates a job, and stores the file, in this order. The arrival of the file
starts the job.

A failure between two steps does no harm. A key or a job without a file expires, and a file is stored only after the job
that assigns the file to a key.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import BinaryIO, Final

from recsys.clock import DAY_S, Clock, after, utc_now
from recsys.errors import Conflict, IdempotencyMismatch, InvalidRequest, JobNotFound, KeyExists, ObjectExists
from recsys.file_options import FileOptions
from recsys.keys.api_key import ApiKey
from recsys.keys.base62 import job_id_of_request, new_job_id
from recsys.objects import layout
from recsys.objects.store import ObjectStore, UploadForm
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose, JobState
from recsys.registry.registry import Registry
from recsys.settings import Settings

UPLOAD_VALID_S: Final = 3600
"""Time for which an upload form is valid, in seconds."""

_ANONYMOUS: Final = "anonymous"
_MAX_IDEMPOTENCY_KEY: Final = 255
_IDEMPOTENCY_KEY: Final = re.compile(rf"[\x21-\x7e]{{1,{_MAX_IDEMPOTENCY_KEY}}}")
_MIN_ANONYMOUS_LENGTH: Final = 16
_UUID_HINT: Final = "Send a UUID as the Idempotency-Key, and a new one whenever the file or an option changes."


NO_OPTIONS: Final = FileOptions()


@dataclass(frozen=True, slots=True)
class NewFile:
    """An uploaded file, with its digest and its options.

    Parameters
    ----------
    content
        The bytes of the file.
    sha256
        Hex digest of `content`.
    gzipped
        Whether `content` is compressed with gzip.
    options
        Options for reading the file.
    """

    content: BinaryIO
    sha256: str
    gzipped: bool
    options: FileOptions = NO_OPTIONS

    @property
    def fingerprint(self) -> str:
        """Digest of the content and the options, or of the content alone if no option is set."""
        options = self.options.to_json()
        if not options:
            return self.sha256
        return hashlib.sha256(f"{self.sha256}{json.dumps(options, sort_keys=True)}".encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Accepted:
    """The job of an accepted request, and the API key if the request created one (otherwise None)."""

    job: Job
    api_key: ApiKey | None


class Training:
    """The part of the API that accepts files for training or validation.

    Parameters
    ----------
    registry
        Registry of keys and jobs.
    store
        Object store of the files.
    settings
        Size limits, and lifetimes of jobs and unused keys.
    clock
        Function that returns the current time, for creation and expiry times.
    """

    def __init__(self, registry: Registry, store: ObjectStore, settings: Settings, clock: Clock = utc_now) -> None:
        self._registry = registry
        self._store = store
        self._settings = settings
        self._clock = clock

    def accept(
        self,
        file: NewFile,
        *,
        key: KeyRecord | None,
        idempotency_key: str | None,
        purpose: JobPurpose = JobPurpose.TRAIN,
    ) -> Accepted:
        """Store a file and queue the job that trains on it or validates it.

        A repeated request with the same idempotency key and file returns the first request's job and key. If the first
        request failed before the file was stored, the repeated request stores the file.

        Parameters
        ----------
        file
            The uploaded file.
        key
            Key whose model is retrained. If None, a new key is created. Without an idempotency key, the new key is
            random. With an idempotency key, the new key is derived from the idempotency key and the file. A repeated
            request can therefore return the same key, although the service stores only the digest of its secret.
        idempotency_key
            Value of the `Idempotency-Key` header, or None. The value must have 1 to 255 visible ASCII characters, and
            at least 16 if `key` is None.
        purpose
            Purpose of the job. Jobs of different purposes do not share idempotency keys.

        Returns
        -------
        Accepted
            The job and the new API key. `api_key` is None if `key` was given.

        Raises
        ------
        IdempotencyMismatch
            The idempotency key was used with another file or with other options. Nothing was stored.
        Conflict
            The key that the first request created has been rotated or revoked. Nothing was stored.
        InvalidRequest
            The idempotency key has an invalid character or length.

        Examples
        --------
        >>> import io, tempfile
        >>> from pathlib import Path
        >>> from recsys.objects.files import FileObjectStore
        >>> from recsys.registry.sqlite import SqliteRegistry
        >>> folder = Path(tempfile.mkdtemp())
        >>> registry = SqliteRegistry(folder / "registry.sqlite3")
        >>> training = Training(registry, FileObjectStore(folder / "objects"), Settings())
        >>> file = NewFile(io.BytesIO(b"user_id,item_id"), sha256="5f1c…", gzipped=False)
        >>> accepted = training.accept(file, key=None, idempotency_key=None)
        >>> accepted.job.state.value, accepted.job.key_id == accepted.api_key.key_id
        ('queued', True)
        >>> registry.close()
        """
        if idempotency_key is None:
            job_id, api_key = new_job_id(), None if key else ApiKey.mint()
        else:
            check_idempotency_key(idempotency_key, anonymous=key is None)
            owner = key.key_id if key else _ANONYMOUS
            if purpose is not JobPurpose.TRAIN:
                owner = f"{owner}/{purpose}"
            job_id = job_id_of_request(owner, idempotency_key)
            self._check_same_file(job_id, file)
            api_key = None if key else ApiKey.derive(_ANONYMOUS, idempotency_key, file.sha256)
        key_id = self._register_key(key, api_key, may_exist=idempotency_key is not None)
        job = self._create_job(
            job_id,
            key_id,
            gzipped=file.gzipped,
            fingerprint=file.fingerprint,
            options=file.options,
            purpose=purpose,
        )
        _check_fingerprint(job, file)
        if job.state is JobState.QUEUED:
            self._store_file(job, file)
        return Accepted(job, api_key)

    def offer_upload(
        self,
        *,
        key: KeyRecord | None,
        gzipped: bool,
        options: FileOptions = NO_OPTIONS,
        purpose: JobPurpose = JobPurpose.TRAIN,
    ) -> tuple[Accepted, UploadForm]:
        """Create a job, and return the job with a form for uploading the file directly to the object store.

        The job starts when the upload is complete.
        """
        api_key = None if key else ApiKey.mint()
        key_id = self._register_key(key, api_key, may_exist=False)
        job = self._create_job(
            new_job_id(), key_id, gzipped=gzipped, fingerprint=None, options=options, purpose=purpose
        )
        max_bytes = self._settings.max_upload_bytes
        form = self._store.upload_form(job.object_name, max_bytes=max_bytes, valid_s=UPLOAD_VALID_S)
        return Accepted(job, api_key), form

    def _check_same_file(self, job_id: str, file: NewFile) -> None:
        """Raise `IdempotencyMismatch` if the job `job_id` exists and belongs to a different file.

        The check precedes the creation of a key, because a key created for a rejected request would have no job.
        """
        try:
            _check_fingerprint(self._registry.get_job(job_id), file)
        except JobNotFound:
            return

    def _register_key(self, key: KeyRecord | None, api_key: ApiKey | None, *, may_exist: bool) -> str:
        """Return the id of `key` if `api_key` is None. Otherwise add `api_key` to the registry, and return its id."""
        if api_key is None:
            assert key is not None
            return key.key_id
        now = self._clock()
        expires_at = after(now, self._settings.unproven_key_days * DAY_S)
        record = KeyRecord(api_key.key_id, now, secret_sha256=api_key.sha256(), expires_at=expires_at)
        try:
            self._registry.create_key(record)
        except KeyExists:
            if not may_exist:
                raise
            _check_unchanged(self._registry.get_key(api_key.key_id), api_key)
        return api_key.key_id

    def _create_job(
        self,
        job_id: str,
        key_id: str,
        *,
        gzipped: bool,
        fingerprint: str | None,
        options: FileOptions,
        purpose: JobPurpose,
    ) -> Job:
        now = self._clock()
        return self._registry.create_job(
            Job(
                job_id,
                key_id,
                layout.upload(job_id, gzipped=gzipped),
                created_at=now,
                updated_at=now,
                purpose=purpose,
                fingerprint=fingerprint,
                options=options.to_json() or None,
                expires_at=after(now, self._settings.job_days * DAY_S),
            )
        )

    def _store_file(self, job: Job, file: NewFile) -> None:
        try:
            self._store.create(job.object_name, file.content)
        except ObjectExists:
            # An earlier request with this idempotency key stored the same bytes.
            return


def check_idempotency_key(text: str, *, anonymous: bool) -> None:
    """Raise `InvalidRequest` unless `text` is a valid idempotency key.

    If `anonymous` is true, the request creates an API key that is derived from the text. In this case, the text must
    have at least 16 characters, so that it cannot be guessed.
    """
    if not _IDEMPOTENCY_KEY.fullmatch(text):
        has_wrong_length = not 0 < len(text) <= _MAX_IDEMPOTENCY_KEY
        received = f"{len(text)} characters" if has_wrong_length else "a character that is not visible ASCII"
        raise InvalidRequest(
            f"Idempotency-Key must be 1 to {_MAX_IDEMPOTENCY_KEY} visible ASCII characters. Received: {received}.",
            code="invalid-idempotency-key",
            hint=_UUID_HINT,
        )
    if anonymous and len(text) < _MIN_ANONYMOUS_LENGTH:
        raise InvalidRequest(
            f"Without an API key, Idempotency-Key must have at least {_MIN_ANONYMOUS_LENGTH} characters, so that it "
            f"cannot be guessed. Received: {len(text)} characters.",
            code="invalid-idempotency-key",
            hint=_UUID_HINT,
        )


def _check_fingerprint(job: Job, file: NewFile) -> None:
    if job.fingerprint != file.fingerprint:
        raise IdempotencyMismatch("This Idempotency-Key was used with a different file or different options.")


def _check_unchanged(record: KeyRecord, api_key: ApiKey) -> None:
    """Raise `Conflict` if the API key that an earlier request created was rotated or revoked.

    The response would otherwise contain a key that is no longer valid.
    """
    if record.revoked_at is not None or record.secret_sha256 is None or not api_key.matches(record.secret_sha256):
        raise Conflict(
            "The key that this Idempotency-Key created has been rotated or revoked.",
            code="key-changed",
            hint="Use the key that the rotation returned, or send a new Idempotency-Key to create another key.",
        )
