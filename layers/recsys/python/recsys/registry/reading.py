"""Read API keys from the registry, compute the primary keys of rows, and check the expiry of rows.

The function `recommend` needs only this part of the registry.
"""

from __future__ import annotations

from typing import Final, Protocol

from recsys.clock import Timestamp
from recsys.registry.documents import Document, is_expired
from recsys.registry.key_record import KeyRecord, key_not_found
from recsys.registry.table import Address, Row, TableReader

VERSION_PREFIX: Final = "VERSION#"
"""Start of the `sort` of all model versions of a key."""


class KeyReader(Protocol):
    """Read access to API keys. The function `recommend` needs no other access to the registry."""

    def get_key(self, key_id: str) -> KeyRecord:
        """Return a key, even if it is revoked. The read is strongly consistent.

        Raises
        ------
        KeyNotFound
            The key does not exist or has expired.
        """


def read_key(table: TableReader, key_id: str, now: Timestamp) -> tuple[Row, KeyRecord]:
    """Return an API key and the row that stores it.

    Raises
    ------
    KeyNotFound
        The key does not exist or has expired at `now`.
    """
    row = table.get(key_address(key_id))
    document = unexpired(row, now)
    if document is None:
        raise key_not_found(key_id)
    return row, KeyRecord.from_document(document)


def unexpired(row: Row, now: Timestamp) -> Document | None:
    """Return the document of a row, or None if the row does not exist or has expired.

    A database can delete expired rows late. Therefore every reader must check the expiry.
    """
    if row.document is None:
        return None
    expires_at = row.document.get("expires_at")
    return None if is_expired(Timestamp(str(expires_at)) if expires_at else None, now) else row.document


def key_address(key_id: str) -> Address:
    """Return the primary key of the row that stores an API key."""
    return Address(f"KEY#{key_id}", "KEY")


def version_address(key_id: str, version: str) -> Address:
    """Return the primary key of the row of a model version. The row is in the partition of the API key."""
    return Address(f"KEY#{key_id}", f"{VERSION_PREFIX}{version}")


def job_address(job_id: str) -> Address:
    """Return the primary key of a job's row."""
    return Address(f"JOB#{job_id}", "JOB")


def claim_address(token_sha256: str) -> Address:
    """Return the primary key of a claim token's row."""
    return Address(f"CLAIM#{token_sha256}", "CLAIM")
