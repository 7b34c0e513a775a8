"""Base62 identifiers: random ones differ, derived ones depend on their parts only."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.keys.base62 import (
    derived_base62,
    encode_base62,
    job_id_of_object,
    job_id_of_request,
    new_job_id,
    new_key_id,
    random_base62,
)

DIGITS = string.digits + string.ascii_uppercase + string.ascii_lowercase
PARTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=8), max_size=4)


def decode_base62(text: str) -> int:
    number = 0
    for digit in text:
        number = number * 62 + DIGITS.index(digit)
    return number


@pytest.mark.parametrize(
    ("number", "length", "text"),
    [(0, 1, "0"), (0, 4, "0000"), (61, 1, "z"), (62, 2, "10"), (3843, 2, "zz"), (3844, 2, "00"), (3844, 3, "100")],
)
def test_known_numbers_are_encoded(number: int, length: int, text: str) -> None:
    assert encode_base62(number, length) == text


@given(st.integers(0, 62**10 - 1))
def test_encoded_number_can_be_decoded(number: int) -> None:
    assert decode_base62(encode_base62(number, 10)) == number


@given(st.integers(0, 2**256), st.integers(1, 30))
def test_last_digits_are_kept(number: int, length: int) -> None:
    text = encode_base62(number, length)
    assert len(text) == length
    assert decode_base62(text) == number % 62**length


@given(PARTS, PARTS)
def test_derived_identifiers_are_equal_if_and_only_if_the_parts_are(first: list[str], second: list[str]) -> None:
    assert (derived_base62(22, *first) == derived_base62(22, *second)) == (first == second)


def test_parts_are_not_concatenated() -> None:
    assert len({derived_base62(22, *parts) for parts in [("ab", "c"), ("a", "bc"), ("abc",), ("abc", "")]}) == 4


def test_derived_identifier_is_stable() -> None:
    # sha256(be64(1) + b"a" + be64(1) + b"b"), last 22 base62 digits, by an independent script.
    assert derived_base62(22, "a", "b") == "FxSYI0px5GsptIDadujgtj"


def test_random_identifiers_have_length_and_alphabet_and_differ() -> None:
    assert {len(new_job_id()), len(new_key_id()), len(random_base62(40))} == {22, 12, 40}
    assert len({new_job_id() for _ in range(1000)}) == 1000
    assert set("".join(new_key_id() for _ in range(1000))) == set(DIGITS)


def test_repeated_event_is_the_same_job_and_a_new_write_another() -> None:
    assert job_id_of_object("inbox/a.csv", "v1") == job_id_of_object("inbox/a.csv", "v1")
    others = {job_id_of_object("inbox/a.csv", "v1"), job_id_of_object("inbox/a.csv", "v2")}
    others |= {job_id_of_object("inbox/b.csv", "v1"), job_id_of_request("inbox/a.csv", "v1")}
    assert len(others) == 4


def test_idempotency_keys_of_two_principals_are_independent() -> None:
    assert job_id_of_request("key1", "retry-1") == job_id_of_request("key1", "retry-1")
    assert job_id_of_request("key1", "retry-1") != job_id_of_request("key2", "retry-1")
