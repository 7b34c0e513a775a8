"""Variables of the Serverless Framework, as far as serverless.yml uses them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import yaml

_ROOT: Final = Path(__file__).parents[2]


class ServerlessVariables:
    """Resolves the variables that serverless.yml uses: `file(…)`, `self:`, `sls:`, `opt:`, `param:` and `env:`."""

    _INNERMOST = re.compile(r"\$\{((?:file\([^)]*\)|self|sls|opt|param|env)[^${}]*)\}")

    def __init__(self, service: dict[str, Any], stage: str) -> None:
        self._service = service
        self._stage = stage

    def resolved(self) -> dict[str, Any]:
        """Return the service with every variable replaced by its value."""
        result = self._resolve(self._service)
        assert isinstance(result, dict)
        return result

    def _resolve(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {key: self._resolve(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self._resolve(item) for item in node]
        while isinstance(node, str) and (variable := self._INNERMOST.search(node)):
            value = self._first_known(variable[1].split(","))
            node = value if variable[0] == node else node.replace(variable[0], str(value))
        return node

    def _first_known(self, choices: Iterable[str]) -> Any:
        for choice in choices:
            source, _, address = choice.strip().partition(":")
            if source.startswith(("'", '"')):
                return choice.strip()[1:-1]
            if source == "self":
                return self._at(address)
            if source == "sls":
                return self._stage
            if source.startswith("file("):
                assert not address, "only whole files are supported; use self: to select a part"
                return yaml.safe_load((_ROOT / source[5:-1]).read_text("utf-8"))
        raise AssertionError(f"no known source of a variable in {choices}")

    def _at(self, address: str) -> Any:
        node: Any = self._service
        for part in address.split("."):
            node = self._resolve(node[part]) if isinstance(node[part], str) else node[part]
        return self._resolve(node)
