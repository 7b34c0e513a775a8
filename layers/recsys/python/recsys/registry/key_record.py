"""The record of an API key. The function `recommend` imports this module and not the records of jobs and versions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from recsys.clock import Timestamp
from recsys.errors import KeyNotFound
from recsys.registry import scoped_keys
from recsys.registry.documents import Document, known_fields, to_document
from recsys.registry.scoped_keys import ScopedKey


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
        Number of changes of the record so far.
    secret_sha256
        SHA-256 of the current secret, in hexadecimal. None if a drop created the key and the claim token has not been
        used.
    previous_sha256, previous_expires_at
        SHA-256 of the secret before the last rotation, and the time until which this secret is valid.
    revoked_at
        Time of the revocation.
    expires_at
        Time from which the key counts as deleted. None if the key is permanent. A key that a request or a drop created
        becomes permanent when it has a secret and a model, and expires otherwise.
    current_version, current_manifest_sha256
        The current version, and the SHA-256 of its manifest.
    current_data_timestamp
        `Job.data_timestamp` of the job that trained the current version. The activation of a version sets this field to
        the time of the activation, so that a running training job cannot undo the activation.
    catalogue_version, catalogue_sha256
        The current version of the item catalogue, and the SHA-256 of its file. None if the key has no catalogue.
    catalogue_data_timestamp
        `Job.data_timestamp` of the file that last replaced the whole catalogue, or the time at which the catalogue was
        deleted.
    scoped_keys
        The scoped keys.
    replaced_data_timestamp
        The value of `current_data_timestamp` that the last file with mode `replace` or the last activation set. A file
        that is added to the interactions can be older than other added files, but must be newer than this time. None
        means `current_data_timestamp`, as in records of earlier releases.
    erasures
        The erased users, as text of `recsys.registry.erasures`.
    current_erasures
        `ModelVersion.erasures` of the current version.
    excluded_items
        `ModelVersion.excluded_items` of the current version.
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
    catalogue_version: str | None = None
    catalogue_sha256: str | None = None
    catalogue_data_timestamp: str | None = None
    scoped_keys: tuple[ScopedKey, ...] = ()
    replaced_data_timestamp: str | None = None
    erasures: str | None = None
    current_erasures: int | None = None
    excluded_items: str | None = None

    def to_document(self) -> Document:
        """Convert the record to a flat document. `scoped_keys` becomes JSON text."""
        scoped_keys_text = scoped_keys.to_json_text(self.scoped_keys) if self.scoped_keys else None
        return to_document(self, scoped_keys=scoped_keys_text)

    @classmethod
    def from_document(cls, document: Document) -> Self:
        """Restore a record from a document. Members that only a newer release knows are ignored."""
        values = known_fields(cls, document)
        if "scoped_keys" in values:
            values["scoped_keys"] = scoped_keys.from_json_text(values["scoped_keys"])
        return cls(**values)


def key_not_found(key_id: str) -> KeyNotFound:
    """Return the error for a key that does not exist, has expired or is revoked."""
    return KeyNotFound(f"There is no key with the id {key_id!r}, or it was revoked.")
