"""Contract of the registry: versions that are held, and validations, on every adapter."""

from __future__ import annotations

from dataclasses import replace

from recsys.registry.records import Assessment, JobPurpose, JobState
from recsys.registry.registry import Published, Registry
from tests.contract.records import COMPARISON, HELD_REASONS, METRICS, REPORT, a_job, a_key, a_version, claim, claim_new


def publish_first(registry: Registry) -> None:
    registry.create_key(a_key())
    good = claim_new(registry, "good", "2026-03-01#a")
    assert registry.publish_version(good, a_version(good), REPORT, Assessment(None)) is Published.CURRENT


def test_held_version_is_stored_and_the_current_one_stays(registry: Registry) -> None:
    publish_first(registry)
    key = registry.get_key("key1")
    bad = claim_new(registry, "bad", "2026-03-01#b")
    version = a_version(bad)

    outcome = registry.publish_version(bad, version, REPORT, Assessment("good.1", COMPARISON, HELD_REASONS))

    assert outcome is Published.HELD
    assert registry.get_key("key1") == key
    stored = {each.version: each.held_reasons for each in registry.list_versions("key1")}
    assert stored == {"good.1": None, "bad.1": HELD_REASONS}
    job = registry.get_job("bad")
    assert (job.state, job.version, job.metrics, job.report) == (JobState.HELD, "bad.1", METRICS, REPORT)
    assert (job.held_reasons, job.comparison, job.lease_owner) == (HELD_REASONS, COMPARISON, None)


def test_comparison_of_a_published_version_is_kept_with_its_job(registry: Registry) -> None:
    publish_first(registry)
    new = claim_new(registry, "new", "2026-03-01#b")
    assert registry.publish_version(new, a_version(new), REPORT, Assessment("good.1", COMPARISON)) is Published.CURRENT
    job = registry.get_job("new")
    assert (job.state, job.comparison, job.held_reasons) == (JobState.SUCCEEDED, COMPARISON, None)


def test_activation_promotes_a_held_version(registry: Registry) -> None:
    publish_first(registry)
    bad = claim_new(registry, "bad", "2026-03-01#b")
    version = a_version(bad)
    registry.publish_version(bad, version, REPORT, Assessment("good.1", COMPARISON, HELD_REASONS))

    key = registry.activate_version("key1", "bad.1")

    assert (key.current_version, key.current_manifest_sha256) == ("bad.1", version.manifest_sha256)
    assert version in registry.list_versions("key1")
    assert registry.get_job("bad").state is JobState.HELD


def test_holding_again_has_no_effect(registry: Registry) -> None:
    publish_first(registry)
    bad = claim_new(registry, "bad", "2026-03-01#b")
    assessment = Assessment("good.1", COMPARISON, HELD_REASONS)
    registry.publish_version(bad, a_version(bad), REPORT, assessment)
    job = registry.get_job("bad")
    assert registry.publish_version(bad, a_version(bad), REPORT, assessment) is Published.HELD
    assert registry.get_job("bad") == job
    assert len(registry.list_versions("key1")) == 2


def test_comparison_with_another_version_than_the_current_one_changes_nothing(registry: Registry) -> None:
    publish_first(registry)
    late = claim_new(registry, "late", "2026-03-01#c")
    between = claim_new(registry, "between", "2026-03-01#b")
    registry.publish_version(between, a_version(between), REPORT, Assessment("good.1"))
    before = (registry.get_key("key1"), registry.get_job("late"))

    for reasons in ([], HELD_REASONS):
        assessment = Assessment("good.1", COMPARISON, reasons)
        assert registry.publish_version(late, a_version(late), REPORT, assessment) is Published.OUTDATED

    assert (registry.get_key("key1"), registry.get_job("late")) == before
    assert len(registry.list_versions("key1")) == 2


def test_held_version_with_older_data_is_superseded(registry: Registry) -> None:
    publish_first(registry)
    old = claim_new(registry, "old", "2026-02-28#a")
    assessment = Assessment("good.1", COMPARISON, HELD_REASONS)
    assert registry.publish_version(old, a_version(old), REPORT, assessment) is Published.SUPERSEDED
    assert registry.get_job("old").state is JobState.SUPERSEDED
    assert len(registry.list_versions("key1")) == 1


def test_validation_ends_with_its_report_and_without_a_version(registry: Registry) -> None:
    registry.create_key(a_key())
    registry.create_job(replace(a_job(), purpose=JobPurpose.VALIDATE))
    registry.finish_validation(claim(registry), REPORT)
    job = registry.get_job("job1")
    assert (job.state, job.purpose) == (JobState.SUCCEEDED, JobPurpose.VALIDATE)
    assert (job.report, job.version) == (REPORT, None)
    assert registry.list_versions("key1") == []
