"""What the command line of `tests.benchmarks.training` selects."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True, slots=True)
class Options:
    """The data sets, methods and seeds that the command line selects."""

    folder: Path | None
    sets: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: tuple[int, ...]
    generated: tuple[str, ...]
    textbook_epochs: int

    def arguments(self, data: str) -> dict[str, Any]:
        """Return the arguments of a task that determine its data set."""
        return {"data": data, "folder": None if self.folder is None else str(self.folder.resolve())}


def log(message: str) -> None:
    """Print which measurement starts."""
    print(f"… {message}", file=sys.stderr, flush=True)
