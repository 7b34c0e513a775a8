"""Lock files are pinned, hashed and portable, and deployment uses the versions that the tests use."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deployment.requirements import requirements
from tests.infra.stack import ROOT

LOCKS: Final = sorted((ROOT / "locks").glob("*.txt"))
NPM_FOLDERS: Final = (ROOT / "locks", ROOT / "functions" / "api" / "console")
DEPLOYED: Final = {"api": ["api"], "recommend": ["recommend"], "train": ["train"]}
ON_LAMBDA: Final = {"python_version": "3.13", "python_full_version": "3.13.0", "sys_platform": "linux", "extra": ""} | {
    "platform_system": "Linux",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "implementation_name": "cpython",
}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_every_requirement_is_pinned_and_hashed(lock: Path) -> None:
    entries = re.split(r"\n(?=[a-z0-9])", lock.read_text("utf-8"), flags=re.IGNORECASE)[1:]
    assert entries
    assert [entry.splitlines()[0] for entry in entries if "==" not in entry.splitlines()[0]] == []
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []


@pytest.mark.parametrize(
    "lock",
    [*LOCKS, *(folder / name for folder in NPM_FOLDERS for name in ("package.json", "package-lock.json"))],
    ids=lambda lock: lock.relative_to(ROOT).as_posix(),
)
def test_no_lock_contains_a_registry_or_a_local_path(lock: Path) -> None:
    text = lock.read_text("utf-8")
    assert not re.search(r"--(extra-)?index-url|--find-links|file:", text)
    assert not re.search(r"(^|[\s\"'=:])/\w", text)  # an absolute path
    assert not re.search(r"registry\.|pypi\.|pythonhosted|\"resolved\"", text)


@pytest.mark.parametrize("folder", NPM_FOLDERS, ids=lambda folder: folder.name)
def test_every_npm_package_has_a_digest(folder: Path) -> None:
    lock = json.loads((folder / "package-lock.json").read_text("utf-8"))
    packages = {name: entry for name, entry in lock["packages"].items() if name}
    described = json.loads((folder / "package.json").read_text("utf-8"))
    direct = described.get("dependencies", {}) | described["devDependencies"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in direct} == direct  # exact versions
    assert [name for name, entry in packages.items() if not entry["integrity"].startswith("sha512-")] == []


@pytest.mark.parametrize(("name", "extras"), [*DEPLOYED.items(), ("local", ["api", "recommend", "train", "local"])])
def test_lock_satisfies_pyproject(name: str, extras: list[str]) -> None:
    pins = _pins(ROOT / f"locks/{name}.txt")
    required = [Requirement(line) for line in requirements(*extras)]
    assert [
        str(need) for need in required if not need.specifier.contains(pins.get(canonicalize_name(need.name), "0"))
    ] == []


@pytest.mark.parametrize("name", [*DEPLOYED, "local"])
def test_deployed_versions_are_those_of_the_tests(name: str) -> None:
    tested = _pins(ROOT / "locks/dev.txt")
    deployed = _pins(ROOT / f"locks/{name}.txt")
    assert {package: version for package, version in deployed.items() if tested.get(package) != version} == {}


@pytest.mark.parametrize("name", ["api", "recommend"])
def test_http_functions_do_not_install_training_libraries(name: str) -> None:
    assert not {"tensorflow-cpu", "keras", "pandas", "pyarrow"} & set(_pins(ROOT / f"locks/{name}.txt"))


def _pins(lock: Path) -> dict[str, str]:
    """Return package → version, without packages whose marker is false on Lambda."""
    pins: dict[str, str] = {}
    for line in re.findall(r"^([A-Za-z0-9][^\\\n]*)", lock.read_text("utf-8"), flags=re.MULTILINE):
        pin = Requirement(line.strip())
        if pin.marker is None or pin.marker.evaluate(ON_LAMBDA):
            pins[canonicalize_name(pin.name)] = str(pin.specifier).removeprefix("==")
    return pins
