"""Fixtures of all tests, and the marks by which `make test-fast` selects tests."""

from __future__ import annotations

import pytest

from tests.emulators import ministack, moto

__all__ = ["ministack", "moto"]

_EMULATORS = ("moto", "ministack")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test that uses an AWS emulator, as a fixture or as a parameter, with `emulator`."""
    for item in items:
        parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
        names = (*getattr(item, "fixturenames", ()), *(value for value in parameters if isinstance(value, str)))
        if any(name.partition("-")[0] in _EMULATORS for name in names):
            item.add_marker("emulator")
