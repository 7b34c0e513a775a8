"""Fixtures of the unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.http_fakes import Service, running


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """The apps of `api` and `recommend` on the local adapters."""
    with running(tmp_path) as service:
        yield service
