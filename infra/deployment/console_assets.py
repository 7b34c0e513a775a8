"""Build the console and the script of the training report: `make console-assets`. Needs npm.

Both are built from functions/api/console. The console is stored in the function `api`, and the script in
`recsys_local`, which writes the report. The build is reproducible: the lock file pins every package by digest, and a
test rebuilds and compares. The pages need neither Node.js nor npm to be served, because the assets are committed.
"""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parents[2]
SOURCES: Final = ROOT / "functions" / "api" / "console"
STATIC: Final = ROOT / "functions" / "api" / "recsys_api" / "static"
REPORT_STATIC: Final = ROOT / "local" / "recsys_local" / "static"
BUILT: Final = ("console.js", "console.css")
REPORT: Final = "report.js"
LICENCES: Final = "console-LICENSES.txt"


def main() -> None:
    """Build the console, and write its assets and the licences of the packages that they contain."""
    with TemporaryDirectory() as folder:
        store(build(Path(folder)))


def store(built: dict[str, bytes]) -> None:
    """Write the files that `build` returned. Scripts and the style sheet are compressed."""
    for name, content in built.items():
        target = path_of(name)
        target.parent.mkdir(exist_ok=True)
        target.write_bytes(content if name == LICENCES else gzip.compress(content, 9, mtime=0))


def path_of(name: str) -> Path:
    """Return the path at which a built file is committed."""
    if name == LICENCES:
        return STATIC / name
    return (REPORT_STATIC if name == REPORT else STATIC) / f"{name}.gz"


def build(folder: Path) -> dict[str, bytes]:
    """Build the console in an empty folder, and return the content of each built file by its name.

    Raises
    ------
    subprocess.CalledProcessError
        The packages could not be installed, or a source has a type error.
    """
    for source in SOURCES.iterdir():
        if source.is_dir():
            shutil.copytree(source, folder / source.name)
        else:
            shutil.copy(source, folder)
    install = ["npm", "ci", "--omit-lockfile-registry-resolved=true", "--ignore-scripts", "--no-audit", "--no-fund"]
    for command in (install, ["npm", "run", "build"]):
        subprocess.run([*command, "--loglevel=error"], cwd=folder, check=True, stdout=subprocess.DEVNULL)  # noqa: S603 - fixed arguments
    return read_built(folder)


def read_built(folder: Path) -> dict[str, bytes]:
    """Return the content of each built file in a folder in which the build has ended."""
    assets = {name: (folder / "dist" / name).read_bytes() for name in (*BUILT, REPORT)}
    if b"</script" in assets[REPORT]:
        raise ValueError(f"Expected {REPORT} without </script, because the report contains it in an element.")
    return {**assets, LICENCES: _licences(folder).encode()}


def _licences(folder: Path) -> str:
    """Return the licences of the packages that the assets contain, which are all but the development ones."""
    packages = json.loads((folder / "package-lock.json").read_text("utf-8"))["packages"]
    texts = []
    for path, entry in sorted(packages.items()):
        if path and not entry.get("dev"):
            name = path.removeprefix("node_modules/")
            text = (folder / path / "LICENSE").read_text("utf-8").strip()
            texts.append(f"== {name}@{entry['version']}: LICENSE\n\n{text}\n")
    return "\n".join(texts)


if __name__ == "__main__":
    main()
