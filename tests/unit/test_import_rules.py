"""Modules that the zip functions must not import, because of the package size or the cold start."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FORBIDDEN = ("tensorflow", "keras", "pandas", "pyarrow", "h5py")
COLD_START_BUDGET = {
    # Importing boto3 and creating its two clients took as long as FastAPI; recsys_recommend.lean_aws replaces them.
    *("boto3", "botocore.session", "botocore.client", "s3transfer", "urllib3", "dateutil"),
    *("recsys.aws", "recsys.objects.s3", "recsys.registry.dynamodb", "recsys.registry.sqlite", "sqlite3"),
    # Optional parts of FastAPI and Powertools that the function does not use.
    *("fastapi.staticfiles", "fastapi.testclient", "jinja2", "orjson", "email_validator"),
    *("aws_xray_sdk", "aws_lambda_powertools.event_handler", "aws_lambda_powertools.utilities.parser"),
    # NumPy is needed, but these large parts of it are not.
    *("numpy.testing", "numpy.f2py", "numpy.polynomial", "numpy.random", "numpy.fft", "numpy.ma", "scipy"),
    *("multiprocessing", "unittest", "xml", "pdb", "rich", "typer", "uvicorn", "httpx", "httpcore"),
}
"""Modules that importing the function `recommend` must not load, because each adds milliseconds to a cold start."""
AWS_ENVIRONMENT = {
    "RECSYS_BACKEND": "aws",
    "RECSYS_BUCKET": "bucket",
    "RECSYS_TABLE": "table",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


def modules_loaded_by(module: str) -> set[str]:
    """Return the names of all modules that a new process without AWS credentials loads to import `module`."""
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
    return set(run.stdout.split())


@pytest.mark.parametrize("module", ["recsys_api.handler", "recsys_recommend.handler"])
def test_http_functions_load_without_training_dependencies(module: str) -> None:
    assert modules_loaded_by(module).isdisjoint(FORBIDDEN)


def test_cold_start_of_recommend_loads_no_unneeded_module() -> None:
    assert modules_loaded_by("recsys_recommend.handler") & COLD_START_BUDGET == set()


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("recsys_api.handler", {"recsys_recommend", "recsys_train", "recsys_local", "numpy"}),
        ("recsys_recommend.handler", {"recsys_api", "recsys_train", "recsys_local"}),
    ],
)
def test_no_function_loads_another(module: str, other: set[str]) -> None:
    assert modules_loaded_by(module).isdisjoint(other)
