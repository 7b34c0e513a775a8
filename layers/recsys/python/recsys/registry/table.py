"""What a database must do for the registry: keep documents by address, and change several of them at once or none.

Every change names the state it was decided upon (an etag, or absence), so a decision taken on something that changed
meanwhile is not stored, and is taken again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from recsys.registry.records import Document


class Address(NamedTuple):
    """Where a row lies: rows with one `partition` can be listed together, `sort` tells them apart."""

    partition: str
    sort: str


@dataclass(frozen=True, slots=True)
class Change:
    """`document` (None: nothing) takes the place of what has this `etag` (None: of nothing)."""

    address: Address
    etag: str | None
    document: Document | None


@dataclass(frozen=True, slots=True)
class Row:
    """What lies at an address; both `document` and `etag` are None when nothing does.

    `etag` is new with every write, and never the same again, even after a deletion.
    """

    address: Address
    document: Document | None = None
    etag: str | None = None

    def changed_to(self, document: Document | None) -> Change:
        """A change that is made only while this row is as it was read."""
        return Change(self.address, self.etag, document)


class TableReader(Protocol):
    """Table that can be read. Every method raises `Unavailable` when the database does not answer."""

    def get(self, address: Address) -> Row:
        """What lies there now (a consistent read)."""


class Table(TableReader, Protocol):
    """Table in a database."""

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        """Table of a partition whose `sort` starts so, in no order (a consistent read)."""

    def write(self, changes: Sequence[Change]) -> bool:
        """Make all changes durable and return True; or none, and False, when a row is not as its change says.

        A document's `expires_at` says when the database may remove it; it can stay longer.
        """
