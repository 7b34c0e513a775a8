"""What the training worker decides from the free space of the disk."""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import Unavailable
from recsys_local.disk_space import DiskSpace, is_full_disk
from recsys_local.readiness import FreeSpaceCheck

ENOUGH, TOO_MUCH = 0, 1 << 60


def disk_space(folder: Path, *, min_free_bytes: int) -> DiskSpace:
    return DiskSpace(FreeSpaceCheck(folder, min_free_bytes))


def caused_by(cause: Exception) -> Exception:
    error = Unavailable("Could not create an object.")
    error.__cause__ = cause
    return error


def sqlite_full() -> sqlite3.Error:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA max_page_count = 1")
    with pytest.raises(sqlite3.OperationalError) as caught:
        connection.execute("CREATE TABLE x (y)")
    connection.close()
    return caught.value


@pytest.mark.parametrize(
    "cause",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError(
            "Can't write data (file write failed: time = x, errno = 28, error message = 'No space left on device')"
        ),
        sqlite_full(),
    ],
)
def test_full_disk_is_recognized_behind_other_errors(cause: Exception) -> None:
    assert is_full_disk(cause)
    assert is_full_disk(caused_by(cause))


def test_other_errors_are_no_full_disk() -> None:
    assert not is_full_disk(caused_by(OSError(errno.EACCES, "Permission denied")))
    assert not is_full_disk(sqlite3.OperationalError("database is locked"))


def test_failed_attempt_is_excused_only_while_the_disk_is_full(tmp_path: Path) -> None:
    error = caused_by(OSError(errno.ENOSPC, "No space left on device"))
    assert not disk_space(tmp_path, min_free_bytes=TOO_MUCH).counts_attempt(error)
    assert disk_space(tmp_path, min_free_bytes=ENOUGH).counts_attempt(error)
    assert disk_space(tmp_path, min_free_bytes=TOO_MUCH).counts_attempt(ValueError())


def test_waiting_for_space_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    usage: Any = type("Usage", (), {"free": 10})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    space = disk_space(tmp_path, min_free_bytes=100)
    assert [space.allows_training(), space.allows_training()] == [False, False]
    usage.free = 100
    assert [space.allows_training(), space.allows_training()] == [True, True]
    assert [record.message.split()[1].strip(".:") for record in caplog.records] == ["wait", "continue"]
