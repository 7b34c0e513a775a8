"""Authentication: which keys are valid, for how long, and the errors of invalid ones."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from recsys.clock import Timestamp, after
from recsys.errors import InvalidApiKey, ModelNotReady, Unavailable
from recsys.keys.api_key import ApiKey
from recsys.keys.authentication import Authenticator, ModelName, current_model
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, ModelVersion
from recsys.registry.sqlite import SqliteRegistry

START = Timestamp("2026-03-01T12:00:00.000000Z")
CACHE_S = 4.0


@dataclass
class Time:
    """A clock and a timer that only advance when a test moves them."""

    passed_s: float = 0.0

    def now(self) -> Timestamp:
        return after(START, self.passed_s)

    def seconds(self) -> float:
        return self.passed_s


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def registry(tmp_path: Path, time: Time) -> Iterator[SqliteRegistry]:
    registry = SqliteRegistry(tmp_path / "registry.sqlite3", clock=time.now)
    yield registry
    registry.close()


@pytest.fixture
def uncached(registry: SqliteRegistry, time: Time) -> Authenticator:
    """An authenticator without a cache."""
    return Authenticator(registry, clock=time.now, timer=time.seconds)


@pytest.fixture
def cached(registry: SqliteRegistry, time: Time) -> Authenticator:
    return Authenticator(registry, cache_s=CACHE_S, clock=time.now, timer=time.seconds)


def add_key(registry: SqliteRegistry, *, expires_at: Timestamp | None = None) -> ApiKey:
    api_key = ApiKey.mint()
    registry.create_key(KeyRecord(api_key.key_id, START, secret_sha256=api_key.sha256(), expires_at=expires_at))
    return api_key


def publish(registry: SqliteRegistry, key_id: str, job_id: str = "job1") -> None:
    registry.create_job(Job(job_id, key_id, f"uploads/{job_id}.csv", START, START))
    lease = registry.claim_job(job_id, owner="worker", data_timestamp=f"{START}#{job_id}", lease_s=60)
    registry.publish_version(lease, ModelVersion(key_id, lease.version, job_id, START, "d" * 64, {}), {})


def add_key_with_model(registry: SqliteRegistry) -> ApiKey:
    api_key = add_key(registry)
    publish(registry, api_key.key_id)
    return api_key


def test_key_yields_its_record(registry: SqliteRegistry, uncached: Authenticator) -> None:
    api_key = add_key(registry)
    add_key(registry)
    assert uncached.authenticate(str(api_key)).key_id == api_key.key_id


def test_unknown_wrong_and_revoked_keys_get_the_same_error(registry: SqliteRegistry, uncached: Authenticator) -> None:
    revoked, known = add_key(registry), add_key(registry)
    registry.revoke_key(revoked.key_id)
    errors = set()
    for api_key in (ApiKey.mint(), ApiKey.mint(known.key_id), revoked):
        with pytest.raises(InvalidApiKey) as caught:
            uncached.authenticate(str(api_key))
        errors.add((str(caught.value), caught.value.hint, caught.value.problem_code))
        assert api_key.secret not in "".join(traceback.format_exception(caught.value))
    assert len(errors) == 1


def test_typo_is_detected_without_the_registry(tmp_path: Path) -> None:
    class UntouchedRegistry(SqliteRegistry):
        def get_key(self, key_id: str) -> KeyRecord:
            raise AssertionError(f"{key_id} was looked up.")

    registry = UntouchedRegistry(tmp_path / "registry.sqlite3")
    for header in (None, "", "nonsense", str(ApiKey.mint())[:-1]):
        with pytest.raises(InvalidApiKey):
            Authenticator(registry).authenticate(header)
    registry.close()


def test_key_that_expired_without_a_model_is_rejected(
    registry: SqliteRegistry, uncached: Authenticator, time: Time
) -> None:
    api_key = add_key(registry, expires_at=after(START, 10))
    time.passed_s = 9.999
    uncached.authenticate(str(api_key))
    time.passed_s = 10
    with pytest.raises(InvalidApiKey):
        uncached.authenticate(str(api_key))


def test_unclaimed_key_is_rejected(registry: SqliteRegistry, uncached: Authenticator) -> None:
    registry.create_key(KeyRecord("unclaimed123", START))
    with pytest.raises(InvalidApiKey):
        uncached.authenticate(str(ApiKey.mint("unclaimed123")))


def test_both_secrets_work_until_the_overlap_ends(
    registry: SqliteRegistry, uncached: Authenticator, time: Time
) -> None:
    old = add_key(registry)
    new = ApiKey.mint(old.key_id)
    registry.rotate_key(old.key_id, new.sha256(), overlap_s=60)
    for passed_s in (0, 59.999):
        time.passed_s = passed_s
        assert uncached.authenticate(str(old)) == uncached.authenticate(str(new))
    time.passed_s = 60
    assert uncached.authenticate(str(new)).key_id == old.key_id
    with pytest.raises(InvalidApiKey):
        uncached.authenticate(str(old))


def test_previous_secret_is_rejected_if_the_current_one_is_required(
    registry: SqliteRegistry, uncached: Authenticator
) -> None:
    old = add_key(registry)
    assert uncached.authenticate(str(old), require_current=True).key_id == old.key_id
    new = ApiKey.mint(old.key_id)
    registry.rotate_key(old.key_id, new.sha256(), overlap_s=60)

    with pytest.raises(InvalidApiKey) as caught:
        uncached.authenticate(str(old), require_current=True)

    assert "Send the new key" in str(caught.value.hint)
    assert uncached.authenticate(str(new), require_current=True).key_id == old.key_id


def test_cached_record_does_not_extend_the_overlap(registry: SqliteRegistry, cached: Authenticator, time: Time) -> None:
    old = add_key_with_model(registry)
    registry.rotate_key(old.key_id, ApiKey.mint(old.key_id).sha256(), overlap_s=1)
    cached.authenticate(str(old))
    time.passed_s = 1
    with pytest.raises(InvalidApiKey):
        cached.authenticate(str(old))


def test_revoked_key_works_until_its_cached_record_expires(
    registry: SqliteRegistry, cached: Authenticator, time: Time
) -> None:
    api_key = add_key_with_model(registry)
    cached.authenticate(str(api_key))
    registry.revoke_key(api_key.key_id)
    time.passed_s = CACHE_S - 0.001
    cached.authenticate(str(api_key))  # this lookup must not extend the record's lifetime
    time.passed_s = CACHE_S
    with pytest.raises(InvalidApiKey):
        cached.authenticate(str(api_key))


def test_revocation_is_immediate_without_a_cache(registry: SqliteRegistry, uncached: Authenticator) -> None:
    api_key = add_key_with_model(registry)
    uncached.authenticate(str(api_key))
    registry.revoke_key(api_key.key_id)
    with pytest.raises(InvalidApiKey):
        uncached.authenticate(str(api_key))


def test_cached_record_is_used_while_the_registry_is_unavailable(
    registry: SqliteRegistry, cached: Authenticator, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_key = add_key_with_model(registry)
    cached.authenticate(str(api_key))

    def fail(_key_id: str) -> KeyRecord:
        raise Unavailable("The registry did not answer.")

    monkeypatch.setattr(registry, "get_key", fail)
    assert cached.authenticate(str(api_key)).key_id == api_key.key_id
    time.passed_s = CACHE_S
    with pytest.raises(Unavailable):
        cached.authenticate(str(api_key))


def test_cached_record_rejects_a_wrong_secret(registry: SqliteRegistry, cached: Authenticator) -> None:
    api_key = add_key_with_model(registry)
    cached.authenticate(str(api_key))
    with pytest.raises(InvalidApiKey):
        cached.authenticate(str(ApiKey.mint(api_key.key_id)))
    assert cached.authenticate(str(api_key)).key_id == api_key.key_id


def test_new_secret_works_although_the_old_record_is_cached(registry: SqliteRegistry, cached: Authenticator) -> None:
    api_key = add_key_with_model(registry)
    cached.authenticate(str(api_key))
    new = ApiKey.mint(api_key.key_id)
    registry.rotate_key(api_key.key_id, new.sha256(), overlap_s=0)
    assert cached.authenticate(str(new)).secret_sha256 == new.sha256()


def test_record_without_a_model_is_not_cached(registry: SqliteRegistry, cached: Authenticator) -> None:
    api_key = add_key(registry)
    assert cached.authenticate(str(api_key)).current_version is None
    publish(registry, api_key.key_id)
    assert cached.authenticate(str(api_key)).current_version == "job1.1"


def test_new_version_is_seen_after_the_cached_record_expires(
    registry: SqliteRegistry, cached: Authenticator, time: Time
) -> None:
    api_key = add_key_with_model(registry)
    cached.authenticate(str(api_key))
    publish(registry, api_key.key_id, "job2")
    assert cached.authenticate(str(api_key)).current_version == "job1.1"
    time.passed_s = CACHE_S
    assert cached.authenticate(str(api_key)).current_version == "job2.1"


def test_current_model_has_key_version_and_manifest_digest(registry: SqliteRegistry, uncached: Authenticator) -> None:
    record = uncached.authenticate(str(add_key_with_model(registry)))
    assert current_model(record) == ModelName(record.key_id, version="job1.1", manifest_sha256="d" * 64)


def test_key_without_a_model_is_not_ready() -> None:
    record = KeyRecord("shop12345678", START)
    for each in (record, replace(record, current_version="job1.1")):
        with pytest.raises(ModelNotReady) as caught:
            current_model(each)
        assert caught.value.retry_after_s == 5
