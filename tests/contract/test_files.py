"""Behaviour of the directory adapter alone: plain files, times, and leftovers of killed writers."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from recsys.clock import after, utc_now
from recsys.errors import ObjectExists, ObjectNotFound, Unavailable
from recsys.objects.files import FileObjectStore

KILLED_WRITER = """
import io, os, signal, sys
from pathlib import Path
from recsys.objects.files import FileObjectStore

class Killed(io.RawIOBase):
    sent = 0
    def read(self, size=-1):
        self.sent += 1
        if self.sent > 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return b"x" * 1_000_000

FileObjectStore(Path(sys.argv[1])).create("uploads/job.csv", Killed())
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "objects"


@pytest.fixture
def store(root: Path) -> FileObjectStore:
    return FileObjectStore(root)


def _age(path: Path, seconds: float) -> None:
    modified_s = path.stat().st_mtime - seconds
    os.utime(path, (modified_s, modified_s))


def test_objects_are_plain_files_and_plain_files_are_objects(store: FileObjectStore, root: Path) -> None:
    store.create("models/k/v/metrics.json", b"{}")
    assert (root / "models/k/v/metrics.json").read_bytes() == b"{}"

    (root / "inbox").mkdir()
    (root / "inbox/dropped.csv").write_bytes(b"u,i\n")
    assert [info.name for info in store.list("inbox/")] == ["inbox/dropped.csv"]
    assert store.read("inbox/dropped.csv") == b"u,i\n"


def test_another_instance_sees_the_same_objects(store: FileObjectStore, root: Path) -> None:
    created = store.create("a/b", b"x")
    assert FileObjectStore(root).info("a/b") == created


def test_arrived_at_does_not_depend_on_the_modification_time(store: FileObjectStore, root: Path) -> None:
    before = after(utc_now(), -1)
    store.create("a/b", b"")
    os.utime(root / "a/b", (1, 1))
    assert before < store.info("a/b").arrived_at <= utc_now()


def test_an_unreadable_subfolder_is_skipped_and_logged_once(
    store: FileObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("inbox/a.csv", "inbox/locked/b.csv", "inbox/z.csv"):
        store.create(name, b"")
    _forbid(monkeypatch, root / "inbox/locked")
    for _ in range(2):
        assert [info.name for info in store.list("inbox/")] == ["inbox/a.csv", "inbox/z.csv"]
    (message,) = caplog.messages
    assert str(root / "inbox/locked") in message


def test_symbolic_links_are_not_followed_and_logged_once(
    store: FileObjectStore, root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_bytes(b"user_id,item_id\n")
    store.create("inbox/a.csv", b"")
    (root / "inbox/link.csv").symlink_to(secret)
    (root / "inbox/folder").symlink_to(tmp_path)
    for _ in range(2):
        assert [info.name for info in store.list("inbox/")] == ["inbox/a.csv"]
    assert sorted(message.partition(": ")[0] for message in caplog.messages) == [
        f"Skipped {root / 'inbox/folder'}",
        f"Skipped {root / 'inbox/link.csv'}",
    ]
    for use in (store.info, store.read):
        with pytest.raises(ObjectNotFound):
            use("inbox/link.csv")


def test_listing_an_unreadable_folder_is_unavailable(
    store: FileObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.create("inbox/a.csv", b"")
    _forbid(monkeypatch, root / "inbox")
    with pytest.raises(Unavailable, match="Permission denied"):
        list(store.list("inbox/"))


def _forbid(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Make the system deny access to `folder`; real permissions would not stop the root user."""
    scandir = os.scandir

    def deny(path: str | os.PathLike[str]) -> Any:
        if Path(path) == folder:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)


def test_modified_at_is_the_modification_time_of_the_file(store: FileObjectStore, root: Path) -> None:
    store.create("a/b", b"x")
    os.utime(root / "a/b", ns=(0, 1_700_000_000_123_456_789))
    # 1,700,000,000 s after 1970 is 2023-11-14 22:13:20 UTC.
    assert store.info("a/b").modified_at == "2023-11-14T22:13:20.123456Z"


def test_two_writes_at_the_same_time_have_different_versions(
    store: FileObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "time_ns", lambda: 1_700_000_000_000_000_000)
    first = store.replace("inbox/a.csv", b"same")
    second = store.replace("inbox/a.csv", b"same")
    assert first.modified_at == "2023-11-14T22:13:20.000000Z"
    assert first.version != second.version == store.info("inbox/a.csv").version


def test_a_folder_deleted_by_a_concurrent_delete_is_recreated(
    store: FileObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, deleted = os.link, list[Path]()

    def link_after_delete(source: Path, target: Path) -> None:
        if not deleted:
            deleted.append(target.parent)
            target.parent.rmdir()
            target.parent.parent.rmdir()
        link(source, target)

    monkeypatch.setattr(os, "link", link_after_delete)
    store.create("models/k/v/model.h5", b"x")
    assert deleted == [root / "models/k/v"]
    assert store.read("models/k/v/model.h5") == b"x"


def test_versions_survive_a_copy_of_the_directory(store: FileObjectStore, root: Path, tmp_path: Path) -> None:
    store.create("models/k/v/model.h5", b"weights")
    store.replace("receipts/r.json", b"{}")
    shutil.copytree(root, tmp_path / "copy")  # preserves times, like cp -p, rsync -a and tar
    assert list(FileObjectStore(tmp_path / "copy").list("")) == list(store.list(""))


def test_a_killed_writer_leaves_no_object(store: FileObjectStore, root: Path) -> None:
    writer = subprocess.run([sys.executable, "-c", KILLED_WRITER, root], check=False)
    assert writer.returncode == -signal.SIGKILL
    assert list(store.list("")) == []
    assert len(list((root / ".tmp").iterdir())) == 1
    store.create("uploads/job.csv", b"again")
    assert store.read("uploads/job.csv") == b"again"


def test_temporary_files_older_than_an_hour_are_deleted_at_start(store: FileObjectStore, root: Path) -> None:
    for name, age_s in [("old", 3700.0), ("young", 3500.0)]:
        (root / ".tmp" / name).write_bytes(b"part")
        _age(root / ".tmp" / name, age_s)
    FileObjectStore(root)
    assert [entry.name for entry in (root / ".tmp").iterdir()] == ["young"]


def test_writes_leave_no_temporary_files(store: FileObjectStore, root: Path) -> None:
    store.create("a/b", b"1")
    store.replace("a/b", b"2")
    with pytest.raises(ObjectExists):
        store.create("a/b", b"3")
    assert list((root / ".tmp").iterdir()) == []


def test_the_temporary_folder_is_recreated_if_missing(store: FileObjectStore, root: Path) -> None:
    (root / ".tmp").rmdir()
    store.create("a/b", b"1")
    assert store.read("a/b") == b"1"


def test_delete_removes_empty_folders_except_at_the_first_level(store: FileObjectStore, root: Path) -> None:
    store.create("models/k/v1/model.h5", b"x")
    store.create("models/k/v2/model.h5", b"x")
    store.delete("models/k/v1/model.h5")
    assert sorted(path.name for path in (root / "models/k").iterdir()) == ["v2"]
    store.delete("models/k/v2/model.h5")
    assert list((root / "models").iterdir()) == []
    store.create("top", b"x")
    store.delete("top")
    assert sorted(path.name for path in root.iterdir()) == [".tmp", "models"]


def test_a_file_where_a_folder_is_needed_is_reported(store: FileObjectStore) -> None:
    store.create("a/b", b"x")
    with pytest.raises((ObjectExists, Unavailable), match=r"a/b/c"):
        store.create("a/b/c", b"y")
    with pytest.raises(ObjectNotFound):
        store.read("a/b/c")
    store.delete("a/b/c")
    assert store.read("a/b") == b"x"


def test_files_with_invalid_object_names_are_not_listed(store: FileObjectStore, root: Path) -> None:
    (root / "inbox").mkdir()
    (root / "inbox/back\\slash.csv").write_bytes(b"x")
    Path(os.fsdecode(os.fsencode(root / "inbox") + b"/latin-\xe9.csv")).write_bytes(b"x")
    (root / "inbox/good.csv").write_bytes(b"x")
    assert [info.name for info in store.list("inbox/")] == ["inbox/good.csv"]


def test_a_full_disk_is_unavailable_with_the_reason(
    store: FileObjectStore, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(Unavailable, match=r"create 'a/b' in the object directory: No space left on device"):
        store.create("a/b", b"x")
    assert list(store.list("")) == []
    assert list((root / ".tmp").iterdir()) == []
