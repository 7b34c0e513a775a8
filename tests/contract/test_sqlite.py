"""Behaviour of the SQLite adapter alone: file, durability, migrations, processes and threads."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from recsys.errors import KeyNotFound, Unavailable
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Lease
from recsys.registry.sqlite import SCHEMA_VERSION, RegistryTooNew, SqliteRegistry, SqliteTable
from recsys.registry.table import Address, Change
from tests.contract.conftest import FixedClock
from tests.contract.records import HOUR_LATER, NOW, a_job, a_key, claim
from tests.racing import race

CLAIMER = """
import sys
from pathlib import Path
from recsys.errors import JobBusy
from recsys.registry.sqlite import SqliteRegistry

registry = SqliteRegistry(Path(sys.argv[1]))
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    try:
        print(registry.claim_job(f"job{number}", owner=sys.argv[2], data_timestamp="a", lease_s=3600).fence)
    except JobBusy:
        print("busy")
"""

KILLED = """
import os, signal, sys
from pathlib import Path
from recsys.registry.sqlite import SqliteRegistry
registry = SqliteRegistry(Path(sys.argv[1]))
registry.revoke_key("key1")
os.kill(os.getpid(), signal.SIGKILL)
"""

FORKED = """
import os, sys
from pathlib import Path
from recsys.registry.sqlite import SqliteRegistry

registry = SqliteRegistry(Path(sys.argv[1]))
registry.get_key("key1")
inherited = registry._sqlite_table._connection()
child = os.fork()
if child == 0 and registry._sqlite_table._connection() is inherited:
    os._exit(1)
for number in range(50):
    registry.rotate_key("key1", "child" if child == 0 else "parent", overlap_s=0)
if child == 0:
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
print(registry.get_key("key1").revision)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "registry.sqlite"


@pytest.fixture
def registry(path: Path) -> SqliteRegistry:
    return SqliteRegistry(path, FixedClock())


def test_only_the_owner_can_read_the_files(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key())
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes["registry.sqlite"] == 0o600
    assert set(modes.values()) == {0o600}


def test_commits_use_a_write_ahead_log_and_are_synced(path: Path) -> None:
    table = SqliteTable(path)
    connection = table._connection()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    table.close()


def test_records_survive_closing(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key())
    registry.close()
    assert SqliteRegistry(path, FixedClock()).get_key("key1") == a_key()
    assert registry.get_key("key1") == a_key()  # a closed registry opens a new connection


def test_records_survive_kill_9(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key())
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert SqliteRegistry(path, FixedClock()).get_key("key1").revoked_at is not None


def test_expired_records_are_deleted_by_remove_expired_only(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key("gone", expires_at=HOUR_LATER))
    registry.create_key(a_key("kept"))
    registry.offer_claim("token", "kept", expires_at=HOUR_LATER)
    later = FixedClock()
    later.advance(3600)
    reopened = SqliteRegistry(path, later)
    assert registry.get_key("gone") == a_key("gone", expires_at=HOUR_LATER)  # by the clock of an hour ago
    reopened.remove_expired()
    assert registry.get_key("kept") == a_key("kept")
    with pytest.raises(KeyNotFound):  # by the clock of an hour ago, it is absent only because it was deleted
        registry.get_key("gone")
    with sqlite3.connect(path) as connection:
        rows = connection.execute("SELECT partition, substr(sort, 1, 5) FROM registry ORDER BY sort").fetchall()
    connection.close()
    assert rows == [("KEY#kept", "AUDIT"), ("KEY#kept", "KEY")]


def test_a_file_of_a_newer_release_is_not_opened(registry: SqliteRegistry, path: Path) -> None:
    registry.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(RegistryTooNew, match=r"schema version 3\. This release supports versions up to 2\."):
        SqliteRegistry(path)


def test_a_file_of_schema_1_is_migrated(path: Path) -> None:
    """Schema 1 names the timestamps `source_order` and `current_source`."""
    path.parent.mkdir()
    documents = {
        ("KEY#key1", "KEY"): {"key_id": "key1", "created_at": NOW, "revision": 2, "current_source": f"{NOW}#a"},
        ("JOB#job1", "JOB"): {**a_job().to_document(), "source_order": f"{NOW}#a"},
        ("JOB#job2", "JOB"): a_job("job2").to_document(),
    }
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE registry (partition TEXT NOT NULL, sort TEXT NOT NULL, etag TEXT NOT NULL, expires_at TEXT,"
            " document TEXT NOT NULL, PRIMARY KEY (partition, sort)) WITHOUT ROWID"
        )
        for address, document in documents.items():
            connection.execute("INSERT INTO registry VALUES (?, ?, 'e', NULL, ?)", (*address, json.dumps(document)))
        connection.execute("PRAGMA user_version = 1")
    connection.close()

    registry = SqliteRegistry(path, FixedClock())

    assert registry.get_key("key1") == KeyRecord("key1", NOW, revision=2, current_data_timestamp=f"{NOW}#a")
    assert registry.get_job("job1") == a_job(data_timestamp=f"{NOW}#a")
    assert registry.get_job("job2") == a_job("job2")
    registry.close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        texts = [text for (text,) in connection.execute("SELECT document FROM registry")]
    connection.close()
    assert not [text for text in texts if "source_order" in text or "current_source" in text]


def test_a_file_that_is_not_a_registry_is_reported(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("user_id,item_id\n" * 100)
    with pytest.raises(Unavailable, match=r"registry\.sqlite cannot be used: file is not a database"):
        SqliteRegistry(path)


def test_a_path_below_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"file/registry cannot be used"):
        SqliteRegistry(tmp_path / "file" / "registry")


def test_a_locked_file_is_unavailable_for_writing(
    registry: SqliteRegistry, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.create_key(a_key())
    registry.close()
    monkeypatch.setattr("recsys.registry.sqlite._BUSY_TIMEOUT_S", 0.0)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        registry.revoke_key("key1")
    assert registry.get_key("key1") == a_key()  # reading is still possible
    holder.execute("ROLLBACK")
    registry.revoke_key("key1")
    assert registry.get_key("key1").revision == 1
    holder.close()


def test_changes_are_applied_all_or_none(path: Path) -> None:
    table = SqliteTable(path)
    a, b = Address("p", "a"), Address("p", "b")
    assert table.write([Change(b, None, {"n": 1})])
    assert not table.write([Change(a, None, {"n": 1}), Change(b, None, {"n": 2})])
    assert not table.write([Change(a, None, {"n": 1}), Change(b, "another etag", {"n": 2})])
    assert not table.write([Change(a, None, {"n": 1}), Change(b, "another etag", None)])
    assert table.get(a).document is None
    assert table.get(b).document == {"n": 1}
    table.close()


def test_concurrent_opens_create_one_file(path: Path) -> None:
    def open_and_add(number: int) -> None:
        SqliteRegistry(path).create_key(a_key(f"key{number}"))

    outcomes = race(*[lambda number=number: open_and_add(number) for number in range(8)])
    assert list(outcomes) == [None] * 8
    registry = SqliteRegistry(path)
    assert [registry.get_key(f"key{number}").key_id for number in range(8)] == [f"key{n}" for n in range(8)]


def test_the_connection_of_a_thread_is_closed_when_it_ends(registry: SqliteRegistry) -> None:
    def open_files() -> int:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208  # a Path per descriptor is not needed

    registry.create_key(a_key())
    before = open_files()
    for _ in range(20):
        thread = threading.Thread(target=registry.get_key, args=("key1",))
        thread.start()
        thread.join()
    # SQLite may keep the file of a closed connection open, because closing it would release all POSIX locks.
    assert open_files() <= before + 1


def test_one_of_several_processes_claims_a_job(registry: SqliteRegistry, path: Path) -> None:
    for number in range(20):
        registry.create_job(a_job(f"job{number}"))
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMER, path, f"worker-{worker}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for worker in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [sorted(lines) for lines in zip(*outputs, strict=True)] == [["1", "busy", "busy"]] * 20


def test_a_forked_child_opens_its_own_connection(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key())
    parent = subprocess.run([sys.executable, "-c", FORKED, path], capture_output=True, text=True, check=False)
    assert (parent.returncode, parent.stderr) == (0, "")
    assert parent.stdout == "100\n"


def test_registry_objects_of_the_same_file_can_be_shared_or_separate(registry: SqliteRegistry, path: Path) -> None:
    registry.create_job(a_job())
    registries = [registry, registry, *(SqliteRegistry(path, FixedClock()) for _ in range(4))]
    outcomes = race(*[lambda r=r, n=n: claim(r, owner=f"worker-{n}") for n, r in enumerate(registries)])
    assert [outcome.fence for outcome in outcomes if isinstance(outcome, Lease)] == [1]
