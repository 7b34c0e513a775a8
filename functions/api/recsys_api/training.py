"""Asking for a training: a key, a job, and last the file, whose arrival in the store starts the work.

The order lets every step fail alone. A key or a job that nothing follows expires by itself; a file is never there
without the job that says whose it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import BinaryIO, Final

from recsys.clock import Clock, after, utc_now
from recsys.errors import Conflict, IdempotencyMismatch, InvalidRequest, JobNotFound, KeyExists, ObjectExists
from recsys.keys.api_key import ApiKey
from recsys.keys.base62 import job_id_of_request, new_job_id
from recsys.objects import layout
from recsys.objects.store import ObjectStore, UploadForm
from recsys.registry.records import Job, JobState, KeyRecord
from recsys.registry.registry import Registry
from recsys.settings import Settings

UPLOAD_VALID_S: Final = 3600
_DAY_S: Final = 86_400
_ANONYMOUS: Final = "anonymous"
_IDEMPOTENCY_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}")
_MIN_ANONYMOUS_LENGTH: Final = 16


@dataclass(frozen=True, slots=True)
class NewFile:
    """A CSV to train on. `sha256` is the hex digest of all its bytes."""

    content: BinaryIO
    sha256: str
    gzipped: bool


@dataclass(frozen=True, slots=True)
class Accepted:
    """A job, and the key it trains when the caller does not have it yet."""

    job: Job
    api_key: ApiKey | None


class Training:
    """Takes files to train on.

    Parameters
    ----------
    clock
        Says when keys and jobs are made, and with that when they expire.
    """

    def __init__(self, registry: Registry, store: ObjectStore, settings: Settings, clock: Clock = utc_now) -> None:
        self._registry = registry
        self._store = store
        self._settings = settings
        self._clock = clock

    def accept(self, file: NewFile, *, key: KeyRecord | None, idempotency_key: str | None) -> Accepted:
        """Store `file` and queue its job; under the same idempotency key a second time, answer as the first time.

        Parameters
        ----------
        key
            Whose model is trained again; None mints a key. Under an idempotency key it is derived from that and the
            file, so that the repeated request gets the same one although it is kept nowhere.

        Raises
        ------
        IdempotencyMismatch
            The idempotency key was used with another file; nothing was made.
        Conflict
            The key that the first request was given was rotated or revoked since; nothing was made.
        InvalidRequest
            The idempotency key has other characters than visible ASCII, or a length that is not allowed.
        """
        if idempotency_key is None:
            job_id, api_key = new_job_id(), None if key else ApiKey.mint()
        else:
            check_idempotency_key(idempotency_key, anonymous=key is None)
            job_id = job_id_of_request(key.key_id if key else _ANONYMOUS, idempotency_key)
            self._check_same_file(job_id, file)
            api_key = None if key else ApiKey.derive(_ANONYMOUS, idempotency_key, file.sha256)
        key_id = self._key_to_train(key, api_key, may_exist=idempotency_key is not None)
        job = self._create_job(job_id, key_id, gzipped=file.gzipped, fingerprint=file.sha256)
        _check_fingerprint(job, file)
        if job.state is JobState.QUEUED:
            self._store_file(job, file)
        return Accepted(job, api_key)

    def offer_upload(self, *, key: KeyRecord | None, gzipped: bool) -> tuple[Accepted, UploadForm]:
        """Queue a job whose file the caller sends to the store directly."""
        api_key = None if key else ApiKey.mint()
        key_id = self._key_to_train(key, api_key, may_exist=False)
        job = self._create_job(new_job_id(), key_id, gzipped=gzipped, fingerprint=None)
        max_bytes = self._settings.max_upload_bytes
        form = self._store.upload_form(job.object_name, max_bytes=max_bytes, valid_s=UPLOAD_VALID_S)
        return Accepted(job, api_key), form

    def _check_same_file(self, job_id: str, file: NewFile) -> None:
        """Look before a key is made: one that belongs to no job would be left behind."""
        try:
            _check_fingerprint(self._registry.get_job(job_id), file)
        except JobNotFound:
            return

    def _key_to_train(self, key: KeyRecord | None, api_key: ApiKey | None, *, may_exist: bool) -> str:
        """The id of `key`, or of `api_key` after adding it to the registry."""
        if api_key is None:
            assert key is not None
            return key.key_id
        now = self._clock()
        expires_at = after(now, self._settings.unproven_key_days * _DAY_S)
        record = KeyRecord(api_key.key_id, now, secret_sha256=api_key.sha256(), expires_at=expires_at)
        try:
            self._registry.create_key(record)
        except KeyExists:
            if not may_exist:
                raise
            _check_unchanged(self._registry.get_key(api_key.key_id), api_key)
        return api_key.key_id

    def _create_job(self, job_id: str, key_id: str, *, gzipped: bool, fingerprint: str | None) -> Job:
        now = self._clock()
        return self._registry.create_job(
            Job(
                job_id,
                key_id,
                layout.upload(job_id, gzipped=gzipped),
                created_at=now,
                updated_at=now,
                fingerprint=fingerprint,
                expires_at=after(now, self._settings.job_days * _DAY_S),
            )
        )

    def _store_file(self, job: Job, file: NewFile) -> None:
        try:
            self._store.create(job.object_name, file.content)
        except ObjectExists:
            # The same request came before and stored the same bytes.
            return


def check_idempotency_key(text: str, *, anonymous: bool) -> None:
    """Raise `InvalidRequest` unless `text` can be an idempotency key.

    Without an API key it must be long enough that nobody guesses it: the new key is derived from it.
    """
    if not _IDEMPOTENCY_KEY.fullmatch(text):
        raise InvalidRequest(
            "Idempotency-Key must be 1 to 255 visible ASCII characters.",
            code="invalid-idempotency-key",
            hint="Use a new UUID for every file.",
        )
    if anonymous and len(text) < _MIN_ANONYMOUS_LENGTH:
        raise InvalidRequest(
            f"Without an API key, Idempotency-Key must have at least {_MIN_ANONYMOUS_LENGTH} characters, so that it "
            f"cannot be guessed. Received: {len(text)}.",
            code="invalid-idempotency-key",
            hint="Use a new UUID for every file.",
        )


def _check_fingerprint(job: Job, file: NewFile) -> None:
    if job.fingerprint != file.sha256:
        raise IdempotencyMismatch("This Idempotency-Key came with another file before.")


def _check_unchanged(record: KeyRecord, api_key: ApiKey) -> None:
    """A repeated request derives the key it was given first, and must not be told one that opens nothing any more."""
    if record.revoked_at is not None or record.secret_sha256 is None or not api_key.matches(record.secret_sha256):
        raise Conflict(
            "The key that this Idempotency-Key made was rotated or revoked since.",
            code="key-changed",
            hint="Use the key you rotated to, or a new Idempotency-Key for a new key.",
        )
