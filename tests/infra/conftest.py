"""Shared fixtures: the deployment tools, and artifacts that are built once per test run because they take long."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from deployment import serverless
from local_aws.sam import host_for_containers
from tests.infra.stack import NAMES_FILE, ROOT

BuildOnce = Callable[[str, Callable[[Path], None]], Path]


@pytest.fixture(scope="session")
def build_once(tmp_path_factory: pytest.TempPathFactory) -> BuildOnce:
    """Return a function that fills a named folder, unless another xdist worker has filled it, and returns its path."""
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
def docker_address() -> str:
    """Return the address of this machine as containers reach it. Skip the test if Docker is not running."""
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("Docker is not installed")
    if subprocess.run([docker, "info"], check=False, capture_output=True).returncode != 0:
        pytest.skip("Docker is not running")
    return host_for_containers()[0]


@pytest.fixture(scope="session")
def sam(build_once: BuildOnce) -> Path:
    """Return the path of the AWS SAM CLI; `make sam` installs it if necessary."""
    build_once("make-sam", lambda _: _make("sam"))
    return ROOT / ".venv-sam" / "bin" / "sam"


@pytest.fixture(scope="session")
def compiled_stages(build_once: BuildOnce) -> dict[str, Path]:
    """Compile serverless.yml with osls for dev and prod. The zips are empty, which does not affect the templates."""
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("npm is not installed")
    service = build_once("serverless", _compile_both_stages)
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
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, f"make {target} failed:\n{result.stdout}{result.stderr}"
