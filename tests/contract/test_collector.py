"""The collector on every adapter: what it deletes, and what it leaves alone when something happens meanwhile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest

from recsys.clock import Timestamp, after, utc_now
from recsys.errors import Unavailable, VersionNotFound
from recsys.objects import layout
from recsys.objects.store import ObjectStore
from recsys.registry.table import Address, Change, Row, Table
from recsys.retention.collector import Collector
from recsys.retention.plan import Reason, RetentionPolicy
from tests.contract.conftest import Bench
from tests.contract.records import REPORT, a_job, a_key, a_version, claim
from tests.emulators import MINISTACK

pytestmark = pytest.mark.parametrize(
    ("bench", "store"),
    [
        ("local", "local"),
        ("moto", "moto-versioned"),
        pytest.param("ministack", "ministack-versioned", marks=MINISTACK),
    ],
    indirect=True,
)
POLICY: Final = RetentionPolicy(versions_kept=1, grace_s=3600.0, upload_days=30)
VERSIONS: Final = ("v1.1", "v2.1", "v3.1")


class HookedTable:
    """A table that calls `hook` once, before its n-th call."""

    def __init__(self, table: Table, n: int, hook: Callable[[], object]) -> None:
        self._table, self._n, self._hook = table, n, hook
        self.was_called = False

    def _count(self) -> None:
        self._n -= 1
        if self._n < 0 and not self.was_called:
            self.was_called = True
            self._hook()

    def get(self, address: Address) -> Row:
        self._count()
        return self._table.get(address)

    def list(self, partition: str, sort_prefix: str) -> list[Row]:
        self._count()
        return self._table.list(partition, sort_prefix)

    def write(self, changes: Sequence[Change]) -> bool:
        self._count()
        return self._table.write(changes)


def prepare(bench: Bench, store: ObjectStore) -> None:
    """Publish three versions of `key1`, now, with one file and one upload each."""
    bench.clock.now = utc_now()
    bench.registry.create_key(a_key())
    for number, version in enumerate(VERSIONS):
        job_id = version.removesuffix(".1")
        bench.registry.create_job(a_job(job_id, created_at=bench.clock.now, updated_at=bench.clock.now))
        store.create(f"uploads/{job_id}.csv", b"user_id,item_id")
        lease = claim(bench.registry, job_id, source=f"2026-01-0{number + 1}#a")
        store.create(layout.model_prefix("key1", version) + "manifest.json", b"{}")
        created_at = after(bench.clock.now, number)
        bench.registry.publish_version(lease, a_version(lease, created_at=created_at), REPORT)


def folders(store: ObjectStore) -> set[str]:
    return {info.name.split("/")[2] for info in store.list(layout.MODELS)}


def listed(bench: Bench) -> set[str]:
    return {version.version for version in bench.registry.list_versions("key1")}


def deletion_events(bench: Bench) -> list[dict[str, Any]]:
    page = bench.registry.list_events("key1", limit=100)
    return [event.detail for event in page.events if event.event == "version.deleted"]


def test_an_old_version_is_retired_at_once_and_its_files_follow_after_the_grace_period(
    bench: Bench, store: ObjectStore
) -> None:
    prepare(bench, store)
    collector = Collector(bench.table, store, POLICY, bench.clock)

    (retired,) = collector.run().deletions
    assert (retired.what, retired.reason, retired.is_mark) == ("models/key1/v1.1/", Reason.REPLACED, True)
    assert listed(bench) == {"v2.1", "v3.1"}
    assert deletion_events(bench) == [{"version": "v1.1", "reason": "replaced"}]
    bench.clock.advance(3599)
    assert collector.run().deletions == ()
    assert folders(store) == set(VERSIONS)

    bench.clock.advance(1)
    collection = collector.run()
    assert [(deletion.what, deletion.reason) for deletion in collection.deletions] == [
        ("models/key1/v1.1/", Reason.RETIRED)
    ]
    assert (collection.freed_bytes, collection.n_failed) == (2, 0)
    assert folders(store) == {"v2.1", "v3.1"}
    assert collector.run().deletions == ()
    assert len(deletion_events(bench)) == 1


def test_a_plan_deletes_nothing(bench: Bench, store: ObjectStore) -> None:
    prepare(bench, store)
    assert len(list(Collector(bench.table, store, POLICY, bench.clock).plan())) == 1
    assert listed(bench) == folders(store) == set(VERSIONS)


def test_models_and_uploads_of_a_revoked_key_are_deleted_within_a_day(bench: Bench, store: ObjectStore) -> None:
    prepare(bench, store)
    bench.registry.revoke_key("key1")
    for _ in range(3):  # as hourly runs do
        bench.clock.advance(3601)
        Collector(bench.table, store, POLICY, bench.clock).run()
    assert list(store.list(layout.MODELS)) == list(store.list(layout.UPLOADS)) == []
    assert listed(bench) == set()
    deleted = [{"version": version, "reason": "revoked"} for version in VERSIONS]
    assert sorted(deletion_events(bench), key=str) == deleted


@pytest.mark.parametrize("n", range(4))
@pytest.mark.parametrize("change", ["activate_version", "pin_version"])
def test_a_version_that_is_chosen_before_any_call_of_a_run_is_kept(
    bench: Bench, store: ObjectStore, change: str, n: int
) -> None:
    """A run on this key calls the table four times: it reads the rows and the key, marks a version, reads a job."""
    prepare(bench, store)
    refused = []

    def choose() -> None:
        try:
            getattr(bench.registry, change)("key1", "v1.1")
        except VersionNotFound:
            refused.append(n)

    table = HookedTable(bench.table, n, choose)
    Collector(table, store, POLICY, bench.clock).run()
    assert table.was_called
    assert refused == ([3] if n == 3 else []), "only what was already deleted cannot be chosen"
    assert ("v1.1" in listed(bench)) == (n < 3)


def test_a_failed_deletion_does_not_stop_the_run(
    bench: Bench, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(bench, store)
    bench.registry.revoke_key("key1")
    bench.clock.advance(3601)
    delete = store.delete

    def refuse_the_first(name: str) -> None:
        if name == "uploads/v1.csv":
            raise Unavailable("The disk is gone.")
        delete(name)

    monkeypatch.setattr(store, "delete", refuse_the_first)
    collection = Collector(bench.table, store, POLICY, bench.clock).run()
    assert collection.n_failed == 1
    assert {info.name for info in store.list(layout.UPLOADS)} == {"uploads/v1.csv"}


def test_a_job_of_a_newer_release_keeps_its_files(bench: Bench, store: ObjectStore) -> None:
    prepare(bench, store)
    row = bench.table.get(Address("JOB#v1", "JOB"))
    assert row.document is not None
    assert bench.table.write([row.changed_to({**row.document, "state": "levitating"})])
    store.create("models/key1/v1.2/manifest.json", b"{}")
    bench.clock.now = Timestamp(after(bench.clock.now, 20 * 86_400))
    assert not any("v1" in deletion.what for deletion in Collector(bench.table, store, POLICY, bench.clock).plan())
