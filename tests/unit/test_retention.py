"""What retention deletes, decided without stores."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from recsys.clock import DAY_S, Timestamp, after
from recsys.objects.store import ObjectInfo
from recsys.registry.key_record import KeyRecord
from recsys.registry.reading import version_address
from recsys.registry.records import Job, JobState, ModelVersion
from recsys.registry.table import Row
from recsys.retention.plan import (
    MARK_DAYS,
    Deletion,
    KeyContents,
    Reason,
    RetentionPolicy,
    plan_aged,
    plan_catalogue,
    plan_upload,
    plan_versions,
)

NOW = Timestamp("2026-03-01T12:00:00.000000Z")
LONG_AGO = after(NOW, -90 * DAY_S)
POLICY = RetentionPolicy(versions_kept=2, grace_s=3600.0, upload_days=30)
KEY = KeyRecord("key1", LONG_AGO, secret_sha256="1" * 64, current_version="v6.1")


def a_version(number: int, **fields: Timestamp) -> ModelVersion:
    created_at = after(LONG_AGO, number)
    return ModelVersion("key1", f"v{number}.1", f"v{number}", created_at, "digest", {}, **fields)


def a_row(version: ModelVersion) -> Row:
    return Row(version_address("key1", version.version), version.to_document(), f"etag of {version.version}")


def an_object(name: str, *, at: Timestamp = LONG_AGO, size_bytes: int = 10) -> ObjectInfo:
    return ObjectInfo(name, size_bytes, "1", modified_at=at, arrived_at=at)


def files_of(version: str, *, at: Timestamp = LONG_AGO) -> dict[str, list[ObjectInfo]]:
    names = [f"models/key1/{version}/{file}" for file in ("manifest.json", "serving.npz")]
    return {version: [an_object(name, at=at) for name in names]}


def planned(
    key: KeyRecord | None,
    versions: Sequence[ModelVersion] = (),
    files: dict[str, list[ObjectInfo]] | None = None,
    jobs: Sequence[Job] = (),
) -> list[Deletion]:
    contents = KeyContents(
        "key1", key, [a_row(version) for version in versions], files or {}, {job.job_id: job for job in jobs}
    )
    return plan_versions(contents, POLICY, NOW)


def outcome(deletions: Sequence[Deletion]) -> list[tuple[str, Reason]]:
    return [(deletion.what.split("/")[2], deletion.reason) for deletion in deletions]


# -- versions


def test_current_version_and_the_newest_others_are_kept() -> None:
    versions = [a_version(number) for number in range(1, 7)]
    assert outcome(planned(KEY, versions)) == [
        ("v3.1", Reason.REPLACED),
        ("v2.1", Reason.REPLACED),
        ("v1.1", Reason.REPLACED),
    ]


def test_pinned_and_activated_versions_are_kept_besides_the_newest() -> None:
    key = KeyRecord("key1", LONG_AGO, current_version="v1.1")
    versions = [a_version(1), a_version(2, pinned_at=NOW), *(a_version(number) for number in range(3, 7))]
    assert outcome(planned(key, versions)) == [("v4.1", Reason.REPLACED), ("v3.1", Reason.REPLACED)]


def test_versions_with_erased_users_are_deleted_in_time_pinned_or_not() -> None:
    overdue, later = after(NOW, -1), after(NOW, 1)
    versions = [
        a_version(1, erase_by=NOW),
        a_version(2, erase_by=overdue, pinned_at=LONG_AGO),
        a_version(3),
        a_version(4, erase_by=later),
        a_version(5, erase_by=overdue),
        a_version(6, erase_by=overdue),  # the current one
    ]
    erased = [("v1.1", Reason.ERASED), ("v2.1", Reason.ERASED), ("v5.1", Reason.ERASED)]
    assert outcome(planned(KEY, versions)) == erased


def test_a_version_is_marked_first_and_only_if_its_row_is_unchanged() -> None:
    versions = [a_version(number) for number in range(3, 7)]
    (deletion,) = planned(KEY, versions, files_of("v3.1"))
    assert (deletion.object_names, deletion.size_bytes) == ((), 20)
    assert deletion.is_mark
    assert deletion.mark is not None
    assert deletion.mark.etag == "etag of v3.1"
    assert deletion.mark.document == {
        **a_version(3).to_document(),
        "deleted_at": NOW,
        "expires_at": after(NOW, MARK_DAYS * DAY_S),
    }


@pytest.mark.parametrize(("age_s", "is_deleted"), [(3599, False), (3600, True)])
def test_files_of_a_marked_version_are_deleted_after_the_grace_period(age_s: int, is_deleted: bool) -> None:
    marked = a_version(1, deleted_at=after(NOW, -age_s), expires_at=after(NOW, DAY_S))
    deletions = planned(KEY, [marked], files_of("v1.1"))
    assert len(deletions) == is_deleted
    for deletion in deletions:
        assert deletion.object_names == ("models/key1/v1.1/manifest.json", "models/key1/v1.1/serving.npz")
        assert not deletion.is_mark


def test_a_marked_version_without_files_needs_no_work() -> None:
    marked = a_version(1, deleted_at=after(NOW, -7200), expires_at=after(NOW, DAY_S))
    assert planned(KEY, [marked]) == []


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (None, Reason.EXPIRED),
        (KeyRecord("key1", LONG_AGO, current_version="v6.1", expires_at=after(NOW, -3600)), Reason.EXPIRED),
        (KeyRecord("key1", LONG_AGO, current_version="v6.1", revoked_at=NOW), Reason.REVOKED),
    ],
)
def test_every_version_of_a_lost_key_is_deleted_pinned_or_not(key: KeyRecord | None, reason: Reason) -> None:
    assert outcome(planned(key, [a_version(5, pinned_at=NOW), a_version(6)])) == [("v5.1", reason), ("v6.1", reason)]


@pytest.mark.parametrize(
    ("key", "is_deleted"),
    [(None, True), (KeyRecord("key1", LONG_AGO, revoked_at=NOW), True), (KeyRecord("key1", LONG_AGO), False)],
)
def test_the_catalogue_is_deleted_with_its_key(key: KeyRecord | None, is_deleted: bool) -> None:
    name = "models/key1/catalogue/items.1/items.npz"
    deletion = plan_catalogue(KeyContents("key1", key, catalogue=[an_object(name)]), POLICY, NOW)
    assert (deletion is not None and deletion.object_names == (name,)) == is_deleted


def test_a_key_that_has_just_expired_keeps_its_versions_for_the_grace_period() -> None:
    key = KeyRecord("key1", LONG_AGO, current_version="v6.1", expires_at=after(NOW, -3599))
    assert planned(key, [a_version(6)]) == []


# -- leftovers of attempts


def a_job(state: JobState, *, fence: int = 1, lease_s: float | None = None) -> Job:
    lease_until = after(NOW, lease_s) if lease_s is not None else None
    return Job("job1", "key1", "uploads/job1.csv", LONG_AGO, LONG_AGO, state, fence=fence, lease_until=lease_until)


@pytest.mark.parametrize(
    ("job", "is_deleted"),
    [
        (a_job(JobState.RUNNING, lease_s=30), False),
        (a_job(JobState.RUNNING, lease_s=-3599), False),
        (a_job(JobState.RUNNING, lease_s=-3600), True),
        (a_job(JobState.RUNNING, fence=2, lease_s=30), True),
        (a_job(JobState.QUEUED), True),
        (a_job(JobState.FAILED), True),
        (a_job(JobState.SUPERSEDED), True),
        (a_job(JobState.SUCCEEDED, fence=2), True),
    ],
    ids=["running", "overdue", "dead", "taken over", "released", "failed", "superseded", "a later attempt published"],
)
def test_files_that_no_attempt_can_publish_are_deleted(job: Job, is_deleted: bool) -> None:
    found = planned(KEY, files=files_of("job1.1"), jobs=[job])
    assert outcome(found) == ([("job1.1", Reason.UNPUBLISHED)] if is_deleted else [])


def test_leftovers_are_marked_so_that_a_slow_worker_cannot_publish_them() -> None:
    (deletion,) = planned(KEY, files=files_of("job1.1"), jobs=[a_job(JobState.FAILED)])
    assert deletion.mark is not None
    assert (deletion.mark.address, deletion.mark.etag) == (version_address("key1", "job1.1"), None)
    assert deletion.mark.document is not None
    assert deletion.mark.document["deleted_at"] == NOW


def test_leftovers_are_kept_for_the_grace_period() -> None:
    recent = files_of("job1.1", at=after(NOW, -3599))
    assert planned(KEY, files=recent, jobs=[a_job(JobState.FAILED)]) == []


@pytest.mark.parametrize(("age_days", "is_deleted"), [(6, False), (7, True)])
def test_files_of_an_unknown_job_are_kept_for_a_week(age_days: int, is_deleted: bool) -> None:
    found = planned(KEY, files=files_of("job1.1", at=after(NOW, -age_days * DAY_S)))
    assert outcome(found) == ([("job1.1", Reason.UNKNOWN)] if is_deleted else [])


# -- uploads and receipts

UPLOAD = "uploads/job1.csv"
REVOKED = KeyRecord("key1", LONG_AGO, revoked_at=NOW)


@pytest.mark.parametrize(
    ("age_s", "state", "key", "reason"),
    [
        (31 * DAY_S, JobState.SUCCEEDED, KEY, Reason.OLD),
        (30 * DAY_S, JobState.SUCCEEDED, KEY, None),
        (31 * DAY_S, JobState.QUEUED, KEY, None),
        (3600, JobState.QUEUED, REVOKED, Reason.REVOKED),
        (3599, JobState.QUEUED, REVOKED, None),
        (3600, JobState.FAILED, None, Reason.EXPIRED),
        (31 * DAY_S, None, None, Reason.OLD),
        (DAY_S, None, None, None),
    ],
)
def test_uploads_are_deleted_when_they_are_old_or_their_key_is_lost(
    age_s: float, state: JobState | None, key: KeyRecord | None, reason: Reason | None
) -> None:
    job = a_job(state) if state is not None else None
    deletion = plan_upload(an_object(UPLOAD, at=after(NOW, -age_s)), job, key, POLICY, NOW)
    assert (deletion.reason if deletion else None) is reason
    if deletion:
        assert (deletion.what, deletion.object_names, deletion.size_bytes) == (UPLOAD, (UPLOAD,), 10)


def test_old_objects_are_left_to_a_store_that_deletes_them_itself() -> None:
    on_aws = RetentionPolicy(upload_days=None)
    receipt = an_object("receipts/orders.json")
    assert plan_aged(receipt, on_aws, NOW) is None
    assert plan_aged(receipt, POLICY, NOW) == Deletion(
        receipt.name, Reason.OLD, receipt.size_bytes, object_names=(receipt.name,)
    )


def test_the_grace_period_exceeds_the_cache_of_keys() -> None:
    for key_cache_s in (0.0, 4.0, 86_400.0):
        assert (
            RetentionPolicy.of(versions_kept=5, key_cache_s=key_cache_s, upload_days=30, audit_days=365).grace_s
            > key_cache_s
        )
