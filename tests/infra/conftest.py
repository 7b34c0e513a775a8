"""What the tests of the stack share: the tools that validate it, and what takes long to build, made once and kept."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deployment import serverless
from tests.infra.stack import NAMES_FILE, ROOT

Once = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory) -> Once:
    """Fill a folder of this name, unless another worker of this run has done so; the folder."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def fill(name: str, build: Callable[[Path], None]) -> Path:
        folder, done = shared / name, shared / f"{name}.done"
        with (shared / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not done.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                build(folder)
                done.touch()
        return folder

    return fill


@pytest.fixture(scope="session")
def sam(once: Once) -> Path:
    """The AWS SAM CLI."""
    once("make-sam", lambda _: _make("sam"))
    return ROOT / ".venv-sam" / "bin" / "sam"


@pytest.fixture(scope="session")
def compiled_stages(once: Once) -> dict[str, Path]:
    """serverless.yml as compiled by osls for two stages, with empty packages: what is in them is no matter here."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    service = once("serverless", _compile_both_stages)
    return {stage: service / stage / serverless.COMPILED for stage in ("dev", "prod")}


def _compile_both_stages(service: Path) -> None:
    _make("osls")
    (service / "infra").mkdir()
    shutil.copy(NAMES_FILE, service / "infra")
    shutil.copy(ROOT / "serverless.yml", service)
    packages = service / ".build" / "package"
    packages.mkdir(parents=True)
    for name in ("api", "recommend", "shared"):
        (packages / f"{name}.zip").write_bytes(b"PK\5\6" + bytes(18))
    for stage in ("dev", "prod"):
        serverless.package(service, service / stage, stage=stage)


def _make(target: str) -> None:
    command = ["make", "--no-print-directory", target]
    done = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert done.returncode == 0, f"make {target} failed:\n{done.stdout}{done.stderr}"
