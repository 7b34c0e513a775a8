"""The committed assets of the console are what its sources give."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import pytest

from deployment.console_assets import LICENCES, build, path_of


@pytest.mark.slow
@pytest.mark.node
@pytest.mark.xdist_group("node")
def test_committed_assets_are_those_of_the_sources(tmp_path: Path) -> None:
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    for name, content in build(tmp_path).items():
        stored = path_of(name).read_bytes()
        committed = stored if name == LICENCES else gzip.decompress(stored)
        assert committed == content, f"{name} is out of date: run make console-assets"
