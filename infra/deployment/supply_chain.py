"""Write the bill of materials of each lock, and look its packages up in the database of known vulnerabilities.

python infra/deployment/supply_chain.py sbom .build/sbom
python infra/deployment/supply_chain.py audit [--require-database]

Runs in `.venv-audit`, which `make sbom` and `make audit` install. The licences are checked by
`tests/infra/test_supply_chain.py`, because only an installed package declares its licence.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
DEPLOYED: Final = ("api", "recommend", "train", "local")
"""Locks whose packages are installed where the service runs."""


def write_sboms(folder: Path) -> list[Path]:
    """Write `<lock>.cdx.json` (CycloneDX) for each deployed lock into `folder`, without using the network."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in DEPLOYED:
        target = folder / f"{name}.cdx.json"
        command = [sys.executable, "-W", "ignore", "-m", "cyclonedx_py", "requirements", f"locks/{name}.txt"]
        command += ["--output-reproducible", "--output-file", str(target)]
        subprocess.run(command, cwd=ROOT, check=True)  # noqa: S603  # our own arguments
        written.append(target)
    return written


def read_audit(name: str) -> list[dict[str, Any]]:
    """Return the report of pip-audit on each package of a lock. It is empty if the database cannot be reached."""
    command = [sys.executable, "-m", "pip_audit", "--requirement", f"locks/{name}.txt", "--disable-pip"]
    command += ["--require-hashes", "--progress-spinner", "off", "--format", "json"]
    ended = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)  # noqa: S603  # our own
    try:
        packages: list[dict[str, Any]] = json.loads(ended.stdout)["dependencies"]
    except ValueError:  # pip-audit prints no report when the first request to the database fails
        sys.stderr.write(f"{ended.stderr.strip()[-500:]}\n")
        return []
    return packages


def findings(packages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return one line per known vulnerability.

    Examples
    --------
    >>> findings([{"name": "a", "version": "1", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2"]}]}])
    ['a 1: PYSEC-1, fixed in 2']
    """
    return [
        f"{package['name']} {package['version']}: {found['id']}, fixed in {', '.join(found['fix_versions']) or 'none'}"
        for package in packages
        for found in package.get("vulns", ())
    ]


def unchecked(packages: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the names of the packages that pip-audit skipped.

    Examples
    --------
    >>> unchecked([{"name": "a", "skip_reason": "not found"}, {"name": "b", "version": "1", "vulns": []}])
    ['a']
    """
    return [package["name"] for package in packages if "skip_reason" in package]


def audit(reports: Mapping[str, Sequence[Mapping[str, Any]]], *, requires_database: bool) -> int:
    """Print the outcome of each lock, and return the exit status.

    It is 1 if a package has a known vulnerability, or if the database is required and cannot be reached.
    """
    status = 0
    for name, packages in reports.items():
        missing, found = unchecked(packages), findings(packages)
        if len(missing) == len(packages):
            sys.stdout.write(f"locks/{name}.txt: skipped, because the database of vulnerabilities cannot be reached.\n")
            status = max(status, int(requires_database))
            continue
        sys.stdout.write(
            f"locks/{name}.txt: {len(packages) - len(missing)} packages checked, {len(found)} vulnerabilities.\n"
        )
        for line in [*found, *(f"{package}: not in the database" for package in missing)]:
            sys.stdout.write(f"  {line}\n")
        status = max(status, int(bool(found)))
    return status


def main() -> int:
    """Run the command that the arguments name."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("sbom").add_argument("folder", type=Path)
    commands.add_parser("audit").add_argument("--require-database", action="store_true")
    arguments = parser.parse_args()
    if arguments.command == "audit":
        reports = {name: read_audit(name) for name in DEPLOYED}
        return audit(reports, requires_database=arguments.require_database)
    for path in write_sboms(arguments.folder.resolve()):
        sys.stdout.write(f"Wrote {path}.\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
