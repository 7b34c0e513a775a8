"""Finding what asks for training by looking at a real directory, whose files are written as people write them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recsys.clock import Timestamp, after
from recsys.objects.files import FileObjectStore
from tests.tensorflow import TENSORFLOW

if TYPE_CHECKING:
    from recsys_local.watcher import ObjectWatcher
    from recsys_train.events import ObjectCreated

pytestmark = list(TENSORFLOW)  # the watcher's events live beside what trains on them

NOW = Timestamp("2026-03-01T12:00:00.000000Z")


@dataclass
class Directory:
    """A data directory with a watcher on it, whose clock is moved by hand."""

    root: Path
    now: Timestamp = NOW

    def watcher(self) -> ObjectWatcher:
        from recsys_local.watcher import ObjectWatcher  # noqa: PLC0415

        return ObjectWatcher(FileObjectStore(self.root), clock=lambda: self.now)

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
    watcher.done(event)
    assert watcher.look() == watcher.look() == []


def test_changed_content_is_a_new_event(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (first,) = watcher.look()
    watcher.done(first)
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


def test_the_oldest_is_first_whatever_its_name_and_folder(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/a.csv", modified_s=1_000_000_003)
    directory.write("uploads/b.csv", modified_s=1_000_000_001)
    directory.write("inbox/key1/c.csv.gz", modified_s=1_000_000_002)
    watcher.look()
    assert names(watcher.look()) == ["uploads/b.csv", "inbox/key1/c.csv.gz", "inbox/a.csv"]


def test_what_asks_for_no_training_is_passed_over(directory: Directory, watcher: ObjectWatcher) -> None:
    for name in (
        *("inbox/notes.txt", "inbox/.csv", "inbox/orders.csv.part", "inbox/a/b/orders.csv", "inbox/.orders.csv.swp"),
        *("models/key1/job1.1/orders.csv", "receipts/orders.csv", "orders.csv", "registry.sqlite3"),
    ):
        directory.write(name)
    watcher.look()
    assert watcher.look() == []


def test_a_drop_counts_from_when_it_was_found_not_from_its_own_time(
    directory: Directory, watcher: ObjectWatcher
) -> None:
    directory.write("inbox/key1/copied_with_its_old_time.csv", modified_s=1)
    watcher.look()
    directory.now = after(NOW, 5)
    (event,) = watcher.look()
    assert event.order == "2026-03-01T12:00:05.000000Z#inbox/key1/copied_with_its_old_time.csv"


def test_an_upload_counts_from_when_it_was_written(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("uploads/job1.csv", modified_s=1_000_000_000)
    watcher.look()
    (event,) = watcher.look()
    assert event.order == "2001-09-09T01:46:40.000000Z#uploads/job1.csv"


def test_after_a_restart_the_same_files_are_the_same_events(directory: Directory, watcher: ObjectWatcher) -> None:
    directory.write("inbox/orders.csv")
    watcher.look()
    (event,) = watcher.look()
    watcher.done(event)
    restarted = directory.watcher()
    restarted.look()
    assert restarted.look() == [event]
