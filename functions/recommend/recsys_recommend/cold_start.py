"""Measures that shorten the import of the handler. The handler imports this module before all others.

`finish`, which the handler calls when its own import is complete, ends both:

- The garbage collector is disabled: nothing is garbage yet, and collections take 15 ms of 450.
- Pydantic builds the validator of a model when it is first used. FastAPI defines 40 models for OpenAPI documents, which
  this function does not write; building their validators takes 30 ms of 370.
"""

from __future__ import annotations

import gc

gc.disable()

from pydantic import BaseModel  # noqa: E402  # after the garbage collector is disabled

# Every model inherits the configuration of `BaseModel` when its class is created.
BaseModel.model_config["defer_build"] = True


def finish() -> None:
    """Enable the garbage collector again, exempt all objects created so far, and build validators of new models."""
    BaseModel.model_config.pop("defer_build", None)  # absent if a test imports the handler again
    gc.freeze()
    gc.enable()
