"""Delay trainings while the disk is full.

A job fails permanently after a limited number of failed attempts. A failed attempt does not count against this limit if
the disk was full and is still full.
"""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Iterator
from typing import Final

from recsys.errors import NotReady
from recsys_local.readiness import FreeSpaceCheck

_logger: Final = logging.getLogger("recsys.worker")


class DiskSpace:
    """A check of the free disk space that decides whether a training may start and whether a failed attempt counts.

    Parameters
    ----------
    check
        Check of the free space. `/health/ready` uses the same check.
    """

    def __init__(self, check: FreeSpaceCheck) -> None:
        self._check = check
        self._is_waiting = False

    def allows_training(self) -> bool:
        """Return whether a training may start. Log when trainings begin to wait, and when they continue."""
        try:
            self._check()
        except NotReady as error:
            if not self._is_waiting:
                _logger.warning("Trainings wait. %s", error.detail)
            self._is_waiting = True
            return False
        if self._is_waiting:
            _logger.info("Trainings continue: the disk has space again.")
        self._is_waiting = False
        return True

    def counts_attempt(self, error: Exception) -> bool:
        """Return whether a failed attempt counts against the setting `max_attempts`.

        `error` is the exception that ended the attempt.

        The attempt does not count if the disk was full and is still full after the files of the attempt were deleted.
        If the disk has enough space now, the training itself filled the disk. In this case the attempt counts, because
        another attempt would fail in the same way.
        """
        if not is_full_disk(error):
            return True
        try:
            self._check()
        except NotReady:
            return False
        return True


def is_full_disk(error: Exception) -> bool:
    """Return whether a full disk caused an error."""
    return any(_reports_full_disk(cause) for cause in _with_causes(error))


def _with_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _reports_full_disk(error: BaseException) -> bool:
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
    if isinstance(error, OSError):
        # HDF5 reports the number of the error in its text only.
        return error.errno in (errno.ENOSPC, errno.EDQUOT) or f"errno = {errno.ENOSPC}" in str(error)
    return False
