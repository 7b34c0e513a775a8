"""Fixtures for the tests of training jobs.

These modules import TensorFlow at their top; `make test-fast` does not collect this folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from recsys.registry.records import Progress
from recsys_train import build
from recsys_train import lease as lease_module
from recsys_train.fitting.fit import FitResult, fit
from tests.train.backend import Backend, FaultyStore


@pytest.fixture(scope="session")
def cached_results() -> dict[bytes, FitResult]:
    """Results of `fit` by its arguments, because each data set needs to be fitted only once."""
    return {}


@pytest.fixture
def backend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cached_results: dict[bytes, FitResult]
) -> Iterator[Backend]:
    backend = Backend(tmp_path, FaultyStore(tmp_path / "objects"))

    def fit_once(interactions: Any, recipe: Any, *, on_progress: Any, **arguments: Any) -> FitResult:
        backend.fits += 1
        key = repr((interactions.user_ids, interactions.item_ids)).encode() + interactions.users.tobytes()
        key += interactions.items.tobytes() + repr(sorted(arguments.items())).encode()
        if key not in cached_results:
            cached_results[key] = fit(interactions, recipe, on_progress=on_progress, **arguments)
        else:
            on_progress(Progress("fitting", 1, recipe.max_epochs, 0.5, 0.25))
        return cached_results[key]

    monkeypatch.setattr(build, "fit", fit_once)
    # No renewal may happen in the background of a test; test_lease.py tests renewals.
    monkeypatch.setattr(lease_module, "PROGRESS_EVERY_S", 3600.0)
    yield backend
    backend.registry.close()
