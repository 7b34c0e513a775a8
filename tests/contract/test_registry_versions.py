"""Contract of the registry: publishing, listing and activating versions, on every adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from recsys.clock import DAY_S, Timestamp
from recsys.errors import KeyNotFound, LeaseLost, TooManyPinnedVersions, Unavailable, VersionNotFound
from recsys.registry import rules
from recsys.registry.reading import version_address
from recsys.registry.records import JobState, ModelVersion
from recsys.registry.registry import Published, Registry
from recsys.registry.table import Address, Change, Row, Table
from tests.contract.conftest import Bench, FixedClock
from tests.contract.records import (
    HOUR_LATER,
    METRICS,
    MINUTE_LATER,
    NOW,
    REPORT,
    a_job,
    a_key,
    a_version,
    claim,
    claim_new,
)


class InterruptedTable:
    """A table that calls `interrupt` before each of the first `times` writes, like a concurrent writer."""

    def __init__(self, table: Table, interrupt: Callable[[], object], times: int = 1) -> None:
        self._table = table
        self._interrupt = interrupt
        self._times_left = times

    def get(self, address: Address) -> Row:
        return self._table.get(address)

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        return self._table.list(partition, sort_prefix)

    def write(self, changes: Sequence[Change]) -> bool:
        if self._times_left:
            self._times_left -= 1
            self._interrupt()
        return self._table.write(changes)


def test_publishing_makes_a_version_current_and_the_job_succeeded(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key(revision=2, expires_at=HOUR_LATER))
    lease = claim_new(registry, "job1", "2026-03-01#a")
    clock.advance(60)
    version = a_version(lease, created_at=clock.now)

    assert registry.publish_version(lease, version, REPORT) is Published.CURRENT

    assert registry.get_key("key1") == a_key(
        revision=3,
        expires_at=None,
        current_version="job1.1",
        current_manifest_sha256="manifest of job1.1",
        current_data_timestamp="2026-03-01#a",
        replaced_data_timestamp="2026-03-01#a",
    )
    assert registry.list_versions("key1") == [version]
    assert registry.get_job("job1") == a_job(
        state=JobState.SUCCEEDED,
        fence=1,
        started_at=NOW,
        data_timestamp="2026-03-01#a",
        updated_at=MINUTE_LATER,
        version="job1.1",
        metrics=METRICS,
        report=REPORT,
    )


def test_a_key_with_a_model_does_not_expire(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key(expires_at=HOUR_LATER))
    lease = claim_new(registry, "job1", "2026-03-01#a")
    registry.publish_version(lease, a_version(lease), REPORT)
    clock.advance(10 * 365 * DAY_S)
    assert registry.get_key("key1").current_version == "job1.1"


@pytest.mark.parametrize("is_claimed_in_time", [True, False])
def test_the_key_of_a_drop_expires_unless_it_is_claimed(
    registry: Registry, clock: FixedClock, is_claimed_in_time: bool
) -> None:
    registry.create_key(a_key(secret_sha256=None, expires_at=HOUR_LATER))
    lease = claim_new(registry, "job1", "2026-03-01#a")
    assert registry.publish_version(lease, a_version(lease), REPORT) is Published.CURRENT
    assert registry.get_key("key1").expires_at == HOUR_LATER
    registry.offer_claim("token", "key1", expires_at=HOUR_LATER)
    if is_claimed_in_time:
        assert registry.claim_key("token", "2" * 64).expires_at is None
        clock.advance(10 * 365 * DAY_S)
        assert registry.get_key("key1").current_version == "job1.1"
    else:
        clock.advance(3600)
        with pytest.raises(KeyNotFound):
            registry.get_key("key1")


def test_newer_data_replaces_the_current_version(registry: Registry) -> None:
    registry.create_key(a_key())
    old = claim_new(registry, "old", "2026-03-01#a")
    new = claim_new(registry, "new", "2026-03-01#b")
    assert registry.publish_version(old, a_version(old), REPORT) is Published.CURRENT
    assert registry.publish_version(new, a_version(new), REPORT) is Published.CURRENT
    key = registry.get_key("key1")
    assert (key.current_version, key.current_data_timestamp, key.revision) == ("new.1", "2026-03-01#b", 2)
    assert {version.version for version in registry.list_versions("key1")} == {"old.1", "new.1"}


@pytest.mark.parametrize("source", ["2026-03-01#a", "2026-03-01#b"], ids=["older", "equal"])
def test_a_job_whose_data_is_not_newer_is_superseded(registry: Registry, source: str) -> None:
    registry.create_key(a_key())
    new = claim_new(registry, "new", "2026-03-01#b")
    late = claim_new(registry, "late", source)
    registry.publish_version(new, a_version(new), REPORT)
    key = registry.get_key("key1")

    assert registry.publish_version(late, a_version(late), REPORT) is Published.SUPERSEDED

    assert registry.get_key("key1") == key
    assert [version.version for version in registry.list_versions("key1")] == ["new.1"]
    job = registry.get_job("late")
    assert (job.state, job.version, job.metrics, job.lease_owner) == (JobState.SUPERSEDED, None, None, None)


def test_no_version_is_published_for_a_revoked_key(registry: Registry) -> None:
    registry.create_key(a_key())
    lease = claim_new(registry, "job1", "2026-03-01#a")
    registry.revoke_key("key1")
    assert registry.publish_version(lease, a_version(lease), REPORT) is Published.SUPERSEDED
    assert registry.get_key("key1") == a_key(revision=1, revoked_at=NOW)
    assert registry.list_versions("key1") == []
    assert registry.get_job("job1").state is JobState.SUPERSEDED


def test_no_version_is_published_for_an_expired_or_unknown_key(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key(expires_at=MINUTE_LATER))
    registry.create_job(a_job("orphan", key_id="never"))
    orphan = claim(registry, "orphan")
    lease = claim_new(registry, "job1", "2026-03-01#a")
    clock.advance(60)
    assert registry.publish_version(orphan, a_version(orphan), REPORT) is Published.SUPERSEDED
    assert registry.publish_version(lease, a_version(lease), REPORT) is Published.SUPERSEDED
    assert registry.get_job("orphan").state is JobState.SUPERSEDED
    assert registry.get_job("job1").state is JobState.SUPERSEDED
    assert registry.list_versions("key1") == registry.list_versions("never") == []


def test_publishing_again_has_no_effect(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    lease = claim_new(registry, "job1", "2026-03-01#a")
    registry.publish_version(lease, a_version(lease), REPORT)
    job, key = registry.get_job("job1"), registry.get_key("key1")
    clock.advance(60)
    assert registry.publish_version(lease, a_version(lease), REPORT) is Published.CURRENT
    assert (registry.get_job("job1"), registry.get_key("key1")) == (job, key)
    assert len(registry.list_versions("key1")) == 1


def test_a_publication_is_retried_after_a_concurrent_rotation(bench: Bench) -> None:
    bench.registry.create_key(a_key())
    lease = claim_new(bench.registry, "job1", "2026-03-01#a")
    table = InterruptedTable(bench.table, lambda: bench.registry.rotate_key("key1", "2" * 64, overlap_s=0))
    assert bench.over(table).publish_version(lease, a_version(lease), REPORT) is Published.CURRENT
    key = bench.registry.get_key("key1")
    assert (key.secret_sha256, key.current_version, key.revision) == ("2" * 64, "job1.1", 2)
    assert bench.registry.get_job("job1").state is JobState.SUCCEEDED


def test_a_concurrent_publication_of_newer_data_supersedes_the_job(bench: Bench) -> None:
    bench.registry.create_key(a_key())
    old = claim_new(bench.registry, "old", "2026-03-01#a")
    new = claim_new(bench.registry, "new", "2026-03-01#b")
    table = InterruptedTable(bench.table, lambda: bench.registry.publish_version(new, a_version(new), REPORT))
    assert bench.over(table).publish_version(old, a_version(old), REPORT) is Published.SUPERSEDED
    assert bench.registry.get_key("key1").current_version == "new.1"
    assert [version.version for version in bench.registry.list_versions("key1")] == ["new.1"]


def test_fifty_conflicts_in_a_row_are_unavailable(bench: Bench) -> None:
    bench.registry.create_key(a_key())
    table = InterruptedTable(bench.table, lambda: bench.registry.rotate_key("key1", "2" * 64, overlap_s=0), times=1000)
    with pytest.raises(Unavailable, match="50 times"):
        bench.over(table).revoke_key("key1")
    assert bench.registry.get_key("key1").revoked_at is None


# -- listing and activating


def test_versions_are_listed_newest_first_with_every_field(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.create_key(a_key("key2"))
    published = []
    # Names and times are in different orders, and the time decides.
    for number, (job_id, minute) in enumerate([("b", 1), ("c", 3), ("a", 5)]):
        lease = claim_new(registry, job_id, f"2026-03-01#{number}")
        created_at = Timestamp(f"2026-03-01T12:0{minute}:00.000000Z")
        published.append(a_version(lease, created_at=created_at, metrics={"größe": [number, 0.5, None]}))
        registry.publish_version(lease, published[-1], REPORT)
    assert registry.list_versions("key1") == published[::-1]
    assert registry.list_versions("key2") == []
    assert registry.list_versions("key") == []


def test_versions_are_listed_across_pages(registry: Registry) -> None:
    registry.create_key(a_key())
    for number in range(6):
        lease = claim_new(registry, f"job{number}", f"2026-03-01#{number}")
        # A page of DynamoDB ends after 1 MB.
        version = a_version(lease, metrics={"text": "x" * 180_000})
        assert registry.publish_version(lease, version, {}) is Published.CURRENT
    assert [version.version for version in registry.list_versions("key1")] == [f"job{n}.1" for n in range(5, -1, -1)]


def test_activating_a_version_rolls_back_and_forward(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    for job_id, source in [("old", "2026-02-01#a"), ("new", "2026-02-02#a")]:
        lease = claim_new(registry, job_id, source)
        registry.publish_version(lease, a_version(lease), REPORT)
    before = registry.get_key("key1")
    clock.advance(60)

    activated = registry.activate_version("key1", "old.1")

    assert activated == replace(
        before,
        revision=3,
        current_version="old.1",
        current_manifest_sha256="manifest of old.1",
        current_data_timestamp=MINUTE_LATER,
        replaced_data_timestamp=MINUTE_LATER,
    )
    assert registry.get_key("key1") == activated
    assert len(registry.list_versions("key1")) == 2
    assert registry.activate_version("key1", "new.1").current_version == "new.1"


def test_an_unpublished_version_cannot_be_activated(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.create_key(a_key("key2"))
    lease = claim_new(registry, "job1", "2026-03-01#a")
    with pytest.raises(VersionNotFound):
        registry.activate_version("key1", "job1.1")
    registry.publish_version(lease, a_version(lease), REPORT)
    with pytest.raises(VersionNotFound):
        registry.activate_version("key2", "job1.1")


@pytest.mark.parametrize(
    ("source", "published", "current"),
    [
        ("2026-03-01T11:59:59.999999Z#a", Published.SUPERSEDED, "good.1"),
        ("2026-03-01T12:00:00.000001Z#a", Published.CURRENT, "late.1"),
    ],
    ids=["arrived before", "arrived after"],
)
def test_only_data_that_arrives_after_an_activation_replaces_the_version(
    registry: Registry, source: str, published: Published, current: str
) -> None:
    registry.create_key(a_key())
    good = claim_new(registry, "good", "2026-02-01#a")
    registry.publish_version(good, a_version(good), REPORT)
    late = claim_new(registry, "late", source)
    registry.activate_version("key1", "good.1")
    assert registry.publish_version(late, a_version(late), REPORT) is published
    assert registry.get_key("key1").current_version == current


def test_activating_never_decreases_the_data_timestamp(registry: Registry) -> None:
    """The current data was stamped by a clock that is one hour ahead."""
    registry.create_key(a_key())
    ahead = claim_new(registry, "ahead", f"{HOUR_LATER}#a")
    registry.publish_version(ahead, a_version(ahead), REPORT)
    activated = registry.activate_version("key1", "ahead.1")
    assert activated.current_data_timestamp == f"{HOUR_LATER}#a"
    older = claim_new(registry, "older", f"{MINUTE_LATER}#a")
    assert registry.publish_version(older, a_version(older), REPORT) is Published.SUPERSEDED


# -- pinning and deletion


def publish_versions(registry: Registry, *job_ids: str) -> None:
    registry.create_key(a_key())
    for number, job_id in enumerate(job_ids):
        lease = claim_new(registry, job_id, f"2026-02-{number + 1:02d}#a")
        registry.publish_version(lease, a_version(lease), REPORT)


def retirement(bench: Bench, version: str) -> Change:
    """Return the change that retires a version, based on its row as it is now."""
    row = bench.table.get(version_address("key1", version))
    assert row.document is not None
    retired = rules.retired(ModelVersion.from_document(row.document), now=bench.clock.now, kept_s=DAY_S)
    return row.changed_to(retired.to_document())


def test_a_version_is_pinned_until_it_is_unpinned(registry: Registry, clock: FixedClock) -> None:
    publish_versions(registry, "old", "new")
    before = registry.get_key("key1")
    clock.advance(60)
    assert registry.pin_version("key1", "old.1").pinned_at == MINUTE_LATER
    clock.advance(60)
    assert registry.pin_version("key1", "old.1").pinned_at == MINUTE_LATER
    assert {v.version: v.pinned_at for v in registry.list_versions("key1")} == {"old.1": MINUTE_LATER, "new.1": None}
    assert registry.unpin_version("key1", "old.1").pinned_at is None
    assert registry.unpin_version("key1", "old.1").pinned_at is None
    assert registry.get_key("key1") == before


def test_a_key_has_at_most_ten_pinned_versions(registry: Registry) -> None:
    publish_versions(registry, *(f"job{number}" for number in range(rules.MAX_PINNED_VERSIONS + 1)))
    for number in range(rules.MAX_PINNED_VERSIONS):
        registry.pin_version("key1", f"job{number}.1")
    with pytest.raises(TooManyPinnedVersions):
        registry.pin_version("key1", f"job{rules.MAX_PINNED_VERSIONS}.1")
    registry.pin_version("key1", "job0.1")
    registry.unpin_version("key1", "job0.1")
    registry.pin_version("key1", f"job{rules.MAX_PINNED_VERSIONS}.1")


@pytest.mark.parametrize("version", ["unknown.1", "old.1"])
def test_an_unknown_or_deleted_version_is_neither_listed_nor_activated_nor_pinned(bench: Bench, version: str) -> None:
    publish_versions(bench.registry, "old", "new")
    assert bench.table.write([retirement(bench, "old.1")])
    assert [listed.version for listed in bench.registry.list_versions("key1")] == ["new.1"]
    for change in (bench.registry.activate_version, bench.registry.pin_version, bench.registry.unpin_version):
        with pytest.raises(VersionNotFound):
            change("key1", version)
    assert bench.registry.get_key("key1").current_version == "new.1"


@pytest.mark.parametrize("change", ["activate_version", "pin_version"])
def test_a_version_that_is_activated_or_pinned_meanwhile_is_not_deleted(bench: Bench, change: str) -> None:
    publish_versions(bench.registry, "old", "new")
    planned = retirement(bench, "old.1")
    getattr(bench.registry, change)("key1", "old.1")
    assert not bench.table.write([planned])
    assert {version.version for version in bench.registry.list_versions("key1")} == {"old.1", "new.1"}


@pytest.mark.parametrize("change", ["activate_version", "pin_version"])
def test_a_version_that_is_deleted_meanwhile_is_neither_activated_nor_pinned(bench: Bench, change: str) -> None:
    publish_versions(bench.registry, "old", "new")
    table = InterruptedTable(bench.table, lambda: bench.table.write([retirement(bench, "old.1")]))
    with pytest.raises(VersionNotFound):
        getattr(bench.over(table), change)("key1", "old.1")
    assert bench.registry.get_key("key1").current_version == "new.1"


def test_an_attempt_whose_files_are_being_deleted_is_not_published(bench: Bench) -> None:
    bench.registry.create_key(a_key())
    lease = claim_new(bench.registry, "slow", "2026-03-01#a")
    leftover = rules.retired(a_version(lease), now=NOW, kept_s=DAY_S)
    mark = Change(version_address("key1", lease.version), None, leftover.to_document())
    table = InterruptedTable(bench.table, lambda: bench.table.write([mark]))
    with pytest.raises(LeaseLost):
        bench.over(table).publish_version(lease, a_version(lease), REPORT)
    assert bench.registry.get_key("key1").current_version is None
    assert bench.registry.get_job("slow").state is JobState.RUNNING
