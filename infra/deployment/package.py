"""Build what Lambda unpacks, for AWS SAM, the Serverless Framework and `make sizes` alike.

python infra/deployment/package.py tree {api,recommend,shared} DIR     the folder that Lambda sees
python infra/deployment/package.py zips DIR                            DIR/{api,recommend,shared}.zip
python infra/deployment/package.py sizes                               unpacked megabytes, and the largest packages
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

ROOT: Final = Path(__file__).parents[2]
FUNCTIONS: Final = ("api", "recommend")
SHARED: Final = "shared"
MAX_FUNCTION_MB: Final = 120
"""Our own limit for a function with its layer; Lambda's is 250."""

# python3.13 on Lambda is Amazon Linux 2023, whose glibc is 2.34. pip wants every older tag named.
_LAMBDA_PYTHON: Final = "3.13"
_LAMBDA_PLATFORMS: Final = ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64")
_SAY_VERSION: Final = "import sys; print('%d.%d' % sys.version_info[:2])"
_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", "*.pyc")
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)


def build_tree(name: str, target: Path) -> None:
    """Put into `target` what the zip of function `name` holds, or of the layer where `name` is `shared`."""
    if name == SHARED:
        shutil.copytree(ROOT / "layers" / "recsys" / "python", target / "python", ignore=_LEFT_OUT, dirs_exist_ok=True)
        _compile(target, unpacked_at="/opt")
        return
    _install(ROOT / "locks" / f"{name}.txt", target)
    package = f"recsys_{name}"
    shutil.copytree(ROOT / "functions" / name / package, target / package, ignore=_LEFT_OUT, dirs_exist_ok=True)
    _compile(target, unpacked_at="/var/task")


def lambda_python() -> str | None:
    """A Python of Lambda's version on this machine: the one that runs, or `python3.13`; None where there is neither."""
    for python in filter(None, (sys.executable, shutil.which(f"python{_LAMBDA_PYTHON}"))):
        asked = subprocess.run([python, "-c", _SAY_VERSION], capture_output=True, text=True, check=False)  # noqa: S603 - no input
        if asked.returncode == 0 and asked.stdout.strip() == _LAMBDA_PYTHON:
            return python
    return None


def build_zip(tree: Path, archive: Path) -> None:
    """Zip `tree`; the same files give the same bytes, so that a deployment sees what did not change."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as stored:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), _ZIP_TIME)
            entry.external_attr = (0o100755 if path.stat().st_mode & 0o100 else 0o100644) << 16
            stored.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def size_mb(tree: Path) -> float:
    """Megabytes of the files in `tree`, as Lambda counts them: unpacked."""
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) / 1e6


def _install(lock: Path, target: Path) -> None:
    """The lock is complete and made for this platform, so pip need not resolve, and builds nothing.

    `--ignore-requires-python`: pip install compares that with the Python it runs on, whatever --python-version says.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--implementation", "cp", "--python-version", _LAMBDA_PYTHON]
    command += [f"--platform={platform}" for platform in _LAMBDA_PLATFORMS]
    subprocess.run([*command, "--target", str(target), "-r", str(lock)], check=True)  # noqa: S603 - our own arguments
    # Console scripts: Lambda has nobody to type them, and their first line names this machine's Python.
    shutil.rmtree(target / "bin", ignore_errors=True)


def _compile(tree: Path, *, unpacked_at: str) -> None:
    """Add bytecode where a Python of Lambda's version is at hand: Lambda can store none, so each cold start compiles.

    Importing FastAPI, NumPy and boto3 took 2.1 s without and 0.9 s with it, on one slow core. A Python of another
    version ignores these files.
    """
    python = lambda_python()
    if python is None:
        _say(f"No Python {_LAMBDA_PYTHON} here: packaged without bytecode (works, but cold starts are slower).")
        return
    command = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-x", "/tests/"]
    # Tracebacks name files where Lambda has them.
    subprocess.run([*command, "-s", str(tree), "-p", unpacked_at, str(tree)], check=True)  # noqa: S603 - our own folders


def _write_zips(out_dir: Path) -> None:
    for name in (SHARED, *FUNCTIONS):
        with TemporaryDirectory() as folder:
            build_tree(name, Path(folder))
            build_zip(Path(folder), out_dir / f"{name}.zip")
        _say(f"{out_dir / name}.zip  {(out_dir / f'{name}.zip').stat().st_size / 1e6:.1f} MB")


def _print_sizes() -> int:
    """Report each function with its layer; the exit status says whether all are small enough."""
    too_large = 0
    for name in FUNCTIONS:
        with TemporaryDirectory() as folder:
            own, layer = Path(folder) / "own", Path(folder) / "layer"
            build_tree(name, own)
            build_tree(SHARED, layer)
            total = size_mb(own) + size_mb(layer)
            too_large += total > MAX_FUNCTION_MB
            _say(f"{name}: {total:.1f} MB unpacked with its layer (limit {MAX_FUNCTION_MB} MB)")
            parts = sorted(((size_mb(part), part.name) for part in own.iterdir() if part.is_dir()), reverse=True)
            for part_mb, part in parts[:6]:
                _say(f"  {part_mb:6.1f}  {part}")
    return 1 if too_large else 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Do what the command line asks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    tree = commands.add_parser("tree")
    tree.add_argument("name", choices=[*FUNCTIONS, SHARED])
    tree.add_argument("dir", type=Path)
    zips = commands.add_parser("zips")
    zips.add_argument("dir", type=Path)
    commands.add_parser("sizes")
    arguments = parser.parse_args()
    if arguments.command == "tree":
        build_tree(arguments.name, arguments.dir)
    elif arguments.command == "zips":
        _write_zips(arguments.dir)
    else:
        return _print_sizes()
    return 0


if __name__ == "__main__":
    sys.exit(main())
