"""Events as API Gateway sends them, and the context that Lambda adds."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

FOLDER = Path(__file__).parent.parent / "fixtures" / "events"


@dataclass(frozen=True)
class Context:
    """What Powertools reads of Lambda's context."""

    function_name: str = "recsys-test-api"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-central-1:123456789012:function:recsys-test-api"
    aws_request_id: str = "52fdfc07-2182-454f-963f-5f0f9a621d72"


def event(name: str, *, key: object = None, **changes: Any) -> dict[str, Any]:
    """A stored event with a key in its headers and top-level members changed."""
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    if key is not None:
        loaded["headers"]["x-api-key"] = str(key)
    return loaded | changes


@contextmanager
def unconfigured_logging() -> Iterator[None]:
    """Within, Powertools sets logging up as in a fresh process, writing to what is standard output now."""
    _forget_logging()
    yield
    _forget_logging()


def _forget_logging() -> None:
    for powertools_logger in ("api", "recommend"):
        logging.root.manager.loggerDict.pop(powertools_logger, None)
    ours = logging.getLogger("recsys")
    ours.handlers.clear()
    ours.propagate = True
    ours.setLevel(logging.NOTSET)


def imported(module: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """A handler's module; importing it makes AWS clients, which need a region and no account."""
    for variable, value in {
        "RECSYS_BACKEND": "aws",
        "RECSYS_BUCKET": "bucket",
        "RECSYS_TABLE": "table",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(variable, value)
    return importlib.import_module(module)
