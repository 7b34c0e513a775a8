"""API keys: format, detection of typos without a lookup, and no accidental disclosure of the secret."""

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
FORMAT = re.compile(r"rk_[0-9A-Za-z]{12}_[0-9A-Za-z]{34}")
KNOWN = ApiKey("shop12345678", "0123456789ABCDEFGHIJabcdefgh")


def test_minted_key_has_the_documented_format() -> None:
    assert FORMAT.fullmatch(str(ApiKey.mint()))


def test_minted_keys_differ_in_id_and_secret() -> None:
    keys = [ApiKey.mint() for _ in range(200)]
    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == 200


def test_secret_has_at_least_160_bits() -> None:
    secret = ApiKey.mint().secret
    assert set(secret) <= set(BASE62)
    assert len(secret) * math.log2(62) >= 160


def test_new_secret_can_be_minted_for_an_existing_key() -> None:
    first, second = ApiKey.mint("shop12345678"), ApiKey.mint("shop12345678")
    assert first.key_id == second.key_id == "shop12345678"
    assert first.secret != second.secret


def test_parse_is_the_inverse_of_str() -> None:
    minted = ApiKey.mint()
    assert ApiKey.parse(str(minted)) == minted


def test_checksum_of_a_known_key_is_stable() -> None:
    # By an independent script: the CRC-32 (polynomial 0xEDB88320) of the preceding text is 2321229477, base62 2X5dp7.
    assert str(KNOWN) == "rk_shop12345678_0123456789ABCDEFGHIJabcdefgh" + "2X5dp7"


def test_every_change_of_one_character_is_detected() -> None:
    text = str(KNOWN)
    for position in range(len(text)):
        for character in BASE62 + "_- é":
            if character != text[position]:
                with pytest.raises(InvalidApiKey):
                    ApiKey.parse(text[:position] + character + text[position + 1 :])


def test_swapped_neighbours_are_detected() -> None:
    text = str(KNOWN)
    for position in range(len(text) - 1):
        first, second = text[position], text[position + 1]
        if first != second:
            with pytest.raises(InvalidApiKey):
                ApiKey.parse(text[:position] + second + first + text[position + 2 :])


@pytest.mark.parametrize("text", [None, ""])
def test_missing_key_is_reported_as_missing(text: str | None) -> None:
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
def test_malformed_key_is_rejected(text: str) -> None:
    with pytest.raises(InvalidApiKey, match="does not have the expected format"):
        ApiKey.parse(text)


def test_equal_parts_derive_equal_keys() -> None:
    assert str(ApiKey.derive("anonymous", "k1", "abc")) == str(ApiKey.derive("anonymous", "k1", "abc"))
    assert ApiKey.parse(str(ApiKey.derive("anonymous", "k1", "abc"))) == ApiKey.derive("anonymous", "k1", "abc")


def test_different_parts_derive_different_keys() -> None:
    parts = [("a", "b"), ("b", "a"), ("ab",), ("a", "b", ""), ("", "a", "b"), ("a", "c")]
    keys = [ApiKey.derive(*each) for each in parts]
    assert len({key.key_id for key in keys}) == len({key.secret for key in keys}) == len(parts)


def test_digest_is_the_sha256_of_the_secret() -> None:
    assert KNOWN.sha256() == hashlib.sha256(b"0123456789ABCDEFGHIJabcdefgh").hexdigest()
    assert KNOWN.matches(KNOWN.sha256())
    assert not KNOWN.matches(ApiKey.mint(KNOWN.key_id).sha256())
    assert not KNOWN.matches("")


def test_repr_logs_and_tracebacks_hide_the_secret() -> None:
    api_key = ApiKey.mint()
    stream = io.StringIO()
    logger = logging.getLogger("test_api_key")
    logger.addHandler(logging.StreamHandler(stream))
    try:
        logger.warning("%r %s", api_key, [api_key])
        raise RuntimeError(f"{[api_key]} {api_key!r}")
    except RuntimeError:
        output = stream.getvalue() + traceback.format_exc()
    assert api_key.key_id in output
    assert api_key.secret not in output


def test_errors_do_not_quote_the_received_key() -> None:
    api_key = ApiKey.mint()
    for text in (str(api_key)[:-1], str(api_key)[:-1] + "!", str(api_key) + "x"):
        with pytest.raises(InvalidApiKey) as caught:
            ApiKey.parse(text)
        reported = "".join(traceback.format_exception(caught.value)) + str(caught.value.to_problem().to_json())
        assert api_key.secret not in reported


def test_claim_tokens_are_unique_and_hashed() -> None:
    tokens = {new_claim_token() for _ in range(100)}
    assert len(tokens) == 100
    assert all(re.fullmatch(r"ct_[\w-]{43}", token) for token in tokens)
    assert claim_token_sha256("ct_abc") == hashlib.sha256(b"ct_abc").hexdigest()
