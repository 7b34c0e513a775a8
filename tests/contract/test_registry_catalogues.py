"""Contract of the registry: publishing and deleting item catalogues, on every adapter."""

from __future__ import annotations

from dataclasses import replace

import pytest

from recsys.clock import DAY_S
from recsys.errors import KeyNotFound, LeaseLost
from recsys.registry.catalogues import CatalogueChanged, CatalogueVersion
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import JobPurpose, JobState, Lease
from recsys.registry.registry import Registry
from tests.contract.conftest import FixedClock
from tests.contract.records import REPORT, a_job, a_key, claim


def claim_items(registry: Registry, job_id: str, data_timestamp: str) -> Lease:
    registry.create_job(replace(a_job(job_id), purpose=JobPurpose.CATALOGUE))
    return claim(registry, job_id, source=data_timestamp)


def replacement(lease: Lease) -> CatalogueVersion:
    return CatalogueVersion(lease.version, f"sha of {lease.version}", base=None, is_merged=False)


def merge(lease: Lease, base: str | None) -> CatalogueVersion:
    return CatalogueVersion(lease.version, f"sha of {lease.version}", base=base, is_merged=True)


def catalogue_of(key: KeyRecord) -> tuple[str | None, str | None]:
    return key.catalogue_version, key.catalogue_sha256


def test_a_published_catalogue_is_current_and_its_job_succeeded(registry: Registry) -> None:
    registry.create_key(a_key())
    lease = claim_items(registry, "job1", "2026-03-01#a")

    assert registry.publish_catalogue(lease, replacement(lease), REPORT)

    key, job = registry.get_key("key1"), registry.get_job("job1")
    assert catalogue_of(key) == ("job1.1", "sha of job1.1")
    assert key.catalogue_data_timestamp == "2026-03-01#a"
    assert (job.state, job.purpose) == (JobState.SUCCEEDED, JobPurpose.CATALOGUE)
    assert (job.version, job.report) == ("job1.1", REPORT)
    assert (key.current_version, key.revision) == (None, 1)


def test_publishing_a_catalogue_again_has_no_effect(registry: Registry) -> None:
    registry.create_key(a_key())
    lease = claim_items(registry, "job1", "2026-03-01#a")
    registry.publish_catalogue(lease, replacement(lease), REPORT)
    assert registry.publish_catalogue(lease, replacement(lease), REPORT)
    assert registry.get_key("key1").revision == 1


def test_a_merge_into_another_catalogue_than_the_current_one_is_rejected(registry: Registry) -> None:
    registry.create_key(a_key())
    first, second = claim_items(registry, "job1", "2026-03-01#a"), claim_items(registry, "job2", "2026-03-01#b")
    registry.publish_catalogue(second, merge(second, None), REPORT)
    with pytest.raises(CatalogueChanged):
        registry.publish_catalogue(first, merge(first, None), REPORT)
    assert registry.get_job("job1").state is JobState.RUNNING

    assert registry.publish_catalogue(first, merge(first, "job2.1"), REPORT)
    assert catalogue_of(registry.get_key("key1")) == ("job1.1", "sha of job1.1")


def test_items_older_than_a_replacement_are_superseded(registry: Registry) -> None:
    registry.create_key(a_key())
    old, late = claim_items(registry, "job1", "2026-03-01#a"), claim_items(registry, "job2", "2026-03-01#b")
    new = claim_items(registry, "job3", "2026-03-01#c")
    registry.publish_catalogue(new, replacement(new), REPORT)
    assert not registry.publish_catalogue(old, replacement(old), REPORT)
    assert not registry.publish_catalogue(late, merge(late, "job3.1"), REPORT)
    assert registry.get_job("job2").state is JobState.SUPERSEDED
    assert catalogue_of(registry.get_key("key1")) == ("job3.1", "sha of job3.1")


def test_a_deleted_catalogue_stays_deleted_for_older_items(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    lease = claim_items(registry, "job1", f"{clock.now}#a")
    late = claim_items(registry, "job2", f"{clock.now}#b")
    registry.publish_catalogue(lease, replacement(lease), REPORT)
    clock.advance(DAY_S)

    assert catalogue_of(registry.delete_catalogue("key1")) == (None, None)

    assert not registry.publish_catalogue(late, merge(late, None), REPORT)
    assert catalogue_of(registry.get_key("key1")) == (None, None)


def test_a_revoked_key_gets_no_catalogue(registry: Registry) -> None:
    registry.create_key(a_key())
    lease = claim_items(registry, "job1", "2026-03-01#a")
    registry.revoke_key("key1")
    assert not registry.publish_catalogue(lease, replacement(lease), REPORT)
    with pytest.raises(KeyNotFound):
        registry.delete_catalogue("key1")


def test_a_worker_that_lost_its_lease_publishes_nothing(registry: Registry, clock: FixedClock) -> None:
    registry.create_key(a_key())
    lease = claim_items(registry, "job1", "2026-03-01#a")
    clock.advance(DAY_S)
    claim(registry, "job1", source="2026-03-01#a")
    with pytest.raises(LeaseLost):
        registry.publish_catalogue(lease, replacement(lease), REPORT)
    assert catalogue_of(registry.get_key("key1")) == (None, None)
