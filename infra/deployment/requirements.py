"""Print what one function needs, from pyproject.toml; `make locks` reads it.

python infra/deployment/requirements.py api

`uv pip compile --extra api` and `pip install recsys[api]` add the project's own dependencies, which are those of all
functions together; a Lambda zip wants one set and nothing else.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"
_OWN_EXTRAS = re.compile(r"recsys\[(?P<extras>[^]]+)\]")


def requirements(*extras: str) -> list[str]:
    """Requirement lines of the project's `extras`, its references to further extras of its own followed."""
    optional: dict[str, list[str]] = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    lines: set[str] = set()
    for extra in extras:
        for line in optional[extra]:
            own = _OWN_EXTRAS.fullmatch(line)
            lines.update(requirements(*own["extras"].split(",")) if own else [line])
    return sorted(lines)


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in requirements(*sys.argv[1:])))
