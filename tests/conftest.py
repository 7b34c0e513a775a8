"""Fixtures for every kind of test."""

from __future__ import annotations

from tests.emulators import ministack, moto

__all__ = ["ministack", "moto"]
