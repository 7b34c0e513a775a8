"""Records for the tests of the registry."""

from __future__ import annotations

from typing import Any

from recsys.clock import Timestamp
from recsys.errors import FieldError, Problem
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose, JobState, Lease, ModelVersion, Progress
from recsys.registry.registry import Registry
from recsys.registry.scoped_keys import Scope, ScopedKey

NOW = Timestamp("2026-03-01T12:00:00.000000Z")
MINUTE_LATER = Timestamp("2026-03-01T12:01:00.000000Z")
HOUR_LATER = Timestamp("2026-03-01T13:00:00.000000Z")
DAY_BEFORE = Timestamp("2026-02-28T12:00:00.000000Z")

REPORT: dict[str, Any] = {
    "rows": 12_345,
    "share": 0.25,
    "columns": ["user_id", "item_id"],
    "name": "Größe “日本語” 🛒",
    "nothing": None,
    "nested": {"truth": True},
}
METRICS: dict[str, Any] = {"ndcg_at_20": 0.1113, "baselines": {"popularity": {"ndcg_at_20": 0.04}}, "n_users": 3}
PROBLEM = Problem(
    "invalid-data",
    "The data cannot be used",
    "Line 7 has no item_id. Received: 'ü'.",
    "Give each line an item_id.",
    (FieldError("missing", "item_id is empty", line=7), FieldError("bad", "no such column", pointer="/columns/0")),
)
HELD_REASONS = [{"code": "loses-users", "text": "größe"}]
COMPARISON = {"current": {"users": 300}, "new": {"users": 6}}
PROGRESS = Progress("fitting", epoch=2, epochs=10, loss=0.3125, validation_ndcg=0.0625)

FULL_KEY = KeyRecord(
    key_id="fullKey",
    created_at=DAY_BEFORE,
    revision=7,
    secret_sha256="a" * 64,
    previous_sha256="b" * 64,
    previous_expires_at=HOUR_LATER,
    revoked_at=MINUTE_LATER,
    expires_at=HOUR_LATER,
    current_version="job.3",
    current_manifest_sha256="c" * 64,
    current_data_timestamp="2026-02-28T12:00:00.000000Z#tie",
    catalogue_version="items.1",
    catalogue_sha256="9" * 64,
    catalogue_data_timestamp="2026-02-28T11:00:00.000000Z#tie",
    scoped_keys=(
        ScopedKey("shopPage", "größe", Scope.RECOMMEND, "e" * 64, DAY_BEFORE, ("https://shop.example",)),
        ScopedKey("uploader", "nightly", Scope.TRAIN, "f" * 64, NOW),
    ),
    replaced_data_timestamp="2026-02-27T12:00:00.000000Z#tie",
    erasures='{"salt":"00","last":1,"users":[[1,"ab","2026-02-28T12:00:00.000000Z"]]}',
    current_erasures=1,
    excluded_items='["POSTAGE","größe"]',
)
FULL_JOB = Job(
    job_id="fullJob",
    key_id="fullKey",
    object_name="inbox/fullKey/größe 1+1.csv",
    created_at=DAY_BEFORE,
    updated_at=NOW,
    state=JobState.RUNNING,
    fence=3,
    lease_owner="worker-1",
    lease_until=MINUTE_LATER,
    started_at=DAY_BEFORE,
    error_fence=2,
    kills=1,
    killed_after_s=290,
    data_timestamp="2026-02-28T12:00:00.000000Z#tie",
    fingerprint="d" * 64,
    object_version="version 1",
    purpose=JobPurpose.CATALOGUE,
    receipt_name="receipts/fullKey/größe.json",
    receipted_at=NOW,
    interruptions=1,
    expires_at=HOUR_LATER,
    version="fullJob.3",
    progress=PROGRESS,
    report=REPORT,
    metrics=METRICS,
    problem=PROBLEM,
    held_reasons=HELD_REASONS,
    comparison=COMPARISON,
)


def a_key(key_id: str = "key1", **fields: Any) -> KeyRecord:
    return KeyRecord(key_id=key_id, created_at=NOW, **{"secret_sha256": "1" * 64, **fields})


def a_job(job_id: str = "job1", **fields: Any) -> Job:
    values = {"key_id": "key1", "object_name": f"uploads/{job_id}.csv", "created_at": NOW, "updated_at": NOW}
    return Job(job_id=job_id, **{**values, **fields})


def a_version(lease: Lease, **fields: Any) -> ModelVersion:
    values = {"created_at": NOW, "manifest_sha256": f"manifest of {lease.version}", "metrics": METRICS}
    return ModelVersion(
        **{"key_id": lease.job.key_id, "version": lease.version, "job_id": lease.job.job_id, **values, **fields}
    )


def claim(registry: Registry, job_id: str = "job1", *, owner: str = "worker-1", source: str = "2026-03-01#a") -> Lease:
    """Claim a job for one minute."""
    return registry.claim_job(job_id, owner=owner, data_timestamp=source, lease_s=60.0)


def claim_new(registry: Registry, job_id: str, source: str) -> Lease:
    """Store a job of `key1` and claim it."""
    registry.create_job(a_job(job_id))
    return claim(registry, job_id, source=source)
