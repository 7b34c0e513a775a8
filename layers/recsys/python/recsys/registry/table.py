"""Interface between the registry and a database: documents by address, with transactions and optimistic locking.

Every change contains the version of the row that it is based on (an etag, or that the row does not exist). Therefore a
decision that is based on an outdated row is never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol

from recsys.registry.documents import Document

LAST_CHARACTER: Final = "\uffff"
"""Greater than every character in a `sort`, both as text and in UTF-8."""


class Address(NamedTuple):
    """Primary key of a row. Rows of the same `partition` can be listed together; `sort` identifies one of them."""

    partition: str
    sort: str


@dataclass(frozen=True, slots=True)
class Change:
    """A conditional change of a row (compare-and-set): it is applied only if the stored etag equals `etag`.

    `document` replaces the row, or deletes it if it is None. An `etag` of None requires that the row does not exist.
    """

    address: Address
    etag: str | None
    document: Document | None


@dataclass(frozen=True, slots=True)
class Row:
    """A row as it was read. `document` and `etag` are None if the row does not exist.

    Every write gives the row a new, unique `etag`, even after a deletion.
    """

    address: Address
    document: Document | None = None
    etag: str | None = None

    def changed_to(self, document: Document | None) -> Change:
        """Return a change that applies only if the row is still as it was read."""
        return Change(self.address, self.etag, document)


class TableReader(Protocol):
    """Read access to rows. Every method raises `Unavailable` if the database does not respond."""

    def get(self, address: Address) -> Row:
        """Return the row at `address`, with a consistent read."""


class Table(TableReader, Protocol):
    """Read and write access to rows. Every method raises `Unavailable` if the database does not respond."""

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        """Return the rows of a partition whose `sort` starts with a prefix, in any order, with a consistent read."""

    def list_latest(self, partition: str, sort_prefix: str, *, before: str | None, limit: int) -> Sequence[Row]:
        """Return at most `limit` rows whose `sort` starts with a prefix, those with the greatest `sort` first.

        If `before` is given, only rows whose `sort` is less than it are returned.
        """

    def write(self, changes: Sequence[Change]) -> bool:
        """Apply all changes in one transaction, or none of them.

        The database may delete a document after its `expires_at`, but can keep it longer.

        Parameters
        ----------
        changes
            At least one change; at most one per address.

        Returns
        -------
        bool
            True if the changes are durable. False if a row does not meet the condition of its change; in this case
            nothing was written.
        """
