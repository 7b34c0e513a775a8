"""The registry in a SQLite file, for several processes on one machine."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final
from weakref import WeakSet

from recsys.clock import Clock, Timestamp, utc_now
from recsys.errors import RecsysError, Unavailable
from recsys.registry.audit import DEFAULT_DAYS
from recsys.registry.documents import Document
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job
from recsys.registry.registry import Registry
from recsys.registry.table import LAST_CHARACTER, Address, Change, Row

SCHEMA_VERSION: Final = 2
"""Number of the schema that this release writes. The `user_version` of the file stores it."""
_SCHEMA: Final = """
    CREATE TABLE registry (
        partition TEXT NOT NULL, sort TEXT NOT NULL, etag TEXT NOT NULL, expires_at TEXT, document TEXT NOT NULL,
        PRIMARY KEY (partition, sort)
    ) WITHOUT ROWID
"""
_RENAMED_IN_2: Final = (("source_order", "data_timestamp"), ("current_source", "current_data_timestamp"))
_RENAME_MEMBER: Final = """
    UPDATE registry
    SET document = json_remove(json_set(document, '$.{new}', json_extract(document, '$.{old}')), '$.{old}')
    WHERE json_extract(document, '$.{old}') IS NOT NULL
"""
Rows = list[tuple[Any, ...]]
_BUSY_TIMEOUT_S: Final = 10.0  # not tuned: transactions take milliseconds
_BUSY_PAUSE_S: Final = 0.01
_DAMAGED_HINT: Final = "The file is damaged: stop the service and restore a backup (`recsys restore`)."


class RegistryTooNew(RecsysError):
    """Raised when a newer release wrote the registry file."""

    code = "registry-too-new"
    title = "A newer release wrote the registry"
    default_hint = "Upgrade to the release that wrote the registry, or use another data directory."


class SqliteRegistry(Registry):
    """A `Registry` in a SQLite file.

    Parameters
    ----------
    path
        Path of the file. A missing file is created with mode 0600, so that only its owner can read it.
    clock
        Function that returns the current time.
    audit_days
        Days for which the events of the audit log are kept.

    Raises
    ------
    RegistryTooNew
        A newer release wrote the file.
    Unavailable
        The file cannot be opened, or is not a registry.
    """

    def __init__(self, path: Path, clock: Clock = utc_now, *, audit_days: int = DEFAULT_DAYS) -> None:
        self._sqlite_table = SqliteTable(path)
        super().__init__(self._sqlite_table, clock, audit_days=audit_days)

    def remove_expired(self) -> int:
        """Delete expired records, which readers already treat as deleted, and return their number."""
        return self._sqlite_table.remove_expired(self._clock())

    def count_expired(self) -> int:
        """Return the number of records that `remove_expired` would delete."""
        return self._sqlite_table.count_expired(self._clock())

    def list_keys(self) -> list[KeyRecord]:
        """Return every key that has not expired, including revoked keys, oldest first."""
        keys = [KeyRecord.from_document(document) for document in self._sqlite_table.scan("KEY", self._clock())]
        return sorted(keys, key=lambda key: (key.created_at, key.key_id))

    def list_jobs(self) -> list[Job]:
        """Return every job that has not expired, newest first."""
        jobs = [Job.from_document(document) for document in self._sqlite_table.scan("JOB", self._clock())]
        return sorted(jobs, key=lambda job: (job.created_at, job.job_id), reverse=True)

    def query(self, statement: str, *parameters: str) -> Rows:
        """Run an SQL statement that only reads, and return its rows. Use it for data that no other method returns."""
        return self._sqlite_table.query(statement, *parameters)

    def is_empty(self) -> bool:
        """Return whether the registry contains no records, not even expired records."""
        return self._sqlite_table.is_empty()

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy of the registry to the new file `target`.

        Other processes can write to the registry at the same time.
        """
        self._sqlite_table.copy_to(target)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database file, so that a copy of this file alone is complete."""
        self._sqlite_table.checkpoint()

    def close(self) -> None:
        """Close all connections of this process. No other thread may use the registry during the call."""
        self._sqlite_table.close()


class SqliteTable:
    """A `Table` in a SQLite file. It uses a write-ahead log, a sync at every commit and one connection per thread.

    Parameters
    ----------
    path
        Path of the file. A missing file is created with mode 0600, and a file with an older schema is migrated.

    Raises
    ------
    RegistryTooNew
        A newer release wrote the file.
    Unavailable
        The file cannot be opened, or is not a registry.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.local()
        self._sessions: WeakSet[_Session] = WeakSet()
        with self._translating_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            _enable_write_ahead_log(self._connection())
        with self._transaction() as connection:
            self._migrate(connection)

    def get(self, address: Address) -> Row:
        """Return the row at `address`."""
        with self._translating_errors():
            cursor = self._connection().execute(
                "SELECT document, etag FROM registry WHERE partition = ? AND sort = ?", address
            )
            row = cursor.fetchone()
        return Row(address) if row is None else Row(address, json.loads(row[0]), row[1])

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        """Return the rows of a partition whose `sort` starts with a prefix."""
        with self._translating_errors():
            cursor = self._connection().execute(
                "SELECT sort, document, etag FROM registry WHERE partition = ? AND substr(sort, 1, ?) = ?",
                (partition, len(sort_prefix), sort_prefix),
            )
            rows = cursor.fetchall()
        return [Row(Address(partition, sort), json.loads(document), etag) for sort, document, etag in rows]

    def list_latest(self, partition: str, sort_prefix: str, *, before: str | None, limit: int) -> Sequence[Row]:
        """Return at most `limit` rows whose `sort` starts with a prefix and is less than `before`, greatest first."""
        end = sort_prefix + LAST_CHARACTER if before is None else before
        with self._translating_errors():
            cursor = self._connection().execute(
                "SELECT sort, document, etag FROM registry WHERE partition = ? AND sort >= ? AND sort < ? "
                "ORDER BY sort DESC LIMIT ?",
                (partition, sort_prefix, end, limit),
            )
            rows = cursor.fetchall()
        return [Row(Address(partition, sort), json.loads(document), etag) for sort, document, etag in rows]

    def write(self, changes: Sequence[Change]) -> bool:
        """Apply all changes in one transaction, or none of them. Return whether they were applied."""
        try:
            with self._transaction() as connection:
                for change in changes:
                    if not _apply(connection, change):
                        raise _RowChanged
        except _RowChanged:
            return False
        return True

    def remove_expired(self, now: Timestamp) -> int:
        """Delete the rows that expired at or before `now`, and return their number."""
        with self._transaction() as connection:
            return connection.execute("DELETE FROM registry WHERE expires_at <= ?", (now,)).rowcount

    def count_expired(self, now: Timestamp) -> int:
        """Return the number of rows that expired at or before `now`."""
        with self._translating_errors():
            found = self._connection().execute("SELECT count(*) FROM registry WHERE expires_at <= ?", (now,))
            return int(found.fetchone()[0])

    def scan(self, sort: str, now: Timestamp) -> Sequence[Document]:
        """Return the unexpired documents of all rows with the given `sort`, from all partitions."""
        with self._translating_errors():
            found = self._connection().execute(
                "SELECT document FROM registry WHERE sort = ? AND (expires_at IS NULL OR expires_at > ?)", (sort, now)
            )
            return [json.loads(document) for (document,) in found.fetchall()]

    def query(self, statement: str, *parameters: str) -> Rows:
        """Run an SQL statement that only reads, and return its rows."""
        with self._translating_errors():
            return self._connection().execute(statement, parameters).fetchall()

    def is_empty(self) -> bool:
        """Return whether the table contains no rows."""
        with self._translating_errors():
            return self._connection().execute("SELECT 1 FROM registry LIMIT 1").fetchone() is None

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy to the new file `target`."""
        with self._translating_errors():
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(target)) as copy:
                self._connection().backup(copy)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the database file, except for the part that other connections are reading."""
        with self._translating_errors():
            self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close all connections of this process. The next call opens a new connection."""
        for session in list(self._sessions):
            session.close()
        self._thread = threading.local()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translating_errors():
            connection = self._connection()
            # IMMEDIATE takes the write lock at once. A transaction that reads first might be unable to get the lock
            # later.
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            finally:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")

    def _connection(self) -> sqlite3.Connection:
        session: _Session | None = getattr(self._thread, "session", None)
        if session is None or session.process_id != os.getpid():
            session = _Session(self._path)
            self._thread.session = session
            self._sessions.add(session)
        return session.connection

    def _migrate(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise RegistryTooNew(
                f"The registry {self._path} has schema version {version}. "
                f"This release supports versions up to {SCHEMA_VERSION}."
            )
        if version == 0:
            connection.execute(_SCHEMA)
        if version == 1:
            for old, new in _RENAMED_IN_2:
                connection.execute(_RENAME_MEMBER.format(old=old, new=new))
        if version < SCHEMA_VERSION:
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    @contextmanager
    def _translating_errors(self) -> Iterator[None]:
        """Translate SQLite errors in the context, such as a lock timeout or a full disk, to `Unavailable`."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            # A locked file and a full disk are transient, unlike a damaged file and a file that is not a database.
            is_transient = isinstance(error, OSError | sqlite3.OperationalError)
            hint = None if is_transient else _DAMAGED_HINT
            raise Unavailable(f"The registry {self._path} cannot be used: {error}.", hint=hint) from error


class _RowChanged(Exception):
    """Raised when a row does not meet the condition of a change, so that the transaction is rolled back."""


class _Session:
    """The connection of one thread. It is closed when the thread ends."""

    # A forked child must neither use nor close the connections of its parent. Keeping a reference to them prevents the
    # garbage collector of the child from closing them.
    _inherited: Final[list[sqlite3.Connection]] = []

    def __init__(self, path: Path) -> None:
        self.process_id = os.getpid()
        self.connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
        self.connection.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        if self.process_id == os.getpid():
            self.connection.close()
        else:
            self._inherited.append(self.connection)

    def __del__(self) -> None:
        if hasattr(self, "connection"):
            self.close()


def _enable_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Switch the file to a write-ahead log. The file keeps this mode when it is closed.

    If two connections switch at the same moment, SQLite detects a deadlock and rejects one of them without waiting. The
    switch is therefore retried.
    """
    deadline = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
            time.sleep(_BUSY_PAUSE_S)
        else:
            return


def _apply(connection: sqlite3.Connection, change: Change) -> bool:
    """Apply a change if the row meets the condition of the change, and return whether the change was applied."""
    if change.document is None:
        cursor = connection.execute(
            "DELETE FROM registry WHERE partition = ? AND sort = ? AND etag = ?", (*change.address, change.etag)
        )
        return cursor.rowcount == 1
    new_etag, expires_at = secrets.token_hex(8), change.document.get("expires_at")
    document = json.dumps(change.document, ensure_ascii=False, separators=(",", ":"))
    if change.etag is None:
        cursor = connection.execute(
            "INSERT INTO registry VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*change.address, new_etag, expires_at, document),
        )
    else:
        cursor = connection.execute(
            "UPDATE registry SET etag = ?, expires_at = ?, document = ? WHERE partition = ? AND sort = ? AND etag = ?",
            (new_etag, expires_at, document, *change.address, change.etag),
        )
    return cursor.rowcount == 1
