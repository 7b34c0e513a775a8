"""What the zip functions must not load: it would not fit, and a cold start would take seconds."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FORBIDDEN = ("tensorflow", "keras", "pandas", "pyarrow", "h5py")
AWS_ENVIRONMENT = {
    "RECSYS_BACKEND": "aws",
    "RECSYS_BUCKET": "bucket",
    "RECSYS_TABLE": "table",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def modules_loaded_by(module: str) -> set[str]:
    """What a fresh process without AWS credentials has loaded after `import module`."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RECSYS_"))}
    program = f"import sys, {module}; assert callable({module}.handle); print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**inherited, **AWS_ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return {name.partition(".")[0] for name in run.stdout.split()}


@pytest.mark.parametrize("module", ["recsys_api.handler", "recsys_recommend.handler"])
def test_the_http_functions_load_without_what_training_needs(module: str) -> None:
    assert modules_loaded_by(module).isdisjoint(FORBIDDEN)


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("recsys_api.handler", {"recsys_recommend", "recsys_train", "recsys_local", "numpy"}),
        ("recsys_recommend.handler", {"recsys_api", "recsys_train", "recsys_local"}),
    ],
)
def test_no_function_loads_another(module: str, other: set[str]) -> None:
    assert modules_loaded_by(module).isdisjoint(other)
