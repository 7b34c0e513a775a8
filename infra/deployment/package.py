"""Build the packages of the Lambda functions and their layer, for AWS SAM, the Serverless Framework and `make sizes`.

python infra/deployment/package.py tree {api,recommend,shared} DIR     write the unpacked package into DIR
python infra/deployment/package.py zips DIR                            write DIR/{api,recommend,shared}.zip
python infra/deployment/package.py sizes                               print unpacked sizes and the largest dependencies

`--architecture arm64` selects the wheels for functions with the parameter `Architecture=arm64`.
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
"""The project's limit for a function with its layer, unpacked. Lambda's limit is 250 MB."""

# python3.13 on Lambda runs on Amazon Linux 2023 with glibc 2.34. pip does not infer older tags, so each one is listed.
_LAMBDA_PYTHON: Final = "3.13"
_MANYLINUX: Final = ("manylinux_2_28", "manylinux_2_27", "manylinux_2_17")
MACHINES: Final = {"x86_64": "x86_64", "arm64": "aarch64"}
"""Architecture on Lambda → its name in the tags of wheels."""
_PRINT_VERSION: Final = "import sys; print('%d.%d' % sys.version_info[:2])"
_IGNORE_BYTECODE: Final = shutil.ignore_patterns("__pycache__", "*.pyc")
_ZIP_TIME: Final = (1980, 1, 1, 0, 0, 0)


def build_tree(name: str, target: Path, architecture: str = "x86_64") -> None:
    """Write the unpacked package of a function or of the layer into a folder.

    Parameters
    ----------
    name
        A function of `FUNCTIONS`, or `shared` for the layer.
    target
        The folder to write into; created if missing. A function's folder receives its dependencies and its own package,
        the layer's folder receives `python/recsys`.
    architecture
        A key of `MACHINES`. The layer does not depend on it.

    Raises
    ------
    subprocess.CalledProcessError
        pip could not install the locked dependencies.
    """
    if name == SHARED:
        shutil.copytree(
            ROOT / "layers" / "recsys" / "python", target / "python", ignore=_IGNORE_BYTECODE, dirs_exist_ok=True
        )
        _compile(target, unpacked_at="/opt")
        return
    subprocess.run(install_command(name, target, architecture), check=True)  # noqa: S603 - fixed arguments
    # Remove console scripts: Lambda runs none, and their shebang contains the path of the local interpreter.
    shutil.rmtree(target / "bin", ignore_errors=True)
    package = f"recsys_{name}"
    shutil.copytree(ROOT / "functions" / name / package, target / package, ignore=_IGNORE_BYTECODE, dirs_exist_ok=True)
    _compile(target, unpacked_at="/var/task")


def install_command(name: str, target: Path, architecture: str) -> list[str]:
    """Return the command that installs the wheels of a function's lock for Lambda's Python and platform.

    pip neither resolves nor builds, because the lock lists every dependency. `--ignore-requires-python` is needed
    because `pip install` compares Requires-Python with the interpreter that runs pip, not with `--python-version`.
    """
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile"]
    command += ["--no-deps", "--require-hashes", "--only-binary=:all:", "--ignore-requires-python"]
    command += ["--implementation", "cp", "--python-version", _LAMBDA_PYTHON]
    command += [f"--platform={manylinux}_{MACHINES[architecture]}" for manylinux in _MANYLINUX]
    return [*command, "--target", str(target), "-r", str(ROOT / "locks" / f"{name}.txt")]


def lambda_python() -> str | None:
    """Return a local interpreter of Lambda's Python version: this one, or `python3.13` on the PATH, or None."""
    for python in filter(None, (sys.executable, shutil.which(f"python{_LAMBDA_PYTHON}"))):
        result = subprocess.run([python, "-c", _PRINT_VERSION], capture_output=True, text=True, check=False)  # noqa: S603 - no input
        if result.returncode == 0 and result.stdout.strip() == _LAMBDA_PYTHON:
            return python
    return None


def build_zip(tree: Path, archive: Path) -> None:
    """Zip a folder reproducibly: the same files give the same bytes, so that a deployment skips unchanged packages."""
    archive.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zip_file:
        for path in sorted(path for path in tree.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(tree).as_posix(), _ZIP_TIME)
            entry.external_attr = (0o100755 if path.stat().st_mode & 0o100 else 0o100644) << 16
            zip_file.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)


def size_mb(tree: Path) -> float:
    """Return the total size of the files in `tree` in megabytes, unpacked, as Lambda's limit counts it."""
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file()) / 1e6


def _compile(tree: Path, *, unpacked_at: str) -> None:
    """Add bytecode to the package if an interpreter of Lambda's Python version is installed.

    Lambda's file system is read-only, so without bytecode each cold start compiles every module: importing FastAPI,
    NumPy and boto3 took 2.1 s without bytecode and 0.9 s with it, on one slow core. Other Python versions ignore these
    files.
    """
    python = lambda_python()
    if python is None:
        _print(f"Python {_LAMBDA_PYTHON} is not installed: the package has no bytecode, so cold starts are slower.")
        return
    command = [python, "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-x", "/tests/"]
    # -s and -p: tracebacks show the paths of the files on Lambda.
    subprocess.run([*command, "-s", str(tree), "-p", unpacked_at, str(tree)], check=True)  # noqa: S603 - the project's folders


def _write_zips(out_dir: Path, architecture: str) -> None:
    for name in (SHARED, *FUNCTIONS):
        with TemporaryDirectory() as folder:
            build_tree(name, Path(folder), architecture)
            build_zip(Path(folder), out_dir / f"{name}.zip")
        _print(f"{out_dir / name}.zip  {(out_dir / f'{name}.zip').stat().st_size / 1e6:.1f} MB")


def _print_sizes(architecture: str) -> int:
    """Print the size of each function with its layer; return exit status 1 if one exceeds the limit."""
    too_large = 0
    for name in FUNCTIONS:
        with TemporaryDirectory() as folder:
            own, layer = Path(folder) / "own", Path(folder) / "layer"
            build_tree(name, own, architecture)
            build_tree(SHARED, layer, architecture)
            total = size_mb(own) + size_mb(layer)
            too_large += total > MAX_FUNCTION_MB
            _print(f"{name}: {total:.1f} MB unpacked with its layer (limit {MAX_FUNCTION_MB} MB)")
            parts = sorted(((size_mb(part), part.name) for part in own.iterdir() if part.is_dir()), reverse=True)
            for part_mb, part in parts[:6]:
                _print(f"  {part_mb:6.1f}  {part}")
    return 1 if too_large else 0


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the command line and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--architecture", choices=MACHINES, default="x86_64")
    commands = parser.add_subparsers(dest="command", required=True)
    tree = commands.add_parser("tree")
    tree.add_argument("name", choices=[*FUNCTIONS, SHARED])
    tree.add_argument("dir", type=Path)
    zips = commands.add_parser("zips")
    zips.add_argument("dir", type=Path)
    commands.add_parser("sizes")
    arguments = parser.parse_args()
    if arguments.command == "tree":
        build_tree(arguments.name, arguments.dir, arguments.architecture)
    elif arguments.command == "zips":
        _write_zips(arguments.dir, arguments.architecture)
    else:
        return _print_sizes(arguments.architecture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
