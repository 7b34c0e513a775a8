"""Renew the lease of a job while it runs, and write the progress of the job to the registry."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, Self

from recsys.errors import LeaseLost, Unavailable
from recsys.registry.records import Lease, Progress
from recsys.registry.registry import Registry

PROGRESS_EVERY_S: Final = 1.0
"""Shortest interval between two writes of the progress, because training may report it many times per second."""
RENEWALS_PER_LEASE: Final = 3
"""Renewals within the duration of a lease, so that one or two may fail before the lease expires."""


class LeaseKeeper:
    """Context manager that renews a lease in a thread.

    If the registry is unavailable, the renewal is retried after `PROGRESS_EVERY_S`. If another worker has taken the job
    over, the next call of `report` or `check` raises `LeaseLost` in the calling thread.

    Parameters
    ----------
    registry
        Registry in which the lease is renewed.
    lease
        The lease, as returned by `Registry.claim_job`.
    lease_s
        Seconds by which each renewal extends the lease.
    on_renewal
        Function that is called after each regular renewal, which is three times per `lease_s`. It is not called after a
        failed renewal, or after an additional renewal that only writes the progress.
    """

    def __init__(
        self, registry: Registry, lease: Lease, *, lease_s: float, on_renewal: Callable[[], None] = lambda: None
    ) -> None:
        self._registry = registry
        self._lease = lease
        self._lease_s = lease_s
        self._on_renewal = on_renewal
        self._ended = threading.Event()
        self._lost: LeaseLost | None = None
        self._progress: Progress | None = None
        self._written: Progress | None = None
        self._thread = threading.Thread(target=self._keep, name="lease-keeper", daemon=True)

    def report(self, progress: Progress) -> None:
        """Set the progress that the next renewal writes to the registry.

        Raises
        ------
        LeaseLost
            Another worker took the job over.
        """
        self.check()
        self._progress = progress

    def check(self) -> None:
        """Check that the lease is still held.

        Raises
        ------
        LeaseLost
            Another worker took the job over.
        """
        if self._lost is not None:
            raise self._lost

    def _keep(self) -> None:
        ticks_per_renewal = max(1, int(self._lease_s / RENEWALS_PER_LEASE / PROGRESS_EVERY_S))
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
            if is_due:
                self._on_renewal()
            self._written, is_due = progress, False

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self._ended.set()
        self._thread.join()
