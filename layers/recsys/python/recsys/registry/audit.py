"""The audit log of a key, which records the security-relevant changes to the key and its model, without secrets.

An event is a row in the partition of its key. A change and its event are written in one transaction, so that neither
exists without the other.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import Any, Final

from recsys.clock import DAY_S, Timestamp, after
from recsys.registry.documents import Document
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import key_address, unexpired
from recsys.registry.table import Address, Change, Row, Table

AUDIT_PREFIX: Final = "AUDIT#"
"""Start of the `sort` of all events of a key."""
CURSOR_PATTERN: Final = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z\.[0-9a-z]{1,16}$"
"""Pattern of a cursor, which consists of the time of an event and the last part of its address."""
DEFAULT_DAYS: Final = 365
_CREATION: Final = "created"
"""Last part of the address of the event `key.created`. Other events have a random number instead. A fixed text makes it
possible to find the event from the record of the key."""


@dataclass(frozen=True, slots=True)
class AuditEvent:
    """An event of a key's audit log.

    Parameters
    ----------
    at
        Time of the event.
    event
        Name of the event, such as `key.rotated`.
    detail
        Values that belong to the event, such as the version. They never contain a secret or the id of a user.
    """

    at: Timestamp
    event: str
    detail: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AuditPage:
    """A page of events, newest first.

    `next_cursor` is the cursor of the next page, or None if there are no older events.
    """

    events: tuple[AuditEvent, ...]
    next_cursor: str | None


def event_change(
    key_id: str, event: str, detail: dict[str, Any] | None = None, *, now: Timestamp, keep_days: int
) -> Change:
    """Return the change that appends an event to the log of a key.

    The caller writes this change in the same transaction as the change that the event records.

    Parameters
    ----------
    key_id
        Key whose log receives the event.
    event, detail
        See `AuditEvent`. Members of `detail` that are None are omitted.
    now
        Time of the change.
    keep_days
        Days after which the event is deleted.

    Examples
    --------
    >>> moment = Timestamp("2026-03-01T12:00:00.000000Z")
    >>> change = event_change("key1", "key.revoked", now=moment, keep_days=365)
    >>> change.address.sort.startswith("AUDIT#2026-03-01T12:00:00.000000Z#"), change.document["event"]
    (True, 'key.revoked')
    """
    address = _address(key_id, now, secrets.token_hex(4))
    return Change(address, None, _document(event, detail or {}, expires_at=after(now, keep_days * DAY_S)))


def creation_change(table: Table, key: KeyRecord, *, keep_days: int) -> Change:
    """Return the change that appends the event `key.created` to the log of a new key.

    The event of a key that expires is deleted together with the key, so that requests without a key cannot fill the
    registry. When such a key becomes permanent, `kept_creation_change` keeps the event longer.

    Parameters
    ----------
    table
        The database.
    key
        The new key.
    keep_days
        Days after which the event of a key that does not expire is deleted.
    """
    expires_at = key.expires_at or after(key.created_at, keep_days * DAY_S)
    return table.get(_creation_address(key)).changed_to(_document("key.created", {}, expires_at=expires_at))


def kept_creation_change(table: Table, before: KeyRecord, changed: KeyRecord, *, keep_days: int) -> list[Change]:
    """Return the changes of the audit log that are needed when the key `before` becomes `changed`.

    If `before` has an expiry and `changed` has none, the list contains the change that keeps the event `key.created`
    for `keep_days`. Otherwise, the list is empty.
    """
    if before.expires_at is None or changed.expires_at is not None:
        return []
    expires_at = after(before.created_at, keep_days * DAY_S)
    return [table.get(_creation_address(before)).changed_to(_document("key.created", {}, expires_at=expires_at))]


def read_page(table: Table, key_id: str, *, limit: int, cursor: str | None, now: Timestamp) -> AuditPage:
    """Return at most `limit` events of a key, newest first.

    Parameters
    ----------
    table
        The database.
    key_id
        Key whose log is read.
    limit
        Largest number of events.
    cursor
        `AuditPage.next_cursor` of the previous page. The page then starts with the next older event. None means the
        first page, which starts with the newest event.
    now
        Current time. Events that have expired are omitted. A page can therefore hold fewer than `limit` events although
        older events exist.
    """
    before = None if cursor is None else AUDIT_PREFIX + _sort_of(cursor)
    rows = table.list_latest(key_address(key_id).partition, AUDIT_PREFIX, before=before, limit=limit + 1)
    shown = rows[:limit]
    events = tuple(_event(row, document) for row in shown if (document := unexpired(row, now)) is not None)
    return AuditPage(events, _cursor_of(shown[-1]) if len(rows) > limit else None)


def _address(key_id: str, at: Timestamp, number: str) -> Address:
    return Address(key_address(key_id).partition, f"{AUDIT_PREFIX}{at}#{number}")


def _creation_address(key: KeyRecord) -> Address:
    return _address(key.key_id, key.created_at, _CREATION)


def _document(event: str, detail: dict[str, Any], *, expires_at: Timestamp) -> Document:
    present = {name: value for name, value in detail.items() if value is not None}
    text = json.dumps(present, ensure_ascii=False, separators=(",", ":"))
    return {"event": event, "detail": text, "expires_at": expires_at}


def _event(row: Row, document: Document) -> AuditEvent:
    at = row.address.sort.removeprefix(AUDIT_PREFIX).partition("#")[0]
    return AuditEvent(Timestamp(at), str(document["event"]), json.loads(str(document["detail"])))


def _cursor_of(row: Row) -> str:
    # A cursor is part of a URL, in which `#` would start the fragment.
    return row.address.sort.removeprefix(AUDIT_PREFIX).replace("#", ".")


def _sort_of(cursor: str) -> str:
    at, _, number = cursor.rpartition(".")
    return f"{at}#{number}"
