"""Optimistic transactions over a `Table`.

An operation reads rows, applies `recsys.registry.rules` to them, and writes the result on the condition that no row has
changed. If a row has changed, the operation starts over.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

from recsys.clock import Clock, Timestamp, utc_now
from recsys.errors import JobNotFound, Unavailable
from recsys.registry import rules
from recsys.registry.reading import job_address, read_key, unexpired
from recsys.registry.records import Job, KeyRecord, Lease
from recsys.registry.table import Change, Row, Table

T = TypeVar("T")
Decision = Callable[[Timestamp], tuple[T, list[Change]]]
"""Reads rows and returns the result of an operation with the changes to write. It is called again after a conflict."""

# Not tuned. A conflict means that another writer made progress, so this many in a row indicate a bug.
_COMMIT_ATTEMPTS: Final = 50


def commit_with_retry(table: Table, clock: Clock, decide: Decision[T]) -> T:
    """Run an operation as an optimistic transaction.

    Parameters
    ----------
    table
        The database.
    clock
        Returns the current time, which `decide` receives.
    decide
        The operation. It writes nothing itself. An exception that it raises ends the transaction without a change.

    Returns
    -------
    T
        The result that `decide` returned together with the changes that were written, or with no changes.

    Raises
    ------
    Unavailable
        If the database does not respond, or other writers changed the rows again and again.
    """
    for _ in range(_COMMIT_ATTEMPTS):
        result, changes = decide(clock())
        if not changes or table.write(changes):
            return result
    raise Unavailable(f"A registry transaction conflicted with other writers {_COMMIT_ATTEMPTS} times.")


class TableOperations:
    """Base class of the operations on keys, jobs and versions: a table, a clock and transactions on one record.

    Parameters
    ----------
    table
        The database.
    clock
        Returns the current time.
    """

    def __init__(self, table: Table, clock: Clock = utc_now) -> None:
        self._table = table
        self._clock = clock

    def _commit_with_retry(self, decide: Decision[T]) -> T:
        return commit_with_retry(self._table, self._clock, decide)

    def _change_key(self, key_id: str, rule: Callable[[KeyRecord, Timestamp], KeyRecord]) -> KeyRecord:
        def decide(now: Timestamp) -> tuple[KeyRecord, list[Change]]:
            row, key = read_key(self._table, key_id, now)
            changed = rule(key, now)
            return changed, [row.changed_to(changed.to_document())] if changed != key else []

        return self._commit_with_retry(decide)

    def _change_leased_job(self, lease: Lease, rule: Callable[[Job, Timestamp], Job]) -> None:
        def decide(now: Timestamp) -> tuple[None, list[Change]]:
            row, job = self._read_leased_job(lease, now)
            rules.check_lease(job, lease)
            return None, [row.changed_to(rule(job, now).to_document())]

        self._commit_with_retry(decide)

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
