"""Ids of all lengths are numbered in order of first appearance."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys_train.data.fields import Column
from recsys_train.data.vocabulary_builder import VocabularyBuilder

ID = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=10)


@settings(deadline=None)
@given(calls=st.lists(st.lists(st.lists(ID, min_size=1), max_size=3), max_size=3), data=st.data())
def test_ids_get_the_indices_of_their_first_appearance(calls: list[list[list[str]]], data: st.DataObject) -> None:
    builder = VocabularyBuilder()
    numbers: dict[str, int] = {}
    for chunks in calls:
        for ids in chunks:
            column = Column(pa.array([text.encode() for text in ids], pa.binary()))
            if data.draw(st.booleans()):
                column.encode()
            builder.add(column)
        expected = [[numbers.setdefault(text, len(numbers)) for text in ids] for ids in chunks]
        assert [indices.tolist() for indices in builder.indices()] == expected
    assert builder.ids() == list(numbers)


@pytest.mark.parametrize("last", ["12345678", "123456789", "1234\x005678", "1\0"])
def test_an_id_of_any_length_differs_from_its_beginning(last: str) -> None:
    builder = VocabularyBuilder()
    builder.add(Column(pa.array([b"ignored", b"1", b"12345678"], pa.binary()).slice(1)))
    builder.add(Column(pa.array([b"1234", last.encode()], pa.binary())))
    first, second = builder.indices()
    assert (first.tolist(), second.tolist()) == ([0, 1], [2, 1 if last == "12345678" else 3])
    assert builder.ids()[-1] == ("1234" if last == "12345678" else last)


def test_short_ids_are_numbered_in_blocks() -> None:
    texts = [str(number) for number in np.random.default_rng(0).integers(0, 50_000, 150_000)]
    builder = VocabularyBuilder()
    builder.add(Column(pa.array(texts).cast(pa.binary())))
    (indices,) = builder.indices()
    ids = builder.ids()
    assert [ids[index] for index in indices.tolist()] == texts
    assert ids == list(dict.fromkeys(texts))
