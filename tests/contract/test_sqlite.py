"""What only the SQLite adapter meets: a file, many processes, and a power switch."""

from __future__ import annotations

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
from recsys.registry.records import Lease
from recsys.registry.sqlite import RegistryTooNew, SqliteRegistry, SqliteTable
from recsys.registry.table import Address, Change
from tests.contract.conftest import FixedClock
from tests.contract.records import HOUR_LATER, a_job, a_key, claim
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


def test_the_files_are_for_their_owner_only(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key())
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes["registry.sqlite"] == 0o600
    assert set(modes.values()) == {0o600}


def test_commits_are_logged_ahead_and_synced(path: Path) -> None:
    rows = SqliteTable(path)
    connection = rows._connection()
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    rows.close()


def test_what_was_written_is_there_after_closing(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key())
    registry.close()
    assert SqliteRegistry(path, FixedClock()).get_key("key1") == a_key()
    assert registry.get_key("key1") == a_key()  # a closed registry opens again when it is asked


def test_what_was_written_is_there_after_kill_9(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key())
    killed = subprocess.run([sys.executable, "-c", KILLED, path], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert SqliteRegistry(path, FixedClock()).get_key("key1").revoked_at is not None


def test_what_expired_is_removed_when_asked_and_not_by_opening(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key("gone", expires_at=HOUR_LATER))
    registry.create_key(a_key("kept"))
    registry.offer_claim("token", "kept", expires_at=HOUR_LATER)
    later = FixedClock()
    later.advance(3600)
    reopened = SqliteRegistry(path, later)
    assert registry.get_key("gone") == a_key("gone", expires_at=HOUR_LATER)  # with the clock of an hour ago
    reopened.remove_expired()
    assert registry.get_key("kept") == a_key("kept")
    with pytest.raises(KeyNotFound):  # with the clock of an hour ago, only its removal makes it absent
        registry.get_key("gone")
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT count(*) FROM registry").fetchone() == (1,)
    connection.close()


def test_a_file_of_a_later_release_is_left_alone(registry: SqliteRegistry, path: Path) -> None:
    registry.close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 3")
    connection.close()
    with pytest.raises(RegistryTooNew, match=r"schema 3; this release knows up to 2"):
        SqliteRegistry(path)


def test_a_file_that_is_no_registry_is_named(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("user_id,item_id\n" * 100)
    with pytest.raises(Unavailable, match=r"registry\.sqlite did not answer: file is not a database"):
        SqliteRegistry(path)


def test_a_folder_that_cannot_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable, match=r"file/registry did not answer"):
        SqliteRegistry(tmp_path / "file" / "registry")


def test_a_file_that_stays_locked_is_unavailable(
    registry: SqliteRegistry, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.create_key(a_key())
    registry.close()
    monkeypatch.setattr("recsys.registry.sqlite._BUSY_TIMEOUT_S", 0.0)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(Unavailable, match="locked"):
        registry.revoke_key("key1")
    assert registry.get_key("key1") == a_key()  # reading goes on
    holder.execute("ROLLBACK")
    registry.revoke_key("key1")
    assert registry.get_key("key1").revision == 1
    holder.close()


def test_changes_are_made_all_or_none(path: Path) -> None:
    rows = SqliteTable(path)
    a, b = Address("p", "a"), Address("p", "b")
    assert rows.write([Change(b, None, {"n": 1})])
    assert not rows.write([Change(a, None, {"n": 1}), Change(b, None, {"n": 2})])
    assert not rows.write([Change(a, None, {"n": 1}), Change(b, "another etag", {"n": 2})])
    assert not rows.write([Change(a, None, {"n": 1}), Change(b, "another etag", None)])
    assert rows.get(a).document is None
    assert rows.get(b).document == {"n": 1}
    rows.close()


def test_opening_a_new_file_at_once_makes_one(path: Path) -> None:
    def open_and_add(number: int) -> None:
        SqliteRegistry(path).create_key(a_key(f"key{number}"))

    outcomes = race(*[lambda number=number: open_and_add(number) for number in range(8)])
    assert list(outcomes) == [None] * 8
    registry = SqliteRegistry(path)
    assert [registry.get_key(f"key{number}").key_id for number in range(8)] == [f"key{n}" for n in range(8)]


def test_a_thread_that_ends_closes_its_connection(registry: SqliteRegistry) -> None:
    def open_files() -> int:
        return len(os.listdir("/dev/fd"))  # noqa: PTH208

    registry.create_key(a_key())
    before = open_files()
    for _ in range(20):
        thread = threading.Thread(target=registry.get_key, args=("key1",))
        thread.start()
        thread.join()
    # SQLite keeps the file of a closed connection for the next one: POSIX would drop the other connections' locks.
    assert open_files() <= before + 1


def test_one_of_many_processes_claims_a_job(registry: SqliteRegistry, path: Path) -> None:
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
    answers = [process.communicate()[0].split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0, 0]
    assert [sorted(answer) for answer in zip(*answers, strict=True)] == [["1", "busy", "busy"]] * 20


def test_a_forked_child_uses_the_registry_too(registry: SqliteRegistry, path: Path) -> None:
    registry.create_key(a_key())
    parent = subprocess.run([sys.executable, "-c", FORKED, path], capture_output=True, text=True, check=False)
    assert (parent.returncode, parent.stderr) == (0, "")
    assert parent.stdout == "100\n"


def test_one_thread_per_registry_object_or_many_is_all_the_same(registry: SqliteRegistry, path: Path) -> None:
    registry.create_job(a_job())
    registries = [registry, registry, *(SqliteRegistry(path, FixedClock()) for _ in range(4))]
    outcomes = race(*[lambda r=r, n=n: claim(r, owner=f"worker-{n}") for n, r in enumerate(registries)])
    assert [outcome.fence for outcome in outcomes if isinstance(outcome, Lease)] == [1]
