"""The vocabulary behaves like a list and a dict of its ids."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.model.vocabulary import Vocabulary

UNUSUAL_IDS = ["007", "7", "NA", "", "日本", "é", "e\u0301", "\x00", "a\tb", " ", "💡" * 100]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@settings(deadline=None)
@given(ids=st.lists(TEXT, unique=True), others=st.lists(TEXT))
def test_ids_are_found_at_their_index_and_unknown_ids_are_not_found(ids: list[str], others: list[str]) -> None:
    vocabulary = Vocabulary.of(ids)
    rows = {each: row for row, each in enumerate(ids)}
    assert [vocabulary.find(each) for each in ids + others] == [rows.get(each) for each in ids + others]
    assert list(vocabulary) == ids
    assert len(vocabulary) == len(ids)
    assert vocabulary.is_valid


@pytest.mark.parametrize("wanted", UNUSUAL_IDS)
def test_ids_are_compared_without_normalisation(wanted: str) -> None:
    assert Vocabulary.of(UNUSUAL_IDS).find(wanted) == UNUSUAL_IDS.index(wanted)
    assert Vocabulary.of([each for each in UNUSUAL_IDS if each != wanted]).find(wanted) is None
    assert wanted in Vocabulary.of(UNUSUAL_IDS)


def test_values_that_utf8_cannot_encode_are_not_found() -> None:
    ids = Vocabulary.of(UNUSUAL_IDS)
    assert ids.find("\ud800") is None
    assert 7 not in ids


def test_indexing_works_as_in_a_list() -> None:
    ids = Vocabulary.of(["a", "b", "c"])
    assert (ids[0], ids[-1], ids[1:], ids.index("b")) == ("a", "c", ["b", "c"], 1)
    with pytest.raises(IndexError):
        ids[3]


def test_at_returns_ids_in_the_order_of_the_rows() -> None:
    rows = np.array([10, 0, 4, 0, 3])
    assert Vocabulary.of(UNUSUAL_IDS).at(rows) == [UNUSUAL_IDS[row] for row in rows]
    assert Vocabulary.of(UNUSUAL_IDS).at(rows[:0]) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"starts": [0, 2, 1, 3]}, id="an id ends before it begins"),
        pytest.param({"starts": [0, 1, 2, 4]}, id="an id ends after the text"),
        pytest.param({"starts": [1, 1, 2, 3]}, id="the first id begins after the text"),
        pytest.param({"starts": []}, id="empty starts"),
        pytest.param({"order": [0, 1, 3]}, id="row index out of range"),
        pytest.param({"order": [0, -1, 2]}, id="negative row index"),
        pytest.param({"order": [0, 1]}, id="missing row index"),
        pytest.param({"text": list(b"a\xffc")}, id="invalid UTF-8"),
        pytest.param({"text": list("é".encode() + b"c")}, id="an id begins inside a character"),
    ],
)
def test_inconsistent_arrays_are_invalid(change: dict[str, Any]) -> None:
    types = {"text": np.uint8, "starts": np.int64, "order": np.int32}
    arrays = {name: np.array(values, dtype=types[name]) for name, values in change.items()}
    assert not replace(Vocabulary.of(["a", "b", "c"]), **arrays).is_valid
