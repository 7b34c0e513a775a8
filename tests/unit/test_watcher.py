"""Finding files to train on in a real directory, whose files are copied and moved as users do it."""

from __future__ import annotations

import logging
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from recsys.clock import Timestamp, after, utc_now
from recsys.errors import Unavailable
from recsys.objects.files import FileObjectStore
from tests.markers import TENSORFLOW

if TYPE_CHECKING:
    from collections.abc import Callable

    from recsys.objects.created import ObjectCreated
    from recsys_local.watcher import ObjectWatcher

pytestmark = list(TENSORFLOW)  # the watcher imports the module of the events, which imports TensorFlow

TICK_S = 0.03
"""Files written this far apart have different times, however coarse the kernel's clock."""


def a_minute_from_now() -> Timestamp:
    return after(utc_now(), 60)


@dataclass
class Directory:
    """A data directory and the time on the watcher's clock. Initially, every file counts as settled."""

    root: Path
    now: Timestamp = field(default_factory=a_minute_from_now)

    def watcher(self) -> ObjectWatcher:
        from recsys_local.watcher import ObjectWatcher  # noqa: PLC0415

        return ObjectWatcher(FileObjectStore(self.root), self.root, clock=lambda: self.now)

    def write(self, name: str, content: bytes = b"user_id,item_id\n", *, modified_s: int = 1_000_000_000) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        os.utime(path, (modified_s, modified_s))


@pytest.fixture
def directory(tmp_path: Path) -> Directory:
    return Directory(tmp_path)


@pytest.fixture
def watcher(directory: Directory) -> ObjectWatcher:
    return directory.watcher()


def names(events: list[ObjectCreated]) -> list[str]:
    return [event.name for event in events]


def test_empty_directory_has_no_events(watcher: ObjectWatcher) -> None:
    assert watcher.look() == []


def test_file_is_reported_when_two_looks_find_it_unchanged(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    assert watcher.look() == []
    assert names(watcher.look()) == ["inbox/orders.csv"]


def test_file_that_is_still_written_is_not_reported(directory: Directory, watcher: ObjectWatcher) -> None:
    content = b"user_id,item_id\n"
    for second in range(4):
        content += b"anna,tea\n"
        directory.write("inbox/orders.csv", content, modified_s=1_000_000_000 + second)
        assert watcher.look() == []
    assert names(watcher.look()) == ["inbox/orders.csv"]


def test_file_that_grows_without_a_new_modification_time_is_not_reported(
    directory: Directory, watcher: ObjectWatcher
) -> None:
    directory.write("inbox/orders.csv", b"user_id,item_id\n")
    watcher.look()
    directory.write("inbox/orders.csv", b"user_id,item_id\nanna,tea\n")
    assert watcher.look() == []


def test_file_is_reported_until_it_is_marked_as_done(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    assert names(watcher.look()) == names(watcher.look()) == ["inbox/orders.csv"]


def test_file_marked_as_done_is_not_reported(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (event,) = watcher.look()
    watcher.mark_done(event)
    assert watcher.look() == watcher.look() == []


def test_overwritten_file_is_a_new_event(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (first,) = watcher.look()
    watcher.mark_done(first)
    directory.write("inbox/orders.csv", b"user_id,item_id\nanna,tea\n", modified_s=1_000_000_001)
    assert watcher.look() == []
    (second,) = watcher.look()
    assert second.name == first.name
    assert second.version != first.version


def test_deleted_file_is_not_reported(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (directory.root / "inbox/orders.csv").unlink()
    assert watcher.look() == watcher.look() == []


def test_events_are_ordered_by_arrival_not_by_name_folder_or_modification_time(
    directory: Directory, watcher: ObjectWatcher
) -> None:
    directory.write("uploads/b.csv", modified_s=1_000_000_003)
    time.sleep(TICK_S)
    directory.write("inbox/key1/c.csv.gz", modified_s=1_000_000_002)
    time.sleep(TICK_S)
    directory.write("inbox/a.csv", modified_s=1_000_000_001)
    watcher.look()
    events = watcher.look()
    assert names(events) == ["uploads/b.csv", "inbox/key1/c.csv.gz", "inbox/a.csv"]
    assert [event.data_timestamp for event in events] == sorted(event.data_timestamp for event in events)


def test_drop_that_is_reported_late_is_still_older_than_a_later_upload(
    directory: Directory, watcher: ObjectWatcher
) -> None:
    directory.write("inbox/key1/drop.csv")
    time.sleep(TICK_S)
    directory.write("uploads/job1.csv")
    watcher.look()
    (upload,) = (event for event in watcher.look() if event.name.startswith("uploads/"))
    watcher.mark_done(upload)
    directory.now = after(directory.now, 3600)
    (drop,) = watcher.look()
    assert drop.data_timestamp < upload.data_timestamp


def test_drop_is_reported_when_it_is_unchanged_for_two_seconds(directory: Directory, watcher: ObjectWatcher) -> None:
    before = utc_now()
    directory.write("inbox/orders.csv")
    directory.now = after(before, 1.9)
    assert watcher.look() == watcher.look() == []
    directory.now = after(utc_now(), 2.0)
    assert names(watcher.look()) == ["inbox/orders.csv"]


def test_upload_is_reported_without_a_pause(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.now = utc_now()
    directory.write("uploads/job1.csv")
    watcher.look()
    assert names(watcher.look()) == ["uploads/job1.csv"]


def test_drop_with_a_modification_time_in_the_future_is_reported(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv", modified_s=4_000_000_000)
    watcher.look()
    assert names(watcher.look()) == ["inbox/orders.csv"]


def test_other_files_are_ignored(directory: Directory, watcher: ObjectWatcher) -> None:
    for name in (
        *("inbox/notes.txt", "inbox/.csv", "inbox/orders.csv.part", "inbox/a/b/orders.csv", "inbox/.orders.csv.swp"),
        *("models/key1/job1.1/orders.csv", "receipts/orders.csv", "orders.csv", "registry.sqlite3"),
    ):
        directory.write(name)
    watcher.look()
    assert watcher.look() == []


@pytest.mark.parametrize("put", [shutil.copy2, shutil.move], ids=["cp -p", "mv"])
def test_drops_are_ordered_by_arrival_not_by_modification_time(
    directory: Directory, watcher: ObjectWatcher, put: Callable[[Path, Path], object]
) -> None:
    directory.write("elsewhere/old.csv", modified_s=1)
    (directory.root / "inbox").mkdir()
    time.sleep(TICK_S)
    earlier = utc_now()
    time.sleep(TICK_S)
    put(directory.root / "elsewhere/old.csv", directory.root / "inbox/old.csv")
    watcher.look()
    (event,) = watcher.look()
    moment, _, name = event.data_timestamp.partition("#")
    assert earlier < moment <= utc_now()
    assert name == "inbox/old.csv"


@pytest.mark.parametrize("name", ["inbox/notes.txt", "inbox/orders.xlsx", "inbox/a/b/orders.csv"])
def test_ignored_file_in_the_inbox_is_logged_once_with_a_hint(
    directory: Directory, watcher: ObjectWatcher, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    directory.write(name)
    for second in range(3):
        watcher.look()
        directory.write(name, modified_s=1_000_000_000 + second)
    watcher.look()
    watcher.look()
    (message,) = caplog.messages
    assert name in message
    assert "inbox/NAME.csv" in message


def test_hidden_files_and_other_folders_are_ignored_without_a_log_line(
    directory: Directory, watcher: ObjectWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("inbox/.orders.csv.swp", "inbox/.git/config", "uploads/notes.txt", "receipts/orders.json"):
        directory.write(name)
    watcher.look()
    watcher.look()
    assert caplog.messages == []


def test_unavailable_store_is_logged_once_until_it_recovers(caplog: pytest.LogCaptureFixture) -> None:
    from recsys_local.worker import LogOnChange  # noqa: PLC0415

    log = LogOnChange()
    for is_available in (False, False, True, False):
        with log.log_on_change():
            if not is_available:
                raise Unavailable("The inbox cannot be read.")
    assert len(caplog.messages) == 2


def test_failed_training_closes_its_progress_display(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from recsys_local.job_runner import CurrentJob, JobRunner  # noqa: PLC0415

    closed: list[bool] = []
    nothing: Any = None
    current = CurrentJob(nothing)
    monkeypatch.setattr(current, "close", lambda: closed.append(True))

    def failing(*_: object) -> None:
        raise RuntimeError("no memory")

    event: Any = SimpleNamespace(name="inbox/orders.csv")
    with caplog.at_level(logging.ERROR):
        assert not JobRunner(nothing, nothing, current).run(event, failing)
    assert closed == [True]


def test_files_are_the_same_events_after_a_restart(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (event,) = watcher.look()
    watcher.mark_done(event)
    restarted = directory.watcher()
    restarted.look()
    assert restarted.look() == [event]


def test_finished_uploads_are_not_listed_again_until_one_is_added(
    directory: Directory, watcher: ObjectWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys_local import watcher as module  # noqa: PLC0415

    monkeypatch.setattr(module, "_CLOCK_TICK_NS", 0)
    directory.write("uploads/old.csv")
    directory.write("uploads/notes.txt")
    watcher.look()
    (event,) = watcher.look()
    watcher.mark_done(event)
    listed: list[str] = []
    list_objects = watcher.store.list
    monkeypatch.setattr(watcher.store, "list", lambda prefix: listed.append(prefix) or list_objects(prefix))
    for _ in range(3):
        assert watcher.look() == []
    assert listed == ["uploads/", *["inbox/"] * 3]
    directory.write("uploads/new.csv")
    watcher.look()
    assert names(watcher.look()) == ["uploads/new.csv"]


def test_upload_that_is_not_done_is_found_again_although_the_folder_does_not_change(
    directory: Directory, watcher: ObjectWatcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    from recsys_local import watcher as module  # noqa: PLC0415

    monkeypatch.setattr(module, "_CLOCK_TICK_NS", 0)
    directory.write("uploads/job1.csv")
    watcher.look()
    for _ in range(3):
        assert names(watcher.look()) == ["uploads/job1.csv"]
