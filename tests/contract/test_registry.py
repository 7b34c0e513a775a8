"""Contract of the registry: keys and claim tokens, on every adapter."""

from __future__ import annotations

import pytest

from recsys.clock import Timestamp
from recsys.errors import Gone, JobNotFound, KeyExists, KeyNotFound, VersionNotFound
from recsys.registry.registry import Registry
from tests.contract.conftest import FixedClock
from tests.contract.records import DAY_BEFORE, FULL_KEY, HOUR_LATER, MINUTE_LATER, NOW, a_key

TOKEN = "e" * 64
SECRET = "f" * 64


def test_every_field_of_a_key_reads_back(registry: Registry) -> None:
    registry.create_key(FULL_KEY)
    assert registry.get_key("fullKey") == FULL_KEY


def test_a_key_without_optional_fields_reads_back(registry: Registry) -> None:
    registry.create_key(a_key(secret_sha256=None))
    key = registry.get_key("key1")
    assert key == a_key(secret_sha256=None)
    assert (key.revision, key.secret_sha256, key.current_version, key.expires_at) == (0, None, None, None)


def test_a_key_id_can_be_created_only_once(registry: Registry) -> None:
    registry.create_key(a_key())
    with pytest.raises(KeyExists, match="key1"):
        registry.create_key(a_key(secret_sha256=SECRET))
    assert registry.get_key("key1") == a_key()


@pytest.mark.parametrize("key_id", ["unknown", "", "k" * 3000, "KEY", "ü ñ/#?"])
def test_an_unknown_key_is_not_found(registry: Registry, key_id: str) -> None:
    registry.create_key(a_key())
    with pytest.raises(KeyNotFound):
        registry.get_key(key_id)
    with pytest.raises(KeyNotFound):
        registry.rotate_key(key_id, SECRET, overlap_s=0)
    with pytest.raises(KeyNotFound):
        registry.revoke_key(key_id)
    with pytest.raises(KeyNotFound):
        registry.activate_version(key_id, "v")
    with pytest.raises(JobNotFound):
        registry.get_job(key_id)
    assert registry.list_versions(key_id) == []


def test_an_unknown_version_of_any_length_is_not_found(registry: Registry) -> None:
    registry.create_key(a_key())
    for version in ["nothing", "v" * 2000]:
        with pytest.raises(VersionNotFound):
            registry.activate_version("key1", version)


def test_an_expired_key_is_not_found(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key(expires_at=HOUR_LATER))
    clock.advance(3599.999999)
    assert registry.get_key("key1").expires_at == HOUR_LATER
    clock.advance(0.000001)
    assert clock.now == HOUR_LATER
    with pytest.raises(KeyNotFound):
        registry.get_key("key1")
    with pytest.raises(KeyNotFound):
        registry.rotate_key("key1", SECRET, overlap_s=0)
    with pytest.raises(KeyNotFound):
        registry.revoke_key("key1")


def test_an_expired_key_can_be_created_again(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key(expires_at=HOUR_LATER, revision=5))
    clock.advance(3600)
    registry.create_key(a_key(secret_sha256=SECRET))
    assert registry.get_key("key1") == a_key(secret_sha256=SECRET)


# -- rotating and revoking


def test_rotation_keeps_the_previous_secret_for_the_overlap(registry: Registry) -> None:
    registry.create_key(a_key(revision=3, expires_at=HOUR_LATER))
    rotated = registry.rotate_key("key1", SECRET, overlap_s=90.5)
    assert rotated == a_key(
        revision=4,
        expires_at=HOUR_LATER,
        secret_sha256=SECRET,
        previous_sha256="1" * 64,
        previous_expires_at=Timestamp("2026-03-01T12:01:30.500000Z"),
    )
    assert registry.get_key("key1") == rotated


def test_rotating_twice_keeps_only_the_last_previous_secret(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.rotate_key("key1", "2" * 64, overlap_s=60)
    rotated = registry.rotate_key("key1", "3" * 64, overlap_s=0)
    assert (rotated.secret_sha256, rotated.previous_sha256) == ("3" * 64, "2" * 64)
    assert rotated.previous_expires_at == NOW
    assert rotated.revision == 2


def test_a_revoked_key_can_be_read_but_not_changed(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.revoke_key("key1")
    assert registry.get_key("key1") == a_key(revision=1, revoked_at=NOW)
    with pytest.raises(KeyNotFound):
        registry.rotate_key("key1", SECRET, overlap_s=0)
    with pytest.raises(KeyNotFound):
        registry.activate_version("key1", "v")
    with pytest.raises(KeyExists):
        registry.create_key(a_key())
    assert registry.get_key("key1") == a_key(revision=1, revoked_at=NOW)


def test_revoking_twice_has_no_further_effect(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    registry.revoke_key("key1")
    clock.advance(60)
    registry.revoke_key("key1")
    assert registry.get_key("key1") == a_key(revision=1, revoked_at=NOW)


# -- claiming the key of a drop


def test_a_claim_token_sets_the_first_secret(registry: Registry) -> None:
    registry.create_key(a_key(secret_sha256=None, expires_at=HOUR_LATER))
    registry.offer_claim(TOKEN, "key1", expires_at=HOUR_LATER)
    claimed = registry.claim_key(TOKEN, SECRET)
    assert claimed == a_key(secret_sha256=SECRET, revision=1, expires_at=HOUR_LATER)
    assert registry.get_key("key1") == claimed


def test_a_claim_token_works_once(registry: Registry) -> None:
    registry.create_key(a_key(secret_sha256=None))
    registry.offer_claim(TOKEN, "key1", expires_at=HOUR_LATER)
    first = registry.claim_key(TOKEN, SECRET)
    with pytest.raises(Gone):
        registry.claim_key(TOKEN, "9" * 64)
    assert registry.get_key("key1") == first


def test_a_used_token_stays_invalid_if_its_key_is_created_again(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key(secret_sha256=None, expires_at=MINUTE_LATER))
    registry.offer_claim(TOKEN, "key1", expires_at=HOUR_LATER)
    registry.claim_key(TOKEN, SECRET)
    clock.advance(60)
    registry.create_key(a_key(secret_sha256=None))
    with pytest.raises(Gone):
        registry.claim_key(TOKEN, "9" * 64)


def test_only_one_of_two_tokens_for_a_key_works(registry: Registry) -> None:
    registry.create_key(a_key(secret_sha256=None))
    registry.offer_claim(TOKEN, "key1", expires_at=HOUR_LATER)
    registry.offer_claim("0" * 64, "key1", expires_at=HOUR_LATER)
    first = registry.claim_key("0" * 64, SECRET)
    with pytest.raises(Gone):
        registry.claim_key(TOKEN, "9" * 64)
    assert registry.get_key("key1") == first


def test_an_unknown_token_is_gone(registry: Registry) -> None:
    registry.create_key(a_key(secret_sha256=None))
    with pytest.raises(Gone):
        registry.claim_key(TOKEN, SECRET)
    assert registry.get_key("key1").secret_sha256 is None


def test_a_token_works_until_it_expires(registry: Registry, clock: FixedClock) -> None:
    for key_id, token in [("key1", TOKEN), ("key2", "0" * 64)]:
        registry.create_key(a_key(key_id, secret_sha256=None))
        registry.offer_claim(token, key_id, expires_at=HOUR_LATER)
    clock.advance(3599.999999)
    assert registry.claim_key(TOKEN, SECRET).secret_sha256 == SECRET
    clock.advance(0.000001)
    with pytest.raises(Gone):
        registry.claim_key("0" * 64, SECRET)
    assert registry.get_key("key2").secret_sha256 is None


def test_a_token_can_be_offered_again(registry: Registry) -> None:
    registry.create_key(a_key(secret_sha256=None))
    registry.offer_claim(TOKEN, "key1", expires_at=DAY_BEFORE)
    registry.offer_claim(TOKEN, "key1", expires_at=HOUR_LATER)
    assert registry.claim_key(TOKEN, SECRET).secret_sha256 == SECRET


def test_a_token_of_a_key_that_cannot_be_claimed_is_gone(registry: Registry) -> None:
    registry.create_key(a_key("taken"))
    registry.create_key(a_key("revoked", secret_sha256=None))
    registry.revoke_key("revoked")
    registry.create_key(a_key("expired", secret_sha256=None, expires_at=NOW))
    for key_id in ["taken", "revoked", "expired", "never"]:
        registry.offer_claim(f"token of {key_id}", key_id, expires_at=HOUR_LATER)
        with pytest.raises(Gone):
            registry.claim_key(f"token of {key_id}", SECRET)
    assert registry.get_key("taken").secret_sha256 == "1" * 64
    assert registry.get_key("revoked").secret_sha256 is None
