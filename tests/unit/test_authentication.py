"""From the text of a header to a record that may act: what works, for how long, and what is said when it does not."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from recsys.clock import Timestamp, after
from recsys.errors import InvalidApiKey, ModelNotReady, Unavailable
from recsys.keys.api_key import ApiKey
from recsys.keys.authentication import Authenticator, current_version
from recsys.registry.records import Job, KeyRecord, ModelVersion
from recsys.registry.sqlite import SqliteRegistry

START = Timestamp("2026-03-01T12:00:00.000000Z")
CACHE_S = 4.0


@dataclass
class Time:
    """The calendar and the stop-watch, moved together by hand."""

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
def asking(registry: SqliteRegistry, time: Time) -> Authenticator:
    """Asks the registry every time."""
    return Authenticator(registry, clock=time.now, timer=time.seconds)


@pytest.fixture
def caching(registry: SqliteRegistry, time: Time) -> Authenticator:
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


def test_a_key_gives_its_record(registry: SqliteRegistry, asking: Authenticator) -> None:
    api_key = add_key(registry)
    add_key(registry)
    assert asking.authenticate(str(api_key)).key_id == api_key.key_id


def test_unknown_wrong_and_revoked_keys_get_the_same_answer(registry: SqliteRegistry, asking: Authenticator) -> None:
    revoked, known = add_key(registry), add_key(registry)
    registry.revoke_key(revoked.key_id)
    said = set()
    for api_key in (ApiKey.mint(), ApiKey.mint(known.key_id), revoked):
        with pytest.raises(InvalidApiKey) as caught:
            asking.authenticate(str(api_key))
        said.add((str(caught.value), caught.value.hint, caught.value.problem_code))
        assert api_key.secret not in "".join(traceback.format_exception(caught.value))
    assert len(said) == 1


def test_a_typo_is_refused_without_asking_the_registry(tmp_path: Path) -> None:
    class Silent(SqliteRegistry):
        def get_key(self, key_id: str) -> KeyRecord:
            raise AssertionError(f"asked for {key_id}")

    registry = Silent(tmp_path / "silent.sqlite3")
    for header in (None, "", "nonsense", str(ApiKey.mint())[:-1]):
        with pytest.raises(InvalidApiKey):
            Authenticator(registry).authenticate(header)
    registry.close()


def test_a_key_that_expired_before_its_first_model_is_refused(
    registry: SqliteRegistry, asking: Authenticator, time: Time
) -> None:
    api_key = add_key(registry, expires_at=after(START, 10))
    time.passed_s = 9.999
    asking.authenticate(str(api_key))
    time.passed_s = 10
    with pytest.raises(InvalidApiKey):
        asking.authenticate(str(api_key))


def test_a_key_that_was_never_claimed_lets_nobody_in(registry: SqliteRegistry, asking: Authenticator) -> None:
    registry.create_key(KeyRecord("unclaimed123", START))
    with pytest.raises(InvalidApiKey):
        asking.authenticate(str(ApiKey.mint("unclaimed123")))


def test_after_a_rotation_both_secrets_work_until_the_overlap_ends(
    registry: SqliteRegistry, asking: Authenticator, time: Time
) -> None:
    old = add_key(registry)
    new = ApiKey.mint(old.key_id)
    registry.rotate_key(old.key_id, new.sha256(), overlap_s=60)
    for passed_s in (0, 59.999):
        time.passed_s = passed_s
        assert asking.authenticate(str(old)) == asking.authenticate(str(new))
    time.passed_s = 60
    assert asking.authenticate(str(new)).key_id == old.key_id
    with pytest.raises(InvalidApiKey):
        asking.authenticate(str(old))


def test_where_the_current_secret_is_required_a_rotated_out_one_is_refused(
    registry: SqliteRegistry, asking: Authenticator
) -> None:
    old = add_key(registry)
    assert asking.authenticate(str(old), require_current=True).key_id == old.key_id
    new = ApiKey.mint(old.key_id)
    registry.rotate_key(old.key_id, new.sha256(), overlap_s=60)

    with pytest.raises(InvalidApiKey) as caught:
        asking.authenticate(str(old), require_current=True)

    assert "Send the new key" in str(caught.value.hint)
    assert asking.authenticate(str(new), require_current=True).key_id == old.key_id


def test_a_cached_record_does_not_stretch_the_overlap(
    registry: SqliteRegistry, caching: Authenticator, time: Time
) -> None:
    old = add_key_with_model(registry)
    registry.rotate_key(old.key_id, ApiKey.mint(old.key_id).sha256(), overlap_s=1)
    caching.authenticate(str(old))
    time.passed_s = 1
    with pytest.raises(InvalidApiKey):
        caching.authenticate(str(old))


def test_a_revoked_key_works_no_longer_than_the_cache_trusts_its_record(
    registry: SqliteRegistry, caching: Authenticator, time: Time
) -> None:
    api_key = add_key_with_model(registry)
    caching.authenticate(str(api_key))
    registry.revoke_key(api_key.key_id)
    time.passed_s = CACHE_S - 0.001
    caching.authenticate(str(api_key))  # this look must not renew the trust
    time.passed_s = CACHE_S
    with pytest.raises(InvalidApiKey):
        caching.authenticate(str(api_key))


def test_without_a_cache_a_revocation_works_at_once(registry: SqliteRegistry, asking: Authenticator) -> None:
    api_key = add_key_with_model(registry)
    asking.authenticate(str(api_key))
    registry.revoke_key(api_key.key_id)
    with pytest.raises(InvalidApiKey):
        asking.authenticate(str(api_key))


def test_a_cached_record_answers_while_the_registry_does_not(
    registry: SqliteRegistry, caching: Authenticator, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    api_key = add_key_with_model(registry)
    caching.authenticate(str(api_key))

    def silent(_key_id: str) -> KeyRecord:
        raise Unavailable("The registry did not answer.")

    monkeypatch.setattr(registry, "get_key", silent)
    assert caching.authenticate(str(api_key)).key_id == api_key.key_id
    time.passed_s = CACHE_S
    with pytest.raises(Unavailable):
        caching.authenticate(str(api_key))


def test_a_cached_record_opens_for_its_own_secret_only(registry: SqliteRegistry, caching: Authenticator) -> None:
    api_key = add_key_with_model(registry)
    caching.authenticate(str(api_key))
    with pytest.raises(InvalidApiKey):
        caching.authenticate(str(ApiKey.mint(api_key.key_id)))
    assert caching.authenticate(str(api_key)).key_id == api_key.key_id


def test_a_new_secret_works_at_once_although_the_old_record_is_cached(
    registry: SqliteRegistry, caching: Authenticator
) -> None:
    api_key = add_key_with_model(registry)
    caching.authenticate(str(api_key))
    new = ApiKey.mint(api_key.key_id)
    registry.rotate_key(api_key.key_id, new.sha256(), overlap_s=0)
    assert caching.authenticate(str(new)).secret_sha256 == new.sha256()


def test_a_first_model_is_seen_at_once(registry: SqliteRegistry, caching: Authenticator) -> None:
    api_key = add_key(registry)
    assert caching.authenticate(str(api_key)).current_version is None
    publish(registry, api_key.key_id)
    assert caching.authenticate(str(api_key)).current_version == "job1.1"


def test_a_next_model_is_seen_when_the_cache_forgets(
    registry: SqliteRegistry, caching: Authenticator, time: Time
) -> None:
    api_key = add_key_with_model(registry)
    caching.authenticate(str(api_key))
    publish(registry, api_key.key_id, "job2")
    assert caching.authenticate(str(api_key)).current_version == "job1.1"
    time.passed_s = CACHE_S
    assert caching.authenticate(str(api_key)).current_version == "job2.1"


def test_the_current_version_is_named_with_its_manifest(registry: SqliteRegistry, asking: Authenticator) -> None:
    record = asking.authenticate(str(add_key_with_model(registry)))
    assert current_version(record) == ("job1.1", "d" * 64)


def test_a_key_without_a_model_is_not_ready_and_says_when_to_ask_again() -> None:
    record = KeyRecord("shop12345678", START)
    for each in (record, replace(record, current_version="job1.1")):
        with pytest.raises(ModelNotReady) as caught:
            current_version(each)
        assert caught.value.retry_after_s == 5
