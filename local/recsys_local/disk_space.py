"""What the training worker does on a full disk: it waits, and an attempt that met the full disk does not count."""

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
    """Decides from the free space whether a training may start, and whether a failed attempt counts.

    Parameters
    ----------
    check
        Check of the free space, as for `/health/ready`.
    """

    def __init__(self, check: FreeSpaceCheck) -> None:
        self._check = check
        self._is_waiting = False

    def allows_training(self) -> bool:
        """Return whether a training may start. The log says when trainings begin to wait, and when they continue."""
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
        """Return whether an attempt counts that ended with this error.

        It does not count if the disk was full and still is, although the files of the attempt have been deleted. If
        there is enough space again, the training itself needs more space than there is, and another attempt would end
        in the same way.
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
