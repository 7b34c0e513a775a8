"""Options for reading a file are checked before the file is read."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.errors import InvalidRequest
from recsys.file_options import FileOptions


def test_only_the_options_that_are_set_are_kept() -> None:
    values = {"user": "buyer", "min_score": "3.5", "exclude_items": "POSTAGE,M", "time": None}
    options = FileOptions.of(values).to_json()
    assert options == {"user": "buyer", "min_score": 3.5, "exclude_items": ["POSTAGE", "M"]}
    assert FileOptions.of(options).to_json() == options


@pytest.mark.parametrize(
    "values",
    [
        {"column": "x"},
        {"user": ""},
        {"user": 5},
        {"user": "x" * 513},
        {"delimiter": ":"},
        {"charset": "klingon"},
        {"charset": "base64"},
        {"charset": "idna"},
        {"charset": "a\0b"},
        {"decimal": "."},
        {"time_format": "%Y"},
        {"min_score": "many"},
        {"min_score": "nan"},
        {"min_score": True},
        {"exclude_items": "a,,b"},
        {"exclude_items": [1]},
        {"exclude_items": ["x"] * 1001},
        {"exclude_items": ["x" * 512] * 65},
        {"exclude_items": ["\ud800"]},
    ],
)
def test_an_invalid_option_is_rejected(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as caught:
        FileOptions.of(values)
    assert caught.value.problem_code == "invalid-option"


@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_list_of_excluded_items_is_different_from_a_missing_one(empty: str | list[str]) -> None:
    options = FileOptions.of({"exclude_items": empty})
    assert options.to_json() == {"exclude_items": []}
    assert FileOptions.of(options.to_json()).exclude_items == ()
    assert FileOptions.of({"exclude_items": None}).exclude_items is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b'{"user": 1}'])
def test_an_invalid_sidecar_is_rejected(text: bytes) -> None:
    with pytest.raises(InvalidRequest):
        FileOptions.from_text(text)
