"""Limit the number of requests per key or client address with token buckets.

A bucket holds at most `quota` units. Each request takes one unit, and the bucket regains `quota` units evenly over
`window_s` seconds. A burst of `quota` requests is therefore possible, and the average rate is bounded. The only state
of a bucket is the time at which the bucket is full again (the generic cell rate algorithm, ITU-T I.371). A full bucket
therefore needs no row, and the row of a bucket expires when the bucket is full.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from cachetools import LRUCache, TTLCache

from recsys.clock import DAY_S, Clock, Timestamp, after, to_datetime, utc_now
from recsys.errors import Unavailable
from recsys.registry.reading import unexpired
from recsys.registry.table import Address, Change, TableReader

_HOUR_S: Final = 3600
_MINUTE_S: Final = 60
_TOLERANCE: Final = 1e-4
"""Fraction of a unit that may be missing when the unit is granted. Timestamps are rounded to microseconds. A bucket can
therefore be slightly less full than it should be."""
_COMMIT_ATTEMPTS: Final = 50  # as in recsys.registry.transactions
_MAX_SUBJECTS: Final = 10_000  # not tuned
_CHUNKS_PER_QUOTA: Final = 20
"""Number of chunks in a quota. With smaller chunks, a process writes to the database more often, but exceeds the quota
by fewer units."""

_logger: Final = logging.getLogger("recsys.registry")


class RateLimit(NamedTuple):
    """A limit on the number of requests per subject, such as per API key or client address.

    Parameters
    ----------
    name
        Name of the policy in headers and in `GET /v1/usage`.
    quota
        Requests per window, at least 1. This number is also the size of the largest burst.
    window_s
        Length of the window, in seconds.
    unit
        Name of the counted requests in error messages, such as `trainings per key and day`.
    """

    name: str
    quota: int
    window_s: int
    unit: str

    @property
    def interval_s(self) -> float:
        """Time in which a bucket regains one unit, in seconds."""
        return self.window_s / self.quota


class Quota(NamedTuple):
    """The state of a token bucket after a request.

    Parameters
    ----------
    granted
        Units that the request received.
    remaining
        Units that are left.
    reset_s
        Seconds until the bucket is full. If no unit is left, seconds until it has one unit.
    """

    granted: int
    remaining: int
    reset_s: int


def anonymous_trainings(quota: int) -> RateLimit:
    """Return a limit of `quota` trainings without an API key per client address and hour."""
    return RateLimit("anonymous-trainings", quota, _HOUR_S, "trainings without an API key per client address and hour")


def trainings(quota: int) -> RateLimit:
    """Return a limit of `quota` trainings per key and day."""
    return RateLimit("trainings", quota, DAY_S, "trainings per key and day")


def recommendations(quota: int) -> RateLimit:
    """Return a limit of `quota` requests for recommendations per key and minute."""
    return RateLimit("recommendations", quota, _MINUTE_S, "requests for recommendations per key and minute")


def spend(limit: RateLimit, missing_s: float, units: int) -> tuple[Quota, float]:
    """Take up to `units` units from a token bucket.

    Parameters
    ----------
    limit
        The limit, which defines the size of the bucket and the rate at which it is refilled.
    missing_s
        Seconds until the bucket is full. 0 or negative if it is full.
    units
        Units to take. 0 takes nothing and returns the state.

    Returns
    -------
    tuple[Quota, float]
        The state after the units were taken, and the seconds until the bucket is full.

    Examples
    --------
    >>> hourly = RateLimit("trainings", 60, 3600, "trainings per hour")
    >>> spend(hourly, 0, 1)
    (Quota(granted=1, remaining=59, reset_s=60), 60.0)
    >>> spend(hourly, 3590, 1)
    (Quota(granted=0, remaining=0, reset_s=50), 3590.0)
    """
    missing_s = max(missing_s, 0)
    available = max(math.floor((limit.window_s - missing_s) / limit.interval_s + _TOLERANCE), 0)
    granted = min(units, available)
    missing_s += granted * limit.interval_s
    remaining = available - granted
    wait_s = missing_s if remaining else missing_s + limit.interval_s - limit.window_s
    return Quota(granted, remaining, math.ceil(wait_s) if remaining else max(math.ceil(wait_s), 1)), missing_s


class Buckets(Protocol):
    """The token buckets, one per limit and subject. A subject is an API key or a client address."""

    def take(self, limit: RateLimit, subject: str, units: int = 1) -> Quota:
        """Take at most `units` units from the bucket of `subject`, and return the state of the bucket.

        If `units` is 0, nothing is taken.

        Raises
        ------
        Unavailable
            The database of the buckets did not respond.
        """


class BucketTable(TableReader, Protocol):
    """The methods of `Table` that `TableBuckets` uses."""

    def write(self, changes: Sequence[Change]) -> bool:
        """Apply all changes or none of them, and return whether they were applied; see `Table.write`."""


class TableBuckets:
    """Token buckets in the table of the registry, which all processes share. Each granted request causes a write.

    Parameters
    ----------
    table
        The database.
    clock
        Function that returns the current time.
    """

    def __init__(self, table: BucketTable, clock: Clock = utc_now) -> None:
        self._table = table
        self._clock = clock

    def take(self, limit: RateLimit, subject: str, units: int = 1) -> Quota:
        """Take at most `units` units from the bucket of `subject`, and return the state of the bucket."""
        for _ in range(_COMMIT_ATTEMPTS):
            now = self._clock()
            row = self._table.get(_address(limit, subject))
            document = unexpired(row, now)
            full_at = Timestamp(str(document["expires_at"])) if document else now
            quota, missing_s = spend(limit, (to_datetime(full_at) - to_datetime(now)).total_seconds(), units)
            if not quota.granted or self._table.write([row.changed_to({"expires_at": after(now, missing_s)})]):
                return quota
        raise Unavailable(f"An update of a rate limit conflicted with other writers {_COMMIT_ATTEMPTS} times.")


class MemoryBuckets:
    """Token buckets in the memory of one process.

    Only the 10,000 most recently used buckets are kept. A bucket that is not kept counts as full, and so does every
    bucket after a restart.

    Parameters
    ----------
    timer
        Function that returns a monotonic time in seconds.
    """

    def __init__(self, timer: Callable[[], float] = time.monotonic) -> None:
        self._timer = timer
        self._lock = threading.Lock()  # `GET /v1/usage` reads from another thread
        self._full_at: LRUCache[tuple[str, str], float] = LRUCache(maxsize=_MAX_SUBJECTS)

    def take(self, limit: RateLimit, subject: str, units: int = 1) -> Quota:
        """Take at most `units` units from the bucket of `subject`, and return the state of the bucket."""
        with self._lock:
            now = self._timer()
            quota, missing_s = spend(limit, self._full_at.get((limit.name, subject), now) - now, units)
            if quota.granted:
                self._full_at[limit.name, subject] = now + missing_s
        return quota


class _Account:
    """The units of one subject that this process may grant, and those that it must still take from the shared bucket.

    Parameters
    ----------
    credit
        Number of units that the process may still grant.
    unbooked
        Units that were granted or are part of `credit`, but have not been taken from the shared bucket yet.
    elsewhere
        Units that were left in the shared bucket at the last refill.
    """

    def __init__(self, *, credit: int, unbooked: int, elsewhere: int) -> None:
        self.credit = credit
        self.unbooked = unbooked
        self.elsewhere = elsewhere
        self.refused_until_s = -math.inf


class ChunkedBuckets:
    """Token buckets that take units from shared buckets in chunks, so that few requests cause a write.

    The first chunk of a window is granted without a read or write. It is taken from the shared bucket together with the
    second chunk, so that neither a cold start nor a key with few requests waits for the table. A process therefore
    exceeds a limit by at most one chunk per window. If the shared buckets are unavailable, requests are granted,
    because a limit must not make recommendations less available.

    Parameters
    ----------
    shared
        The buckets that all processes share.
    timer
        Function that returns a monotonic time in seconds.
    """

    def __init__(self, shared: Buckets, timer: Callable[[], float] = time.monotonic) -> None:
        self._shared = shared
        self._timer = timer
        self._accounts: dict[RateLimit, TTLCache[str, _Account]] = {}

    def take(self, limit: RateLimit, subject: str, units: int = 1) -> Quota:
        """Take `units` units, or none if fewer are left, and return the state of the bucket.

        `units` must not exceed a chunk.
        """
        account = self._account(limit, subject)
        now = self._timer()
        if account.credit < units and now >= account.refused_until_s:
            self._refill(limit, subject, account)
        if account.credit < units:
            return Quota(0, 0, max(math.ceil(account.refused_until_s - now), 1))
        account.credit -= units
        remaining = account.credit + account.elsewhere
        return Quota(units, remaining, math.ceil((limit.quota - remaining if remaining else 1) * limit.interval_s))

    def _account(self, limit: RateLimit, subject: str) -> _Account:
        accounts = self._accounts.get(limit)
        if accounts is None:
            accounts = TTLCache(maxsize=_MAX_SUBJECTS, ttl=limit.window_s, timer=self._timer)
            self._accounts[limit] = accounts
        account = accounts.get(subject)
        if account is None:
            chunk = _chunk(limit)
            account = accounts[subject] = _Account(credit=chunk, unbooked=chunk, elsewhere=limit.quota - chunk)
        return account

    def _refill(self, limit: RateLimit, subject: str, account: _Account) -> None:
        chunk = _chunk(limit)
        try:
            quota = self._shared.take(limit, subject, account.unbooked + chunk)
        except Unavailable:
            _logger.warning("A rate limit could not be read, so requests are not limited.", exc_info=True)
            account.credit += chunk
            account.unbooked += chunk
            return
        account.credit += max(quota.granted - account.unbooked, 0)
        account.unbooked = max(account.unbooked - quota.granted, 0)
        account.elsewhere = quota.remaining
        if not account.credit:
            account.refused_until_s = self._timer() + quota.reset_s


def _chunk(limit: RateLimit) -> int:
    return max(limit.quota // _CHUNKS_PER_QUOTA, 1)


def _address(limit: RateLimit, subject: str) -> Address:
    return Address(f"LIMIT#{limit.name}#{subject}", "LIMIT")
