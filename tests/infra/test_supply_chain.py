"""Licences of the deployed packages, their bill of materials, and the outcome of an audit."""

from __future__ import annotations

import json
import re
import subprocess
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.licenses import canonicalize_license_expression
from packaging.utils import canonicalize_name

from deployment.supply_chain import DEPLOYED, audit
from tests.infra.stack import ROOT

AUDIT_PYTHON: Final = ROOT / ".venv-audit/bin/python"
ALLOWED: Final = {
    *("0BSD", "AFL-2.1", "Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "CC0-1.0", "ISC", "MIT", "MIT-0"),
    *("MPL-2.0", "PSF-2.0", "Zlib"),
}
"""Licences that permit distribution together with Apache-2.0 code. MPL-2.0 applies per file, and no file is changed."""
SPDX_OF: Final = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "BSD 3-Clause": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}
"""SPDX identifier of a licence in older metadata."""
UNDECLARED: Final = {"namex": "Apache-2.0"}
"""Packages whose metadata declares no licence; read from the LICENSE file that they install."""
NOT_ON_LINUX: Final = {"colorama", "tzdata"}


def pins(lock: str) -> dict[str, str]:
    text = (ROOT / f"locks/{lock}.txt").read_text("utf-8")
    return {canonicalize_name(name): version for name, version in re.findall(r"(?m)^([\w.-]+)==([^\s;]+)", text)}


def licences_of(package: Distribution) -> set[str]:
    """Return the SPDX identifiers that a package declares, from its expression, classifiers or text, in that order."""
    declared = package.metadata
    classifiers = [line.rpartition(" :: ")[2] for line in declared.get_all("Classifier") or () if "License ::" in line]
    texts = [declared.get("License-Expression")] if declared.get("License-Expression") else classifiers
    texts = texts or [declared.get("License") or UNDECLARED.get(canonicalize_name(package.name), "")]
    expressions = [canonicalize_license_expression(SPDX_OF.get(text, text)) for text in texts]
    return {word for text in expressions for word in re.findall(r"[\w.-]+", text) if word not in {"AND", "OR", "WITH"}}


def test_deployed_packages_have_a_permitted_licence() -> None:
    deployed = {name for lock in DEPLOYED for name in pins(lock)}
    installed = {canonicalize_name(package.name): package for package in distributions()}
    assert deployed - installed.keys() == NOT_ON_LINUX
    forbidden = {name: licences_of(installed[name]) - ALLOWED for name in deployed & installed.keys()}
    assert {name: licences for name, licences in forbidden.items() if licences} == {}
    assert [name for name in deployed & installed.keys() if not licences_of(installed[name])] == []


def test_a_copyleft_licence_is_noticed(tmp_path: Path) -> None:
    folder = tmp_path / "viral-1.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(
        "Metadata-Version: 2.4\nName: viral\nVersion: 1\nLicense-Expression: AGPL-3.0-only\n"
    )
    (package,) = distributions(path=[str(tmp_path)])
    assert licences_of(package) - ALLOWED == {"AGPL-3.0-only"}


@pytest.mark.slow
@pytest.mark.skipif(not AUDIT_PYTHON.exists(), reason="`make sbom` has not installed .venv-audit")
def test_the_bills_of_materials_list_every_pinned_package_with_its_digests(tmp_path: Path) -> None:
    command = [AUDIT_PYTHON, ROOT / "infra/deployment/supply_chain.py", "sbom", tmp_path]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    for lock in DEPLOYED:
        sbom = json.loads((tmp_path / f"{lock}.cdx.json").read_text("utf-8"))
        assert sbom["bomFormat"] == "CycloneDX"
        assert {canonicalize_name(part["name"]): part["version"] for part in sbom["components"]} == pins(lock)
        references = [part["externalReferences"][0] for part in sbom["components"]]
        assert all(hashed["alg"] == "SHA-256" for reference in references for hashed in reference["hashes"])


SAFE: Final = {"name": "fine", "version": "1", "vulns": []}
VULNERABLE: Final = {"name": "bad", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}
UNKNOWN: Final = {"name": "private", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "requires_database", "status", "printed"),
    [
        ([SAFE], False, 0, "1 packages checked, 0 vulnerabilities"),
        ([SAFE, VULNERABLE], False, 1, "bad 1: PYSEC-1, fixed in 2"),
        ([SAFE, UNKNOWN], True, 0, "private: not in the database"),
        ([UNKNOWN], False, 0, "skipped, because the database"),
        ([UNKNOWN], True, 1, "skipped, because the database"),
        ([], False, 0, "skipped, because the database"),
    ],
)
def test_an_audit_fails_for_a_vulnerability_and_says_when_it_was_skipped(
    packages: list[dict[str, Any]],
    requires_database: bool,
    status: int,
    printed: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert audit({"api": packages}, requires_database=requires_database) == status
    assert printed in capsys.readouterr().out
