"""Contract of the registry: versions that a file was added to, and erased users, on every adapter."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from recsys.clock import DAY_S, after
from recsys.errors import KeyNotFound, TooManyErasures, VersionNotFound
from recsys.registry import erasures
from recsys.registry.erasures import ERASED_WITHIN_DAYS, hidden_users
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import JobState, Lease
from recsys.registry.registry import Published, Registry
from tests.contract.conftest import Bench, FixedClock
from tests.contract.records import NOW, REPORT, a_job, a_key, a_version, claim
from tests.contract.test_registry_versions import InterruptedTable
from tests.racing import race


def started(registry: Registry, job_id: str, source: str, *, mode: str | None = "append") -> Lease:
    """Store a job of `key1` and claim it."""
    registry.create_job(a_job(job_id, options={"mode": mode} if mode else None))
    return claim(registry, job_id, source=source)


def publish(registry: Registry, lease: Lease, base: str | None = None, **fields: Any) -> Published:
    return registry.publish_version(lease, a_version(lease, base_version=base, **fields), REPORT)


def with_a_model(registry: Registry, **fields: Any) -> None:
    """Create `key1` and publish `first.1`."""
    registry.create_key(a_key())
    lease = started(registry, "first", "2026-03-01#a", mode=None)
    assert publish(registry, lease, **fields) is Published.CURRENT


# -- files that are added


def test_a_file_is_added_to_the_current_version(registry: Registry) -> None:
    with_a_model(registry)
    assert publish(registry, started(registry, "second", "2026-03-02#a"), "first.1") is Published.CURRENT
    key = registry.get_key("key1")
    assert (key.current_version, key.current_data_timestamp) == ("second.1", "2026-03-02#a")
    assert {version.base_version for version in registry.list_versions("key1")} == {None, "first.1"}


def test_the_first_file_can_be_one_that_is_added(registry: Registry) -> None:
    registry.create_key(a_key())
    assert publish(registry, started(registry, "first", "2026-03-02#a")) is Published.CURRENT
    assert publish(registry, started(registry, "older", "2026-03-01#a"), "first.1") is Published.CURRENT
    assert registry.get_key("key1").current_data_timestamp == "2026-03-02#a"


def test_nothing_is_published_on_a_base_that_is_no_longer_current(registry: Registry) -> None:
    with_a_model(registry)
    late = started(registry, "late", "2026-03-02#a")
    publish(registry, started(registry, "second", "2026-03-03#a"), "first.1")
    key = registry.get_key("key1")

    assert publish(registry, late, "first.1") is Published.OUTDATED_BASE

    assert registry.get_key("key1") == key
    assert registry.get_job("late").state is JobState.RUNNING
    registry.release_job(late)
    assert publish(registry, claim(registry, "late"), "second.1") is Published.CURRENT


def test_a_concurrent_publication_outdates_the_base(bench: Bench) -> None:
    with_a_model(bench.registry)
    one, two = (started(bench.registry, name, f"2026-03-02#{name}") for name in ("one", "two"))
    table = InterruptedTable(bench.table, lambda: publish(bench.registry, two, "first.1"))
    assert publish(bench.over(table), one, "first.1") is Published.OUTDATED_BASE
    assert bench.registry.get_key("key1").current_version == "two.1"


def test_of_many_files_on_one_base_exactly_one_is_published(atomic_bench: Bench) -> None:
    registry = atomic_bench.registry
    with_a_model(registry)
    leases = [started(registry, f"job{number}", f"2026-03-02#{number}") for number in range(8)]
    outcomes = race(*(partial(publish, registry, lease, "first.1") for lease in leases))
    assert sorted(map(str, outcomes)) == [Published.CURRENT, *[Published.OUTDATED_BASE] * 7]


def test_a_file_is_added_after_a_newer_one_but_not_after_a_newer_complete_one(registry: Registry) -> None:
    with_a_model(registry)
    older = started(registry, "older", "2026-03-02#a")
    publish(registry, started(registry, "newer", "2026-03-03#a"), "first.1")
    oldest = started(registry, "oldest", "2026-02-28#a")
    assert publish(registry, older, "newer.1") is Published.CURRENT
    assert publish(registry, oldest, "older.1") is Published.SUPERSEDED
    complete = started(registry, "complete", "2026-03-02#b", mode=None)
    assert publish(registry, complete) is Published.SUPERSEDED
    assert registry.get_key("key1").current_version == "older.1"


def test_a_file_that_arrived_before_an_activation_is_superseded(registry: Registry, clock: FixedClock) -> None:
    with_a_model(registry)
    publish(registry, started(registry, "second", "2026-03-01#b"), "first.1")
    waiting = started(registry, "waiting", "2026-03-01T11:00:00.000000Z#c")
    registry.activate_version("key1", "first.1")
    assert publish(registry, waiting, "first.1") is Published.SUPERSEDED
    later = started(registry, "later", f"{after(clock.now, 1)}#d")
    assert publish(registry, later, "first.1") is Published.CURRENT


def test_a_key_of_an_earlier_release_counts_all_its_data_as_complete(registry: Registry) -> None:
    registry.create_key(a_key(current_version="old.1", current_data_timestamp="2026-03-01#b"))
    assert publish(registry, started(registry, "a", "2026-03-01#a"), "old.1") is Published.SUPERSEDED
    assert publish(registry, started(registry, "c", "2026-03-01#c"), "old.1") is Published.CURRENT


# -- erased users


def is_hidden(key: KeyRecord, user_id: str) -> bool:
    hidden = hidden_users(key)
    return hidden is not None and user_id in hidden


def last_erasure(registry: Registry) -> int:
    return erasures.Erasures.parse(registry.get_key("key1").erasures).last


def test_an_erased_user_is_hidden_until_a_version_was_trained_without_it(registry: Registry) -> None:
    with_a_model(registry)
    assert not is_hidden(registry.get_key("key1"), "anna")
    registry.erase_user("key1", "anna")
    key = registry.get_key("key1")
    assert (is_hidden(key, "anna"), is_hidden(key, "ben")) == (True, False)
    publish(registry, started(registry, "late", "2026-03-02#a"), "first.1")
    assert is_hidden(registry.get_key("key1"), "anna")
    publish(registry, started(registry, "clean", "2026-03-02#b"), "late.1", erasures=last_erasure(registry))
    assert not is_hidden(registry.get_key("key1"), "anna")


def test_an_erased_user_is_hidden_again_in_an_older_version(registry: Registry) -> None:
    with_a_model(registry)
    registry.erase_user("key1", "anna")
    publish(registry, started(registry, "clean", "2026-03-02#b"), "first.1", erasures=last_erasure(registry))
    registry.activate_version("key1", "first.1")
    assert is_hidden(registry.get_key("key1"), "anna")


def test_the_registry_does_not_store_the_id_of_an_erased_user(bench: Bench) -> None:
    with_a_model(bench.registry)
    key = bench.registry.erase_user("key1", "anna@example.com")
    assert "anna" not in str(key.to_document())


def test_versions_that_contain_an_erased_user_are_marked(registry: Registry, clock: FixedClock) -> None:
    with_a_model(registry)
    registry.erase_user("key1", "anna")
    due = after(NOW, ERASED_WITHIN_DAYS * DAY_S)
    clock.advance(60)
    late = started(registry, "late", "2026-03-02#a")  # it had been read before the erasure
    publish(registry, late, "first.1")
    publish(registry, started(registry, "clean", "2026-03-02#b"), "late.1", erasures=last_erasure(registry))
    marks = {version.version: version.erase_by for version in registry.list_versions("key1")}
    assert marks == {"first.1": due, "late.1": due, "clean.1": None}
    registry.erase_user("key1", "ben")
    marks = {version.version: version.erase_by for version in registry.list_versions("key1")}
    assert marks == {"first.1": due, "late.1": due, "clean.1": after(due, 60)}


def test_a_version_that_must_be_deleted_cannot_be_activated(registry: Registry, clock: FixedClock) -> None:
    with_a_model(registry)
    registry.erase_user("key1", "anna")
    publish(registry, started(registry, "clean", "2026-03-02#b"), "first.1", erasures=last_erasure(registry))
    clock.advance(ERASED_WITHIN_DAYS * DAY_S - 1)
    assert registry.activate_version("key1", "first.1").current_version == "first.1"
    clock.advance(1)
    with pytest.raises(VersionNotFound, match="contains erased users"):
        registry.activate_version("key1", "first.1")


def test_an_erasure_that_is_interrupted_can_be_repeated(bench: Bench) -> None:
    with_a_model(bench.registry)

    def stop() -> None:
        if is_hidden(bench.registry.get_key("key1"), "anna"):
            raise InterruptedError

    table = InterruptedTable(bench.table, stop, times=2)  # the key's row, then the version's
    with pytest.raises(InterruptedError):
        bench.over(table).erase_user("key1", "anna")
    assert is_hidden(bench.registry.get_key("key1"), "anna")
    bench.registry.erase_user("key1", "anna")
    assert [version.erase_by is not None for version in bench.registry.list_versions("key1")] == [True]
    assert len(erasures.Erasures.parse(bench.registry.get_key("key1").erasures).users) == 1


def test_users_are_not_erased_from_a_revoked_key(registry: Registry) -> None:
    with_a_model(registry)
    registry.revoke_key("key1")
    with pytest.raises(KeyNotFound):
        registry.erase_user("key1", "anna")


def test_the_number_of_erasures_is_limited(
    registry: Registry, clock: FixedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasures, "MAX_ERASURES", 3)
    with_a_model(registry)
    for name in ("anna", "ben", "carla"):
        registry.erase_user("key1", name)
    with pytest.raises(TooManyErasures):
        registry.erase_user("key1", "dora")
    registry.erase_user("key1", "ben")  # again
    clock.advance(ERASED_WITHIN_DAYS * DAY_S)
    with pytest.raises(TooManyErasures):  # none of them was carried out
        registry.erase_user("key1", "dora")
    publish(registry, started(registry, "clean", "2026-04-02#b"), "first.1", erasures=last_erasure(registry))
    registry.erase_user("key1", "dora")
    assert is_hidden(registry.get_key("key1"), "dora")


def test_an_erasure_is_recorded_without_the_user(registry: Registry, clock: FixedClock) -> None:
    with_a_model(registry)
    clock.advance(1)
    registry.erase_user("key1", "anna")
    newest = registry.list_events("key1", limit=1).events[0]
    assert (newest.event, newest.detail) == ("user.erased", {})
