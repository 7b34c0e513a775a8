"""The examples in docstrings run and print what they say."""

from __future__ import annotations

import doctest
import importlib
from typing import ClassVar

import pytest

from tests.architecture.sources import module_names
from tests.markers import TENSORFLOW

FAST_PACKAGES = ("recsys", "recsys_api", "recsys_recommend")
SLOW_PACKAGES = ("recsys_train", "recsys_local")
_HANDLERS = (
    "recsys_api.dispatch_handler",
    "recsys_api.gc_handler",
    "recsys_api.handler",
    "recsys_recommend.handler",
    "recsys_train.handler",
)
"""Importing one connects to AWS."""


def _modules(packages: tuple[str, ...]) -> list[str]:
    return [name for package in packages for name in module_names(package) if name not in _HANDLERS]


def _run(name: str) -> int:
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.failed == 0
    return results.attempted


@pytest.mark.parametrize("name", _modules(FAST_PACKAGES))
def test_examples_run(name: str) -> None:
    _run(name)


class TestWithTensorFlow:
    """Modules that import TensorFlow, or may."""

    pytestmark: ClassVar = list(TENSORFLOW)

    @pytest.mark.parametrize("name", _modules(SLOW_PACKAGES))
    def test_examples_run(self, name: str) -> None:
        _run(name)


def test_the_functions_that_a_newcomer_calls_first_have_an_example() -> None:
    finder = doctest.DocTestFinder()
    examples = [
        test.name
        for name in _modules(FAST_PACKAGES)
        for test in finder.find(importlib.import_module(name))
        if test.examples
    ]
    assert len(examples) >= 15
