"""Receipts: what became of a dropped file, written where whoever dropped it can read it."""

from __future__ import annotations

import json
from typing import Any, Final

from recsys.api_key import claim_token_sha256, new_claim_token
from recsys.clock import Clock, after
from recsys.objects.port import ObjectStore
from recsys.registry.port import Registry
from recsys.registry.records import Job, JobState

CLAIM_VALID_S: Final = 24 * 3600


def write_receipt(job: Job, store: ObjectStore, registry: Registry, clock: Clock) -> None:
    """Write the outcome of a drop whose job is final.

    A drop by somebody new that succeeded carries a token that `POST /v1/key/claim` turns into the API key, once. When a
    worker dies between the steps, the next one writes a receipt with a token of its own; either works.
    """
    assert job.receipt_name is not None
    document = describe_outcome(job)
    if job.state is JobState.SUCCEEDED and registry.get_key(job.key_id).secret_sha256 is None:
        token = new_claim_token()
        expires_at = after(clock(), CLAIM_VALID_S)
        registry.offer_claim(claim_token_sha256(token), job.key_id, expires_at=expires_at)
        document["claim_token"] = token
        document["claim_expires_at"] = expires_at
        document["next"] = 'POST /v1/key/claim with {"claim_token": …} returns the API key, once.'
    store.replace(job.receipt_name, json.dumps(document, indent=2, ensure_ascii=False).encode())
    registry.mark_receipted(job.job_id)


def describe_outcome(job: Job) -> dict[str, Any]:
    """What a receipt says, without the token."""
    document: dict[str, Any] = {
        "file": job.object_name,
        "status": job.state.value,
        "job_id": job.job_id,
        "key_id": job.key_id,
        "model_version": job.version,
        "metrics": job.metrics,
        "report": job.report,
        "problem": job.problem.to_json() if job.problem else None,
        "finished_at": job.updated_at,
    }
    return {name: value for name, value in document.items() if value is not None}
