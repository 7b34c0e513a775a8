"""Represent times as text of equal length, which sorts in the order of the times.

The format is ISO 8601 in UTC with microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final, NewType

Timestamp = NewType("Timestamp", str)
"""Text such as `2026-11-22T20:31:05.123456Z`. The alphabetical order of the texts is the order of the times. Every
store can therefore compare timestamps."""

DAY_S: Final = 86_400
"""Seconds per day."""

Clock = Callable[[], Timestamp]
"""Function that returns the current time. Tests pass a clock that they control."""


def utc_now() -> Timestamp:
    """Return the current time of the system clock, in UTC with microseconds."""
    return from_datetime(datetime.now(UTC))


def from_datetime(moment: datetime) -> Timestamp:
    """Convert a timezone-aware `datetime` to a `Timestamp`."""
    return Timestamp(moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def to_datetime(timestamp: Timestamp) -> datetime:
    """Convert a `Timestamp` to a `datetime` in UTC."""
    return datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def after(timestamp: Timestamp, seconds: float) -> Timestamp:
    """Return the time `seconds` after `timestamp`. A negative number yields an earlier time.

    >>> after(Timestamp("2026-03-01T12:00:00.000000Z"), 90.5)
    '2026-03-01T12:01:30.500000Z'
    """
    return from_datetime(to_datetime(timestamp) + timedelta(seconds=seconds))


def to_epoch_s(timestamp: Timestamp) -> int:
    """Return the seconds from 1970-01-01 UTC to the timestamp, rounded down."""
    return int(to_datetime(timestamp).timestamp())
