"""Keeping a job's lease alive while its training works, and telling the registry how far it is."""

from __future__ import annotations

import threading
from typing import Final, Self

from recsys.errors import LeaseLost, Unavailable
from recsys.registry.records import Lease, Progress
from recsys.registry.registry import Registry

PROGRESS_EVERY_S: Final = 1.0
"""Progress is written at most this often; a training may report many times a second."""


class LeaseKeeper:
    """Renews `lease` from a thread until the `with` block ends.

    A store that does not answer for a moment is tried again at the next tick; a lost lease is raised in the working
    thread, by its next `report` or `check`.
    """

    def __init__(self, registry: Registry, lease: Lease, *, lease_s: float) -> None:
        self._registry = registry
        self._lease = lease
        self._lease_s = lease_s
        self._ended = threading.Event()
        self._lost: LeaseLost | None = None
        self._progress: Progress | None = None
        self._written: Progress | None = None
        self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)

    def report(self, progress: Progress) -> None:
        """Note how far the work is.

        Raises
        ------
        LeaseLost
            Another worker took the job over.
        """
        self.check()
        self._progress = progress

    def check(self) -> None:
        """Raise `LeaseLost` if another worker took the job over."""
        if self._lost is not None:
            raise self._lost

    def _keep(self) -> None:
        ticks_per_renewal = max(1, int(self._lease_s / 3 / PROGRESS_EVERY_S))
        tick, is_due = 0, False
        while not self._ended.wait(PROGRESS_EVERY_S):
            tick += 1
            is_due = is_due or tick % ticks_per_renewal == 0
            progress = self._progress
            if progress is self._written and not is_due:
                continue
            try:
                self._registry.renew_lease(self._lease, lease_s=self._lease_s, progress=progress)
            except LeaseLost as error:
                self._lost = error
                return
            except Unavailable:
                is_due = True
                continue
            self._written, is_due = progress, False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._ended.set()
        self._thread.join()
