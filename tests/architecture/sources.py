"""The Python sources of the project, parsed."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "recsys": ROOT / "layers/recsys/python/recsys",
    "recsys_api": ROOT / "functions/api/recsys_api",
    "recsys_recommend": ROOT / "functions/recommend/recsys_recommend",
    "recsys_train": ROOT / "functions/train/recsys_train",
    "recsys_local": ROOT / "local/recsys_local",
}
"""Every package of the project and its folder."""


def module_names(package: str) -> list[str]:
    """Return the dotted names of all modules of a package."""
    folder = PACKAGES[package]
    names = (path.relative_to(folder.parent).with_suffix("").as_posix() for path in sorted(folder.rglob("*.py")))
    return [name.replace("/", ".").removesuffix(".__init__") for name in names]


@cache
def parsed_sources() -> dict[str, ast.Module]:
    """Return the syntax tree of every source file, by its path from the root."""
    paths = [path for folder in PACKAGES.values() for path in sorted(folder.rglob("*.py"))]
    paths += sorted((ROOT / "infra").rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8")) for path in paths}
