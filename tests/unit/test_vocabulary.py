"""Vocabulary as arrays: what a dict of them would say."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.model.vocabulary import Vocabulary

ODD = ["007", "7", "NA", "", "日本", "é", "e\u0301", "\x00", "a\tb", " ", "💡" * 100]
TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@given(ids=st.lists(TEXT, unique=True), others=st.lists(TEXT))
def test_an_id_is_found_at_its_place_and_others_nowhere(ids: list[str], others: list[str]) -> None:
    found = Vocabulary.of(ids)
    rows = {each: row for row, each in enumerate(ids)}
    assert [found.find(each) for each in ids + others] == [rows.get(each) for each in ids + others]
    assert list(found) == ids
    assert len(found) == len(ids)
    assert found.is_sound


@pytest.mark.parametrize("wanted", ODD)
def test_ids_are_compared_character_for_character(wanted: str) -> None:
    assert Vocabulary.of(ODD).find(wanted) == ODD.index(wanted)
    assert Vocabulary.of([each for each in ODD if each != wanted]).find(wanted) is None
    assert wanted in Vocabulary.of(ODD)


def test_what_is_no_text_is_no_id() -> None:
    ids = Vocabulary.of(ODD)
    assert ids.find("\ud800") is None
    assert 7 not in ids


def test_rows_are_counted_as_in_a_list() -> None:
    ids = Vocabulary.of(["a", "b", "c"])
    assert (ids[0], ids[-1], ids[1:], ids.index("b")) == ("a", "c", ["b", "c"], 1)
    with pytest.raises(IndexError):
        ids[3]


def test_the_ids_of_some_rows_come_in_their_order() -> None:
    rows = np.array([10, 0, 4, 0, 3])
    assert Vocabulary.of(ODD).at(rows) == [ODD[row] for row in rows]
    assert Vocabulary.of(ODD).at(rows[:0]) == []


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"starts": [0, 2, 1, 3]}, id="an id ends before it begins"),
        pytest.param({"starts": [0, 1, 2, 4]}, id="past the end"),
        pytest.param({"starts": [1, 1, 2, 3]}, id="text before the first"),
        pytest.param({"starts": []}, id="no starts"),
        pytest.param({"order": [0, 1, 3]}, id="a row that is none"),
        pytest.param({"order": [0, -1, 2]}, id="a negative row"),
        pytest.param({"order": [0, 1]}, id="a row too few"),
        pytest.param({"text": list(b"a\xffc")}, id="no UTF-8"),
        pytest.param({"text": list("é".encode() + b"c")}, id="an id begins inside a character"),
    ],
)
def test_arrays_that_name_no_ids_are_noticed(change: dict[str, Any]) -> None:
    types = {"text": np.uint8, "starts": np.int64, "order": np.int32}
    arrays = {name: np.array(values, dtype=types[name]) for name, values in change.items()}
    assert not replace(Vocabulary.of(["a", "b", "c"]), **arrays).is_sound
