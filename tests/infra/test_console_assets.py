"""The committed assets of the console are what its sources give."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from deployment.console_assets import BUILT, STATIC, build


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.xdist_group("node")
def test_committed_assets_are_those_of_the_sources(tmp_path: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    for name, content in build(tmp_path).items():
        stored = STATIC / (f"{name}.gz" if name in BUILT else name)
        committed = gzip.decompress(stored.read_bytes()) if name in BUILT else stored.read_bytes()
        assert committed == content, f"{name} is out of date: run make console-assets"
