"""Names and sizes of classes and functions."""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from pathlib import Path

from tests.architecture.sources import parsed_sources

MAX_FUNCTION_LINES = 40
"""Without the docstring; declarations of routes are exempt because each holds several small functions."""


def test_no_two_classes_share_a_name() -> None:
    files = defaultdict(list)
    for path, tree in parsed_sources().items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                files[node.name].append(path)
    assert {name: paths for name, paths in files.items() if len(paths) > 1} == {}


def test_no_module_is_named_like_a_library() -> None:
    installed = {*sys.stdlib_module_names, "tensorflow", "keras", "numpy", "pandas", "pyarrow", "boto3", "fastapi"}
    allowed = {"http"}  # recsys.http: always imported by its full name
    names = {Path(path).parent.name if path.endswith("__init__.py") else Path(path).stem for path in parsed_sources()}
    assert names & installed - allowed == set()


def test_functions_are_short() -> None:
    long = {
        f"{path}:{node.lineno} {node.name}": lines
        for path, tree in parsed_sources().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if (lines := _lines_without_docstring(node)) > MAX_FUNCTION_LINES and not _declares_routes(node)
    }
    assert long == {}


def _lines_without_docstring(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    docstring = ast.get_docstring(node, clean=False)
    return (node.end_lineno or node.lineno) - node.lineno + 1 - (docstring.count("\n") + 1 if docstring else 0)


def _declares_routes(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    return any(
        isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Attribute)
        for inner in ast.walk(node)
        if isinstance(inner, ast.FunctionDef | ast.AsyncFunctionDef) and inner is not node
        for decorator in inner.decorator_list
    )
