"""Print the requirements of one or more extras of pyproject.toml; `make locks` compiles them into a lock.

python infra/deployment/requirements.py api

`uv pip compile --extra api` and `pip install recsys[api]` would also add the project's base dependencies, which combine
the extras of all functions. A Lambda zip must contain only the dependencies of its own function.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path
from typing import Final

PYPROJECT: Final = Path(__file__).parents[2] / "pyproject.toml"
_OWN_EXTRAS: Final = re.compile(r"recsys\[(?P<extras>[^]]+)\]")


def requirements(*extras: str) -> list[str]:
    """Return the sorted requirement lines of the extras; references such as `recsys[shared]` are expanded."""
    optional: dict[str, list[str]] = tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["optional-dependencies"]
    lines: set[str] = set()
    for extra in extras:
        for line in optional[extra]:
            own = _OWN_EXTRAS.fullmatch(line)
            lines.update(requirements(*own["extras"].split(",")) if own else [line])
    return sorted(lines)


if __name__ == "__main__":
    sys.stdout.write("".join(f"{line}\n" for line in requirements(*sys.argv[1:])))
