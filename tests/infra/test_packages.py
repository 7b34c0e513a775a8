"""Lambda packages are complete, small and reproducible."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from functools import partial
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Final

import pytest
from packaging.utils import canonicalize_name

from deployment import package
from tests.infra.conftest import BuildOnce
from tests.infra.stack import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packages")]

LAYER: Final = ROOT / "layers" / "recsys" / "python"


@pytest.fixture(scope="session")
def trees(build_once: BuildOnce) -> dict[str, Path]:
    """Return the packages of both functions and the layer, built by the Makefiles that `sam build` calls."""
    return {
        name: build_once(f"tree-{name}", partial(_make_as_sam_does, ROOT / folder / "Makefile", target))
        for name, folder, target in (
            ("api", "functions/api", "build-ApiFunction"),
            ("recommend", "functions/recommend", "build-RecommendFunction"),
            ("shared", "layers/recsys", "build-SharedLayer"),
        )
    }


@pytest.mark.parametrize("name", package.FUNCTIONS)
def test_function_with_its_layer_is_under_120_mb(trees: dict[str, Path], name: str) -> None:
    assert package.MAX_FUNCTION_MB == 120
    assert 10 < package.size_mb(trees[name]) + package.size_mb(trees["shared"]) < package.MAX_FUNCTION_MB


def test_layer_contains_only_the_shared_package(trees: dict[str, Path]) -> None:
    assert [path.name for path in trees["shared"].iterdir()] == ["python"]
    assert [path.name for path in (trees["shared"] / "python").iterdir()] == ["recsys"]
    assert _sources(trees["shared"] / "python") == _sources(LAYER)


@pytest.mark.parametrize("name", package.FUNCTIONS)
def test_function_contains_its_sources(trees: dict[str, Path], name: str) -> None:
    own_package = f"recsys_{name}"
    assert _sources(trees[name] / own_package) == _sources(ROOT / "functions" / name / own_package)
    assert not list(trees[name].glob("recsys")), "the shared package belongs in the layer only"


@pytest.mark.parametrize("name", package.FUNCTIONS)
def test_every_import_of_the_function_is_packaged(trees: dict[str, Path], name: str) -> None:
    imported = _third_party_imports(trees[name] / f"recsys_{name}")
    assert {module for module in imported if not _contains(trees[name], module)} == set()


@pytest.mark.parametrize("name", package.FUNCTIONS)
@pytest.mark.parametrize("unwanted", ["tensorflow", "pandas", "pyarrow", "pytest", "uvicorn"])
def test_function_contains_no_training_libraries_and_no_tools(trees: dict[str, Path], name: str, unwanted: str) -> None:
    assert not _contains(trees[name], unwanted)


@pytest.mark.parametrize("name", package.FUNCTIONS)
def test_function_can_be_imported_with_lambdas_python_version(trees: dict[str, Path], name: str) -> None:
    python = package.lambda_python()
    if python is None:
        pytest.skip("Python 3.13, the version on Lambda, is not installed")
    handler = trees[name] / f"recsys_{name}" / "handler.py"
    module = f"recsys_{name}.handler" if handler.exists() else f"recsys_{name}"
    result = subprocess.run(
        # -S: without site-packages, so that only the standard library and the packages can be imported.
        [python, "-S", "-c", f"import recsys, fastapi, mangum, numpy, boto3, aws_lambda_powertools, {module}"],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{trees[name]}:{trees['shared'] / 'python'}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "RECSYS_BACKEND": "aws",
            "RECSYS_BUCKET": "bucket",
            "RECSYS_TABLE": "table",
            "AWS_DEFAULT_REGION": "eu-central-1",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", package.FUNCTIONS)
def test_bytecode_is_absent_or_for_lambdas_python_version(trees: dict[str, Path], name: str) -> None:
    """Lambda ignores bytecode of another version and cannot replace it, because its file system is read-only."""
    versions = {path.suffixes[-2] for path in trees[name].rglob("*.pyc")}
    assert versions == ({".cpython-313"} if package.lambda_python() else set())


@pytest.mark.parametrize("name", package.FUNCTIONS)
def test_every_dependency_has_a_wheel_for_arm64(name: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    command = package.install_command(name, tmp_path / "target", "arm64")
    subprocess.run([*command, "--dry-run", "--report", str(report)], check=True)
    wheels = [Path(each["download_info"]["url"]).stem for each in json.loads(report.read_text("utf-8"))["install"]]
    compiled = {wheel.partition("-")[0] for wheel in wheels if not wheel.endswith("-any")}
    assert compiled == {wheel.partition("-")[0] for wheel in wheels if wheel.endswith("aarch64")}
    assert {"numpy", "pydantic_core"} <= compiled


def test_same_files_give_an_identical_zip(tmp_path: Path) -> None:
    for folder, order in (("one", ("a.py", "b.py")), ("two", ("b.py", "a.py"))):
        (tmp_path / folder).mkdir()
        for position, file in enumerate(order):
            (tmp_path / folder / file).write_text(file)
            os.utime(tmp_path / folder / file, (position, 1_000_000 * position))
        package.build_zip(tmp_path / folder, tmp_path / f"{folder}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_sam_build_gives_the_same_package_as_make_tree(trees: dict[str, Path], sam: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [str(sam), "build", "RecommendFunction", "--build-dir", str(tmp_path / "built")],
        cwd=ROOT,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "SAM_CLI_TELEMETRY": "0",
            "AWS_DEFAULT_REGION": "eu-central-1",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert _sources(tmp_path / "built" / "RecommendFunction") == _sources(trees["recommend"])


def _make_as_sam_does(makefile: Path, target: str, artifacts_dir: Path) -> None:
    """Run the target as `sam build` does: from another folder, with the path of the Makefile."""
    result = subprocess.run(
        ["make", "--makefile", str(makefile), target],
        cwd=artifacts_dir.parent,
        env=os.environ | {"ARTIFACTS_DIR": str(artifacts_dir)},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def _sources(tree: Path) -> set[str]:
    return {path.relative_to(tree).as_posix() for path in tree.rglob("*") if path.is_file() and path.suffix != ".pyc"}


def _third_party_imports(source: Path) -> set[str]:
    """Return the third-party top-level modules that the function or the layer imports at run time."""
    found: set[str] = set()
    for path in [*source.rglob("*.py"), *LAYER.rglob("*.py")]:
        found |= _imports(ast.parse(path.read_text("utf-8")).body)
    return {name for name in found if name not in sys.stdlib_module_names and not name.startswith("recsys")}


def _imports(statements: list[ast.stmt]) -> set[str]:
    """Return the modules imported by the statements and nested statements, except under `if TYPE_CHECKING:`."""
    found: set[str] = set()
    for statement in statements:
        if isinstance(statement, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in statement.names}
        elif isinstance(statement, ast.ImportFrom) and not statement.level and statement.module:
            found.add(statement.module.partition(".")[0])
        elif not (isinstance(statement, ast.If) and ast.unparse(statement.test) == "TYPE_CHECKING"):
            found |= _imports(
                [child for child in ast.walk(statement) if isinstance(child, ast.Import | ast.ImportFrom)]
            )
    return found


def _contains(tree: Path, module: str) -> bool:
    return any((tree / name).exists() for name in (module, f"{module}.py"))


_IMPORT_WITHOUT_FOREIGN_PACKAGES = """
import sys
from importlib.abc import MetaPathFinder

class RejectForeign(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in FOREIGN:
            raise ModuleNotFoundError(f"{name} is not in locks/train.txt", name=name)

FOREIGN = set(sys.argv[1:])
sys.meta_path.insert(0, RejectForeign())
import recsys_train.handler
"""


def test_train_imports_only_what_its_image_installs() -> None:
    """The image installs only locks/train.txt, but the test environment also has packages of the other functions."""
    lock = (ROOT / "locks" / "train.txt").read_text("utf-8")
    installed = {canonicalize_name(name) for name in re.findall(r"^([A-Za-z0-9._-]+)==", lock, re.MULTILINE)}
    foreign = {
        module
        for module, distributions in packages_distributions().items()
        if not {canonicalize_name(name) for name in distributions} & {*installed, "recsys"}
    }
    assert {"fastapi", "mangum", "starlette"} <= foreign
    result = subprocess.run(
        [sys.executable, "-c", _IMPORT_WITHOUT_FOREIGN_PACKAGES, *sorted(foreign)],
        env=os.environ | {"RECSYS_BUCKET": "bucket", "RECSYS_TABLE": "table", "AWS_DEFAULT_REGION": "eu-central-1"},
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
