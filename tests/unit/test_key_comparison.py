"""Keys are compared in constant time: by `hmac.compare_digest`, on digests of equal length, and by nothing else.

Durations are not asserted here, because they depend on the load of the machine;
`python -m tests.benchmarks.key_comparison` prints them.
"""

from __future__ import annotations

import ast
import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from recsys.errors import InvalidApiKey
from recsys.keys.api_key import ApiKey
from recsys.keys.authentication import Authenticator
from recsys.keys.scoped_api_key import ScopedApiKey
from recsys.registry.key_record import KeyRecord
from recsys.registry.scoped_keys import Scope, ScopedKey
from tests.architecture.sources import PACKAGES
from tests.unit.http_fakes import START

MAIN = ApiKey.mint()
PAGE = ScopedApiKey.mint(Scope.RECOMMEND, MAIN.key_id)


@dataclass
class Comparisons:
    """Records the comparisons of digests, and can answer for `hmac.compare_digest`."""

    lengths: list[tuple[int, int]] = field(default_factory=list)
    answer: Callable[[str, str], bool] = hmac.compare_digest

    def compare(self, first: str, second: str) -> bool:
        if len(first) == 64:  # a checksum is shorter, and not secret
            self.lengths.append((len(first), len(second)))
            return self.answer(first, second)
        return first == second


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> Comparisons:
    comparisons = Comparisons()
    monkeypatch.setattr(hmac, "compare_digest", comparisons.compare)
    return comparisons


class OneKey:
    """A registry with one key, which was rotated and has a scoped key."""

    def get_key(self, key_id: str) -> KeyRecord:
        scoped = ScopedKey(PAGE.scoped_key_id, "page", Scope.RECOMMEND, PAGE.sha256(), START)
        return KeyRecord(key_id, START, secret_sha256=MAIN.sha256(), scoped_keys=(scoped,))


def is_accepted(key: ApiKey | ScopedApiKey) -> bool:
    try:
        Authenticator(OneKey(), clock=lambda: START).authorize(str(key), Scope.RECOMMEND)
    except InvalidApiKey:
        return False
    return True


def forged(key: ApiKey | ScopedApiKey) -> ApiKey | ScopedApiKey:
    """Return another secret for the same id, as an attacker would guess it."""
    if isinstance(key, ApiKey):
        return ApiKey.mint(key.key_id)
    return ScopedApiKey(key.scope, key.key_id, key.scoped_key_id, ScopedApiKey.mint(key.scope, key.key_id).secret)


@pytest.mark.parametrize("key", [MAIN, PAGE], ids=["main", "scoped"])
def test_secrets_are_compared_as_digests_of_equal_length(comparisons: Comparisons, key: ApiKey | ScopedApiKey) -> None:
    assert is_accepted(key)
    assert not is_accepted(forged(key))
    assert len(comparisons.lengths) >= 2
    assert set(comparisons.lengths) == {(64, 64)}


@pytest.mark.parametrize("key", [MAIN, PAGE], ids=["main", "scoped"])
def test_nothing_else_decides_whether_a_secret_is_right(comparisons: Comparisons, key: ApiKey | ScopedApiKey) -> None:
    comparisons.answer = lambda _first, _second: False
    assert not is_accepted(key)
    comparisons.answer = lambda _first, _second: True
    assert is_accepted(forged(key))


def test_no_secret_or_digest_is_compared_with_an_operator() -> None:
    compared = []
    for path in [*(PACKAGES["recsys"] / "keys").glob("*.py"), *(PACKAGES["recsys"] / "registry").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Compare) and isinstance(node.ops[0], ast.Eq | ast.NotEq | ast.In):
                text = ast.unparse(node)
                if "sha256" in text or "secret" in text:
                    compared.append(f"{Path(path).name}: {text}")
    assert compared == []
