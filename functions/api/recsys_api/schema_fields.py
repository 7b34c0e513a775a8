"""Fields and the base class that several schemas use."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

KeyId = Annotated[str, Field(description="Public id of the API key.")]
NewApiKey = Annotated[str, Field(description="The API key. It is shown only in this response, so store it now.")]
CreatedAt = Annotated[str, Field(description="Creation time (UTC, ISO 8601).")]
CurrentVersion = Annotated[
    str | None, Field(description="Version that serves requests; null until the first model is published.")
]


class StrictRequest(BaseModel):
    """A request model that rejects unknown fields and numbers in quotes."""

    model_config = ConfigDict(extra="forbid", strict=True)
