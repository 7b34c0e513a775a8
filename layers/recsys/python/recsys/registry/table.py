"""The interface between the registry and a database that stores documents by address and supports transactions.

Locking is optimistic. A change contains the etag of the row that was read, or the condition that the row does not
exist. A decision that is based on an outdated row is therefore never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, Protocol

from recsys.registry.documents import Document

LAST_CHARACTER: Final = "\uffff"
"""A character that is greater than every character in a `sort`, both as text and in UTF-8."""


class Address(NamedTuple):
    """The primary key of a row.

    The rows of a `partition` can be listed together, and `sort` identifies one of these rows.
    """

    partition: str
    sort: str


class Change(NamedTuple):
    """A conditional change of a row (compare-and-set). It is applied only if the stored etag equals `etag`.

    `document` replaces the document of the row, and a `document` of None deletes the row. An `etag` of None requires
    that the row does not exist.
    """

    address: Address
    etag: str | None
    document: Document | None


class Row(NamedTuple):
    """The state of a row at the time of the read. `document` and `etag` are None if the row does not exist.

    Every write gives the row a new, unique `etag`, even after a deletion.
    """

    address: Address
    document: Document | None = None
    etag: str | None = None

    def changed_to(self, document: Document | None) -> Change:
        """Return a change of the row that applies only if the row has not changed since the read."""
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
        """Return at most `limit` rows of a partition whose `sort` starts with a prefix, in descending order of `sort`.

        If `before` is not None, only rows with a smaller `sort` than `before` are returned.
        """

    def write(self, changes: Sequence[Change]) -> bool:
        """Apply all changes in one transaction, or none of them.

        The database may delete a row after the `expires_at` of its document, but can also keep the row longer.

        Parameters
        ----------
        changes
            The changes. There must be at least one change, and at most one per address.

        Returns
        -------
        bool
            True if the changes are durable. False if a row did not meet the condition of its change. In this case,
            nothing was written.
        """
