"""Shorten the import of the handler, which imports this module before all others.

Importing this module has two effects. They last until the handler calls `finish` at the end of its own import.

- The garbage collector is disabled. There is no garbage yet, and collections would take 15 of the 450 ms of the import.
- Pydantic does not build the validator of a model before its first use. FastAPI defines 40 models for OpenAPI
  documents, which this function does not write. Their validators would take 30 of the 370 ms of the import.
"""

from __future__ import annotations

import gc

gc.disable()

from pydantic import BaseModel  # noqa: E402  # after the garbage collector is disabled

# Every model inherits the configuration of `BaseModel` when its class is created.
BaseModel.model_config["defer_build"] = True


def finish() -> None:
    """Enable garbage collection and the immediate build of validators again, after the import of the handler.

    All objects that exist at this time are exempt from garbage collection.
    """
    BaseModel.model_config.pop("defer_build", None)  # absent if a test imports the handler again
    gc.freeze()
    gc.enable()
