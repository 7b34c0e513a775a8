"""Finding what asks for training by looking at a real directory, whose files are written as people write them."""

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

    from recsys_local.watcher import ObjectWatcher
    from recsys_train.events import ObjectCreated

pytestmark = list(TENSORFLOW)  # the watcher's events live beside what trains on them

TICK_S = 0.03
"""What is written so long apart has different times, however coarse the kernel's clock."""


def a_minute_from_now() -> Timestamp:
    return after(utc_now(), 60)


@dataclass
class Directory:
    """A data directory with a watcher on it, whose clock is moved by hand; at first, all that is written is settled."""

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


def test_nothing_is_found_in_an_empty_directory(watcher: ObjectWatcher) -> None:
    assert watcher.look() == []


def test_a_file_is_taken_once_it_looks_the_same_twice(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    assert watcher.look() == []
    assert names(watcher.look()) == ["inbox/orders.csv"]


def test_a_file_that_is_still_being_written_is_not_taken(directory: Directory, watcher: ObjectWatcher) -> None:
    content = b"user_id,item_id\n"
    for second in range(4):
        content += b"anna,tea\n"
        directory.write("inbox/orders.csv", content, modified_s=1_000_000_000 + second)
        assert watcher.look() == []
    assert names(watcher.look()) == ["inbox/orders.csv"]


def test_a_file_that_grows_while_its_time_stands_still_is_not_taken(
    directory: Directory, watcher: ObjectWatcher
) -> None:
    directory.write("inbox/orders.csv", b"user_id,item_id\n")
    watcher.look()
    directory.write("inbox/orders.csv", b"user_id,item_id\nanna,tea\n")
    assert watcher.look() == []


def test_a_file_that_nobody_called_done_is_found_again(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    assert names(watcher.look()) == names(watcher.look()) == ["inbox/orders.csv"]


def test_what_is_done_is_not_found_again(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (event,) = watcher.look()
    watcher.mark_done(event)
    assert watcher.look() == watcher.look() == []


def test_changed_content_is_a_new_event(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (first,) = watcher.look()
    watcher.mark_done(first)
    directory.write("inbox/orders.csv", b"user_id,item_id\nanna,tea\n", modified_s=1_000_000_001)
    assert watcher.look() == []
    (second,) = watcher.look()
    assert second.name == first.name
    assert second.version != first.version


def test_a_file_that_was_taken_away_is_forgotten(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (directory.root / "inbox/orders.csv").unlink()
    assert watcher.look() == watcher.look() == []


def test_what_arrived_first_is_first_whatever_its_name_folder_and_own_time(
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
    assert [event.order for event in events] == sorted(event.order for event in events)


def test_a_drop_that_is_looked_at_late_is_older_than_the_upload_that_came_after_it(
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
    assert drop.order < upload.order


def test_a_drop_is_not_taken_until_nobody_wrote_to_it_for_two_seconds(
    directory: Directory, watcher: ObjectWatcher
) -> None:
    before = utc_now()
    directory.write("inbox/orders.csv")
    directory.now = after(before, 1.9)
    assert watcher.look() == watcher.look() == []
    directory.now = after(utc_now(), 2.0)
    assert names(watcher.look()) == ["inbox/orders.csv"]


def test_an_upload_need_not_settle(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.now = utc_now()
    directory.write("uploads/job1.csv")
    watcher.look()
    assert names(watcher.look()) == ["uploads/job1.csv"]


def test_a_drop_with_a_time_to_come_is_taken(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv", modified_s=4_000_000_000)
    watcher.look()
    assert names(watcher.look()) == ["inbox/orders.csv"]


def test_what_asks_for_no_training_is_passed_over(directory: Directory, watcher: ObjectWatcher) -> None:
    for name in (
        *("inbox/notes.txt", "inbox/.csv", "inbox/orders.csv.part", "inbox/a/b/orders.csv", "inbox/.orders.csv.swp"),
        *("models/key1/job1.1/orders.csv", "receipts/orders.csv", "orders.csv", "registry.sqlite3"),
    ):
        directory.write(name)
    watcher.look()
    assert watcher.look() == []


@pytest.mark.parametrize("put", [shutil.copy2, shutil.move], ids=["cp -p", "mv"])
def test_a_drop_counts_from_when_it_arrived_not_from_its_own_time(
    directory: Directory, watcher: ObjectWatcher, put: Callable[[Path, Path], object]
) -> None:
    directory.write("elsewhere/old.csv", modified_s=1)
    (directory.root / "inbox").mkdir()
    time.sleep(TICK_S)
    before = utc_now()
    time.sleep(TICK_S)
    put(directory.root / "elsewhere/old.csv", directory.root / "inbox/old.csv")
    watcher.look()
    (event,) = watcher.look()
    moment, _, name = event.order.partition("#")
    assert before < moment <= utc_now()
    assert name == "inbox/old.csv"


@pytest.mark.parametrize("name", ["inbox/notes.txt", "inbox/orders.xlsx", "inbox/a/b/orders.csv"])
def test_a_file_in_the_inbox_that_is_left_alone_is_named_once_with_the_mend(
    directory: Directory, watcher: ObjectWatcher, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    directory.write(name)
    for second in range(3):
        watcher.look()
        directory.write(name, modified_s=1_000_000_000 + second)
    watcher.look()
    watcher.look()
    (said,) = caplog.messages
    assert name in said
    assert "inbox/NAME.csv" in said


def test_hidden_files_and_other_folders_are_passed_over_without_a_word(
    directory: Directory, watcher: ObjectWatcher, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("inbox/.orders.csv.swp", "inbox/.git/config", "uploads/notes.txt", "receipts/orders.json"):
        directory.write(name)
    watcher.look()
    watcher.look()
    assert caplog.messages == []


def test_a_store_that_does_not_answer_is_named_once_and_the_worker_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    from recsys_local.worker import LogOnChange  # noqa: PLC0415

    complaints = LogOnChange()
    for answers in (False, False, True, False):
        with complaints.log_on_change():
            if not answers:
                raise Unavailable("The inbox cannot be read.")
    assert len(caplog.messages) == 2


def test_a_training_that_fails_leaves_no_display(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from recsys_local import worker  # noqa: PLC0415

    closed: list[bool] = []
    nothing: Any = None
    current = worker.CurrentJob(nothing)
    monkeypatch.setattr(current, "close", lambda: closed.append(True))

    def failing(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(worker, "process", failing)
    monkeypatch.setattr(worker, "RETRY_AFTER_S", 0)
    event: Any = SimpleNamespace(name="inbox/orders.csv")
    with caplog.at_level(logging.ERROR):
        worker._work(event, nothing, nothing, current)
    assert closed == [True]


def test_after_a_restart_the_same_files_are_the_same_events(directory: Directory, watcher: ObjectWatcher) -> None:
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
