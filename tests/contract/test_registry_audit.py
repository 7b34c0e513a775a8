"""Contract of the registry: the audit log of a key, on every adapter."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from recsys.clock import DAY_S, after
from recsys.errors import KeyExists, LeaseLost
from recsys.registry.audit import AuditEvent, event_change
from recsys.registry.records import JobState
from recsys.registry.registry import Registry
from recsys.registry.scoped_keys import Scope, ScopedKey
from recsys.registry.table import Address, Table
from tests.contract.conftest import Bench, FixedClock
from tests.contract.records import HOUR_LATER, NOW, PROBLEM, REPORT, a_key, a_version, claim_new

PAGE = ScopedKey("page0000", "größe", Scope.RECOMMEND, "a" * 64, NOW, ("https://shop.example",))


def events(registry: Registry, key_id: str = "key1") -> list[tuple[str, dict[str, Any]]]:
    """Return all events of a key, oldest first."""
    page = registry.list_events(key_id, limit=100)
    assert page.next_cursor is None
    return [(event.event, event.detail) for event in reversed(page.events)]


def test_changes_of_a_key_are_recorded_in_order(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    for change in (
        lambda: registry.rotate_key("key1", "b" * 64, overlap_s=3600),
        lambda: registry.add_scoped_key("key1", PAGE),
        lambda: registry.remove_scoped_key("key1", "page0000"),
        lambda: registry.revoke_key("key1"),
    ):
        clock.advance(1)
        change()
    assert events(registry) == [
        ("key.created", {}),
        ("key.rotated", {"previous_key_expires_at": after(NOW, 3601)}),
        ("scoped_key.created", {"scoped_key_id": "page0000", "name": "größe", "scope": "recommend"}),
        ("scoped_key.deleted", {"scoped_key_id": "page0000"}),
        ("key.revoked", {}),
    ]


def test_changes_of_a_model_are_recorded(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    names = []
    for job_id in ("job1", "job2"):
        clock.advance(1)
        lease = claim_new(registry, job_id, f"{clock()}#x")
        names.append(lease.version)
        registry.publish_version(lease, a_version(lease), REPORT)
    clock.advance(1)
    registry.activate_version("key1", names[0])
    assert events(registry)[1:] == [
        ("version.published", {"version": names[0], "job_id": "job1"}),
        ("version.published", {"version": names[1], "job_id": "job2"}),
        ("version.activated", {"version": names[0], "previous_version": names[1]}),
    ]


def test_a_failed_job_is_recorded_with_its_code_and_without_its_data(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.fail_job(claim_new(registry, "job1", "2026-03-01#a"), PROBLEM, None)
    assert ("job.failed", {"job_id": "job1", "code": PROBLEM.code}) in events(registry)


def test_a_change_that_has_no_effect_is_not_recorded(registry: Registry) -> None:
    registry.create_key(a_key())
    lease = claim_new(registry, "job1", "2026-03-01#a")
    for _ in range(2):
        registry.publish_version(lease, a_version(lease), REPORT)
        registry.revoke_key("key1")
    with pytest.raises(KeyExists):
        registry.create_key(a_key())
    with pytest.raises(LeaseLost):
        registry.fail_job(lease, PROBLEM, None)
    assert sorted(name for name, _ in events(registry)) == ["key.created", "key.revoked", "version.published"]


def test_a_superseded_job_publishes_no_event(registry: Registry) -> None:
    registry.create_key(a_key(current_data_timestamp="9"))
    lease = claim_new(registry, "job1", "2026-03-01#a")
    registry.publish_version(lease, a_version(lease), REPORT)
    assert registry.get_job("job1").state is JobState.SUPERSEDED
    assert events(registry) == [("key.created", {})]


def test_the_claim_of_a_key_is_recorded(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key(secret_sha256=None))
    registry.offer_claim("token", "key1", expires_at=HOUR_LATER)
    clock.advance(1)
    registry.claim_key("token", "d" * 64)
    assert events(registry)[-1] == ("key.claimed", {})


def test_pages_are_complete_and_newest_first(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    for _ in range(6):
        clock.advance(1)
        registry.rotate_key("key1", str(clock()), overlap_s=0)
    first = registry.list_events("key1", limit=3)
    second = registry.list_events("key1", limit=3, cursor=first.next_cursor)
    third = registry.list_events("key1", limit=3, cursor=second.next_cursor)
    found = [event.at for page in (first, second, third) for event in page.events]
    assert found == [after(NOW, seconds) for seconds in range(6, -1, -1)]
    assert (first.next_cursor is None, second.next_cursor is None, third.next_cursor) == (False, False, None)


def test_the_last_full_page_has_no_next_one(registry: Registry) -> None:
    registry.create_key(a_key())
    assert registry.list_events("key1", limit=1).next_cursor is None


def test_an_event_that_is_added_between_two_pages_does_not_shift_them(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    for _ in range(2):
        clock.advance(1)
        registry.rotate_key("key1", str(clock()), overlap_s=0)
    first = registry.list_events("key1", limit=2)
    clock.advance(1)
    registry.revoke_key("key1")
    assert [event.event for event in registry.list_events("key1", limit=2, cursor=first.next_cursor).events] == [
        "key.created"
    ]


def test_each_key_has_a_log_of_its_own(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.create_key(a_key("key2"))
    registry.revoke_key("key2")
    assert events(registry) == [("key.created", {})]
    assert events(registry, "key3") == []


def test_events_expire_after_the_configured_days(bench: Bench) -> None:
    registry = Registry(bench.table, bench.clock, audit_days=30)
    registry.create_key(a_key())
    bench.clock.advance(29 * DAY_S)
    registry.revoke_key("key1")
    bench.clock.advance(DAY_S)
    assert registry.list_events("key1", limit=10).events == (AuditEvent(after(NOW, 29 * DAY_S), "key.revoked", {}),)


def test_the_creation_of_a_key_that_is_never_used_is_deleted_with_the_key(
    registry: Registry, clock: FixedClock
) -> None:
    registry.create_key(a_key(expires_at=HOUR_LATER))
    assert events(registry) == [("key.created", {})]
    clock.advance(3600)
    assert events(registry) == []


def test_the_creation_of_a_key_that_is_used_is_kept(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key(expires_at=HOUR_LATER))
    lease = claim_new(registry, "job1", "2026-03-01#a")
    clock.advance(1)
    registry.publish_version(lease, a_version(lease), REPORT)
    clock.advance(7200)
    assert [name for name, _ in events(registry)] == ["key.created", "version.published"]


class RecordingTable:
    """A table that keeps the changes of the last transaction."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self.addresses: list[Address] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def write(self, changes: Any) -> bool:
        self.addresses = [change.address for change in changes]
        return self._table.write(changes)


def test_an_event_is_written_with_the_change_that_it_records(bench: Bench) -> None:
    bench.registry.create_key(a_key())
    table = RecordingTable(bench.table)
    bench.over(table).revoke_key("key1")  # type: ignore[arg-type]  # it forwards the other methods
    assert [address.sort.partition("#")[0] for address in table.addresses] == ["KEY", "AUDIT"]


def test_other_modules_can_add_an_event_to_their_transaction(registry: Registry, bench: Bench) -> None:
    detail = {"version": "job1.1", "absent": None}
    assert bench.table.write([event_change("key1", "version.deleted", detail, now=NOW, keep_days=1)])
    assert events(registry) == [("version.deleted", {"version": "job1.1"})]


def test_events_contain_no_digest_of_a_secret(registry: Registry) -> None:
    registry.create_key(replace(a_key(), secret_sha256="1" * 64))
    registry.rotate_key("key1", "2" * 64, overlap_s=60)
    registry.add_scoped_key("key1", PAGE)
    text = str(registry.list_events("key1", limit=10))
    assert not any(digest * 64 in text for digest in ("1", "2", "a"))
