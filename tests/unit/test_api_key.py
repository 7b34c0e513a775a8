"""API keys: their form, that a typo is seen without a look-up, that the secret shows nowhere by accident."""

from __future__ import annotations

import hashlib
import io
import logging
import math
import re
import string
import traceback

import pytest

from recsys.errors import InvalidApiKey
from recsys.keys.api_key import ApiKey, claim_token_sha256, new_claim_token

BASE62 = string.digits + string.ascii_letters
FORM = re.compile(r"rk_[0-9A-Za-z]{12}_[0-9A-Za-z]{34}")
KNOWN = ApiKey("shop12345678", "0123456789ABCDEFGHIJabcdefgh")


def test_a_minted_key_has_the_documented_form() -> None:
    assert FORM.fullmatch(str(ApiKey.mint()))


def test_minted_keys_differ_in_every_part() -> None:
    keys = [ApiKey.mint() for _ in range(200)]
    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == 200


def test_the_secret_holds_160_bits_and_more() -> None:
    secret = ApiKey.mint().secret
    assert set(secret) <= set(BASE62)
    assert len(secret) * math.log2(62) >= 160


def test_a_new_secret_can_be_minted_for_a_key() -> None:
    first, second = ApiKey.mint("shop12345678"), ApiKey.mint("shop12345678")
    assert first.key_id == second.key_id == "shop12345678"
    assert first.secret != second.secret


def test_a_key_reads_back_as_it_was_written() -> None:
    minted = ApiKey.mint()
    assert ApiKey.parse(str(minted)) == minted


def test_the_checksum_of_a_known_key_never_changes() -> None:
    # CRC-32 (polynomial 0xEDB88320, bit by bit) of all before it is 2321229477: in base62 2X5dp7.
    assert str(KNOWN) == "rk_shop12345678_0123456789ABCDEFGHIJabcdefgh" + "2X5dp7"


def test_every_change_of_one_character_is_a_typo_that_needs_no_look_up() -> None:
    text = str(KNOWN)
    for place in range(len(text)):
        for character in BASE62 + "_- é":
            if character != text[place]:
                with pytest.raises(InvalidApiKey):
                    ApiKey.parse(text[:place] + character + text[place + 1 :])


def test_neighbours_that_changed_places_are_a_typo() -> None:
    text = str(KNOWN)
    for place in range(len(text) - 1):
        if text[place] != text[place + 1]:
            with pytest.raises(InvalidApiKey):
                ApiKey.parse(text[:place] + text[place + 1] + text[place] + text[place + 2 :])


@pytest.mark.parametrize("text", [None, ""])
def test_no_key_is_said_to_be_none(text: str | None) -> None:
    with pytest.raises(InvalidApiKey, match="No API key was sent"):
        ApiKey.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        str(KNOWN)[:-1],
        str(KNOWN) + "0",
        str(KNOWN) + "\n",
        " " + str(KNOWN),
        str(KNOWN).upper(),
        str(KNOWN).replace("rk_", "sk_"),
        str(KNOWN).replace("_", "-"),
        "rk__" + KNOWN.secret,
        "rk_",
        "x" * 100_000,
        "\x00",
    ],
    ids=["short", "long", "line-break", "blank", "upper", "prefix", "dashes", "no-id", "bare", "huge", "nul"],
)
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidApiKey, match="not complete"):
        ApiKey.parse(text)


def test_the_same_parts_give_the_same_key() -> None:
    assert str(ApiKey.derive("anonymous", "k1", "abc")) == str(ApiKey.derive("anonymous", "k1", "abc"))
    assert ApiKey.parse(str(ApiKey.derive("anonymous", "k1", "abc"))) == ApiKey.derive("anonymous", "k1", "abc")


def test_other_parts_give_another_key() -> None:
    parts = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("", "a", "b"), ("a", "c")]
    keys = [ApiKey.derive(*each) for each in parts]
    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == len(parts)


def test_what_is_stored_is_the_sha256_of_the_secret() -> None:
    assert KNOWN.sha256() == hashlib.sha256(b"0123456789ABCDEFGHIJabcdefgh").hexdigest()
    assert KNOWN.matches(KNOWN.sha256())
    assert not KNOWN.matches(ApiKey.mint(KNOWN.key_id).sha256())
    assert not KNOWN.matches("")


def test_repr_log_lines_and_tracebacks_hide_the_secret() -> None:
    api_key = ApiKey.mint()
    stream = io.StringIO()
    logger = logging.getLogger("test_api_key")
    logger.addHandler(logging.StreamHandler(stream))
    try:
        logger.warning("%r %s", api_key, [api_key])
        raise RuntimeError(f"{[api_key]} {api_key!r}")
    except RuntimeError:
        shown = stream.getvalue() + traceback.format_exc()
    assert api_key.key_id in shown
    assert api_key.secret not in shown


def test_refusals_do_not_quote_what_was_sent() -> None:
    api_key = ApiKey.mint()
    for text in (str(api_key)[:-1], str(api_key)[:-1] + "!", str(api_key) + "x"):
        with pytest.raises(InvalidApiKey) as caught:
            ApiKey.parse(text)
        said = "".join(traceback.format_exception(caught.value)) + str(caught.value.to_problem().to_json())
        assert api_key.secret not in said


def test_claim_tokens_differ_and_only_their_hash_is_stored() -> None:
    tokens = {new_claim_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"ct_[\w-]{43}", token) for token in tokens)
    assert claim_token_sha256("ct_abc") == hashlib.sha256(b"ct_abc").hexdigest()
