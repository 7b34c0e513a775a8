"""Events as API Gateway sends them, and the context object of Lambda."""

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
    """The attributes of Lambda's context object that Powertools reads."""

    function_name: str = "recsys-test-api"
    memory_limit_in_mb: int = 512
    invoked_function_arn: str = "arn:aws:lambda:eu-central-1:123456789012:function:recsys-test-api"
    aws_request_id: str = "52fdfc07-2182-454f-963f-5f0f9a621d72"


def event(name: str, *, key: object = None, **changes: Any) -> dict[str, Any]:
    """Load a stored event, with a key in its headers and with changed top-level members."""
    loaded: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
    if key is not None:
        loaded["headers"]["x-api-key"] = str(key)
    return loaded | changes


@contextmanager
def unconfigured_logging() -> Iterator[None]:
    """Let Powertools set up logging as in a new process, so that it writes to the current standard output."""
    _forget_logging()
    yield
    _forget_logging()


def _forget_logging() -> None:
    for powertools_logger in ("api", "dispatch", "gc", "recommend"):
        logging.root.manager.loggerDict.pop(powertools_logger, None)
    ours = logging.getLogger("recsys")
    ours.handlers.clear()
    ours.propagate = True
    ours.setLevel(logging.NOTSET)


def imported(module: str, patch: pytest.MonkeyPatch) -> ModuleType:
    """Import a handler module; that creates AWS clients, which need a region but no account."""
    for variable, value in {
        "RECSYS_BACKEND": "aws",
        "RECSYS_BUCKET": "bucket",
        "RECSYS_TABLE": "table",
        "RECSYS_QUEUE_URL": "https://sqs.eu-central-1.amazonaws.com/123456789012/queue",
        "AWS_DEFAULT_REGION": "eu-central-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        patch.setenv(variable, value)
    return importlib.import_module(module)
