"""Points in time as text that sorts: ISO 8601, UTC, microseconds, fixed width."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import NewType

Timestamp = NewType("Timestamp", str)
"""`2026-11-22T20:31:05.123456Z`. Text order is time order, so every store can compare it."""

Clock = Callable[[], Timestamp]


def utc_now() -> Timestamp:
    """The present."""
    return from_datetime(datetime.now(UTC))


def from_datetime(moment: datetime) -> Timestamp:
    """`moment` (aware) as a `Timestamp`."""
    return Timestamp(moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"))


def to_datetime(timestamp: Timestamp) -> datetime:
    """The inverse of `from_datetime`."""
    return datetime.strptime(timestamp, "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)


def after(timestamp: Timestamp, seconds: float) -> Timestamp:
    """The point `seconds` later (earlier where negative)."""
    return from_datetime(to_datetime(timestamp) + timedelta(seconds=seconds))


def to_epoch_s(timestamp: Timestamp) -> int:
    """Whole seconds since 1970."""
    return int(to_datetime(timestamp).timestamp())
