"""The error tree: its drawing is complete, and every error has its texts."""

from __future__ import annotations

import ast
import re

import pytest

from recsys import errors
from recsys.errors import RecsysError
from recsys.http.problems import STATUS_OF
from recsys.settings import InvalidSetting
from tests.architecture.sources import parsed_sources

SHARED = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, RecsysError)]


def drawn_parents() -> dict[str, str]:
    """Return the parent of each class in the drawing of `recsys.errors`."""
    parents: dict[str, str] = {}
    branch = ["RecsysError"]
    for line in (errors.__doc__ or "").splitlines():
        if found := re.match(r"    ((?:│   |    )*)[├└]── (\w+)", line):
            depth = len(found[1]) // 4 + 1
            branch[depth:] = [found[2]]
            parents[found[2]] = branch[depth - 1]
    return parents


def defined_parents() -> dict[str, str]:
    """Return the parent of each subclass of `RecsysError` in the sources of all packages."""
    bases = {
        node.name: node.bases[0].id
        for tree in parsed_sources().values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef) and len(node.bases) == 1 and isinstance(node.bases[0], ast.Name)
    }

    def is_error(name: str) -> bool:
        return name == "RecsysError" or (name in bases and is_error(bases[name]))

    return {name: base for name, base in bases.items() if is_error(base)}


def test_the_drawing_shows_every_error_of_every_package() -> None:
    assert drawn_parents() == defined_parents()


@pytest.mark.parametrize("error", SHARED, ids=lambda error: error.__name__)
def test_every_error_has_a_code_a_title_and_complete_sentences(error: type[RecsysError]) -> None:
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", error.code)
    assert error.title[0].isupper()
    assert not error.title.endswith(".")
    assert error.default_hint is None or error.default_hint.endswith(".")


def test_an_error_becomes_a_problem() -> None:
    error = errors.ModelNotReady("There is no model yet.", hint="Wait.", retry_after_s=5)
    assert error.to_problem() == errors.Problem(
        "model-not-ready", "The model is not ready", "There is no model yet.", "Wait."
    )
    assert str(error) == "There is no model yet."
    assert errors.ModelNotReady("x").hint == errors.ModelNotReady.default_hint
    assert InvalidSetting("x", code="other").to_problem().code == "other"


def test_every_status_belongs_to_an_error_of_the_tree() -> None:
    assert {error.__name__ for error in STATUS_OF} <= defined_parents().keys()
