"""Optimistic transactions over a `Table`.

An operation reads rows, applies `recsys.registry.rules` to them, and writes the result on the condition that no row has
changed. If a row has changed, the operation starts over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar

from recsys.clock import Clock, Timestamp, utc_now
from recsys.errors import JobNotFound, Unavailable
from recsys.registry import audit, rules
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import job_address, read_key, unexpired
from recsys.registry.records import Job, Lease
from recsys.registry.table import Change, Row, Table

T = TypeVar("T")
Decision = Callable[[Timestamp], tuple[T, list[Change]]]
"""Function that reads rows, and returns the result of an operation and the changes to write. After a conflict it is
called again."""

# Not tuned. A conflict means that another writer made progress, so this many in a row indicate a bug.
_COMMIT_ATTEMPTS: Final = 50


def commit_with_retry(table: Table, clock: Clock, decide: Decision[T]) -> T:
    """Run an operation as an optimistic transaction.

    Parameters
    ----------
    table
        The database.
    clock
        Function that returns the current time, which `decide` receives.
    decide
        The operation. It returns its changes and writes nothing itself. If it raises an exception, nothing is changed.

    Returns
    -------
    T
        The result of the last call of `decide`.

    Raises
    ------
    Unavailable
        The database did not respond, or 50 attempts in a row conflicted with other writers.
    """
    for _ in range(_COMMIT_ATTEMPTS):
        result, changes = decide(clock())
        if not changes or table.write(changes):
            return result
    raise Unavailable(f"A registry transaction conflicted with other writers {_COMMIT_ATTEMPTS} times.")


class TableOperations:
    """Base class of the operations on keys, jobs, versions and catalogues.

    The class holds the table and the clock, and runs transactions on a single key or job.

    Parameters
    ----------
    table
        The database.
    clock
        Function that returns the current time.
    audit_days
        Days for which the events of the audit log are kept.
    """

    def __init__(self, table: Table, clock: Clock = utc_now, *, audit_days: int = audit.DEFAULT_DAYS) -> None:
        self._table = table
        self._clock = clock
        self._audit_days = audit_days

    @property
    def table(self) -> Table:
        """The database of the registry, for operations that this class does not offer."""
        return self._table

    def _commit_with_retry(self, decide: Decision[T]) -> T:
        return commit_with_retry(self._table, self._clock, decide)

    def _change_key(
        self,
        key_id: str,
        rule: Callable[[KeyRecord, Timestamp], KeyRecord],
        event: str,
        detail: Callable[[KeyRecord, KeyRecord], dict[str, Any]] = lambda _before, _changed: {},
    ) -> KeyRecord:
        """Change a key with `rule`, and record `event` if the rule changes the key.

        `detail` returns the values of the event from the previous and the changed record.
        """

        def decide(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            row, key = read_key(self._table, key_id, now)
            changed = rule(key, now)
            if changed == key:
                return changed, []
            event_change = self._event_change(key_id, event, detail(key, changed), now=now)
            return changed, [row.changed_to(changed.to_document()), event_change]

        return self._commit_with_retry(decide)

    def _change_leased_job(
        self,
        lease: Lease,
        rule: Callable[[Job, Timestamp], Job],
        event: str | None = None,
        detail: dict[str, Any] | None = None,
    ) -> None:
        """Change a running job with `rule`, and record `event` in the log of the job's key. None records no event."""

        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_leased_job(lease, now)
            rules.check_lease(job, lease)
            events = [self._event_change(job.key_id, event, detail, now=now)] if event else []
            return None, [row.changed_to(rule(job, now).to_document()), *events]

        self._commit_with_retry(decide)

    def _event_change(self, key_id: str, event: str, detail: dict[str, Any] | None = None, *, now: Timestamp) -> Change:
        return audit.event_change(key_id, event, detail, now=now, keep_days=self._audit_days)

    def _read_job(self, job_id: str, now: Timestamp) -> tuple[Row, Job]:
        row = self._table.get(job_address(job_id))
        document = unexpired(row, now)
        if document is None:
            raise JobNotFound(f"There is no job with the id {job_id!r}.")
        return row, Job.from_document(document)

    def _read_leased_job(self, lease: Lease, now: Timestamp) -> tuple[Row, Job]:
        try:
            return self._read_job(lease.job.job_id, now)
        except JobNotFound:
            raise rules.lease_lost(lease) from None
