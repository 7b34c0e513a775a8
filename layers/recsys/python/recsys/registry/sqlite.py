"""The registry in one SQLite file, for one machine and many processes."""

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
from typing import Final
from weakref import WeakSet

from recsys.clock import Clock, Timestamp, utc_now
from recsys.errors import RecsysError, Unavailable
from recsys.registry.records import Document, Job, KeyRecord
from recsys.registry.registry import Registry
from recsys.registry.table import Address, Change, Row

SCHEMA_VERSION: Final = 2
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
_BUSY_TIMEOUT_S: Final = 10.0
_DAMAGED_HINT: Final = "The file is damaged: stop the service and restore a backup (`recsys restore`)."


class RegistryTooNew(RecsysError):
    """The registry's file was written by a later release."""

    code = "registry-too-new"
    title = "The registry was written by a later release"
    default_hint = "Start the release that wrote it, or use another data directory."


class SqliteRegistry(Registry):
    """A `Registry` in the file at `path`, made when it is not there (for its owner's eyes only, mode 0600).

    Raises
    ------
    RegistryTooNew
        A later release wrote the file.
    Unavailable
        The file cannot be opened, or is no registry.
    """

    def __init__(self, path: Path, clock: Clock = utc_now) -> None:
        self._sqlite_table = SqliteTable(path)
        super().__init__(self._sqlite_table, clock)

    def remove_expired(self) -> None:
        """Remove what expired from the file; to readers it is gone already."""
        self._sqlite_table.remove_expired(self._clock())

    def list_keys(self) -> list[KeyRecord]:
        """Return every key that has not expired, revoked ones included, oldest first."""
        keys = [KeyRecord.from_document(document) for document in self._sqlite_table.scan("KEY", self._clock())]
        return sorted(keys, key=lambda key: (key.created_at, key.key_id))

    def list_jobs(self) -> list[Job]:
        """Return every job that has not expired, newest first."""
        jobs = [Job.from_document(document) for document in self._sqlite_table.scan("JOB", self._clock())]
        return sorted(jobs, key=lambda job: (job.created_at, job.job_id), reverse=True)

    def is_empty(self) -> bool:
        """Return whether the registry contains nothing at all, not even what has expired."""
        return self._sqlite_table.is_empty()

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy of the registry to the new file `target`; other processes may be writing."""
        self._sqlite_table.copy_to(target)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file, so that a copy of this one file is complete."""
        self._sqlite_table.checkpoint()

    def close(self) -> None:
        """Close every connection of this process; no other thread may be using the registry."""
        self._sqlite_table.close()


class SqliteTable:
    """`Table` in a SQLite file: write-ahead log, every commit synced, one connection per thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread = threading.local()
        self._sessions: WeakSet[_Session] = WeakSet()
        with self._translating_errors():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            _keep_write_ahead_log(self._connection())
        with self._transaction() as connection:
            self._check_schema(connection)

    def get(self, address: Address) -> Row:
        """See `Table.get`."""
        with self._translating_errors():
            found = self._connection().execute(
                "SELECT document, etag FROM registry WHERE partition = ? AND sort = ?", address
            )
            row = found.fetchone()
        return Row(address) if row is None else Row(address, json.loads(row[0]), row[1])

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        """See `Table.list`."""
        with self._translating_errors():
            found = self._connection().execute(
                "SELECT sort, document, etag FROM registry WHERE partition = ? AND substr(sort, 1, ?) = ?",
                (partition, len(sort_prefix), sort_prefix),
            )
            rows = found.fetchall()
        return [Row(Address(partition, sort), json.loads(document), etag) for sort, document, etag in rows]

    def write(self, changes: Sequence[Change]) -> bool:
        """See `Table.write`."""
        try:
            with self._transaction() as connection:
                for change in changes:
                    if _apply(connection, change) != 1:
                        raise _NotAsRead
        except _NotAsRead:
            return False
        return True

    def remove_expired(self, now: Timestamp) -> None:
        """Remove what expired."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM registry WHERE expires_at <= ?", (now,))

    def scan(self, sort: str, now: Timestamp) -> Sequence[Document]:
        """Return the documents of all partitions with this sort key that have not expired."""
        with self._translating_errors():
            found = self._connection().execute(
                "SELECT document FROM registry WHERE sort = ? AND (expires_at IS NULL OR expires_at > ?)", (sort, now)
            )
            return [json.loads(document) for (document,) in found.fetchall()]

    def is_empty(self) -> bool:
        """Return whether there is no row at all."""
        with self._translating_errors():
            return self._connection().execute("SELECT 1 FROM registry LIMIT 1").fetchone() is None

    def copy_to(self, target: Path) -> None:
        """Write a consistent copy to the new file `target`."""
        with self._translating_errors():
            os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            with closing(sqlite3.connect(target)) as copy:
                self._connection().backup(copy)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file; what other connections are reading stays in the log."""
        with self._translating_errors():
            self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close every connection of this process."""
        for session in list(self._sessions):
            session.close()
        self._thread = threading.local()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._translating_errors():
            connection = self._connection()
            # IMMEDIATE takes the write lock at once; a transaction that reads first could not get it later.
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

    def _check_schema(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise RegistryTooNew(
                f"The registry {self._path} has schema {version}; this release knows up to {SCHEMA_VERSION}."
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
        """Turn what SQLite raises within (locked for too long, disk full, not a database …) into `Unavailable`."""
        try:
            yield
        except (sqlite3.DatabaseError, OSError) as error:
            # Locked or full passes; a file that is damaged, or is not a database, does not.
            is_transient = isinstance(error, OSError | sqlite3.OperationalError)
            hint = None if is_transient else _DAMAGED_HINT
            raise Unavailable(f"The registry {self._path} did not answer: {error}.", hint=hint) from error


class _NotAsRead(Exception):
    """A row is not as its change says."""


class _Session:
    """One thread's connection, closed when the thread ends."""

    # A forked child must neither use nor close its parent's connections, so they are kept from being collected there.
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


def _keep_write_ahead_log(connection: sqlite3.Connection) -> None:
    """Make the file one with a write-ahead log; it stays one.

    When two connections ask at once, SQLite sees a deadlock and refuses one of them without waiting.
    """
    give_up_at = time.monotonic() + _BUSY_TIMEOUT_S
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
            time.sleep(0.01)
        else:
            return


def _apply(connection: sqlite3.Connection, change: Change) -> int:
    """Make one change; how many rows it met, 1 or 0."""
    if change.document is None:
        return connection.execute(
            "DELETE FROM registry WHERE partition = ? AND sort = ? AND etag = ?", (*change.address, change.etag)
        ).rowcount
    new_etag, expires_at = secrets.token_hex(8), change.document.get("expires_at")
    document = json.dumps(change.document, ensure_ascii=False, separators=(",", ":"))
    if change.etag is None:
        return connection.execute(
            "INSERT INTO registry VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
            (*change.address, new_etag, expires_at, document),
        ).rowcount
    return connection.execute(
        "UPDATE registry SET etag = ?, expires_at = ?, document = ? WHERE partition = ? AND sort = ? AND etag = ?",
        (new_etag, expires_at, document, *change.address, change.etag),
    ).rowcount
