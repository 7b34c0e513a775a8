"""Receipts: what became of a dropped file, written where whoever dropped it can read it."""

from __future__ import annotations

import json
from typing import Any, Final

from recsys.clock import Clock, Timestamp, after
from recsys.errors import KeyNotFound, ObjectNotFound
from recsys.keys.api_key import claim_token_sha256, new_claim_token
from recsys.objects.store import ObjectStore
from recsys.registry.records import Job, JobState, KeyRecord
from recsys.registry.registry import Registry

CLAIM_VALID_S: Final = 24 * 3600
MAX_EARLIER: Final = 10
_CLAIM: Final = ("job_id", "key_id", "claim_token", "claim_expires_at")


def write_receipt(job: Job, store: ObjectStore, registry: Registry, clock: Clock) -> None:
    """Write the outcome of a drop whose job is final.

    A drop by somebody new that succeeded carries a token that `POST /v1/key/claim` turns into the API key, once. When a
    worker dies between the steps, the next one writes a receipt with a token of its own; either works. Tokens of other
    files of the name, which the receipt before this one offered, stay under `earlier` until they expire.
    """
    assert job.receipt_name is not None
    document = describe_outcome(job)
    now = clock()
    key = _unclaimed_key(job, registry)
    if key is not None:
        token = new_claim_token()
        day_later = after(now, CLAIM_VALID_S)
        expires_at = min(day_later, key.expires_at or day_later)
        registry.offer_claim(claim_token_sha256(token), job.key_id, expires_at=expires_at)
        document["claim_token"] = token
        document["claim_expires_at"] = expires_at
        document["next"] = 'POST /v1/key/claim with {"claim_token": …} returns the API key, once.'
    earlier = _earlier_claims(job.receipt_name, job.job_id, store, now)
    if earlier:
        document["earlier"] = earlier
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


def _unclaimed_key(job: Job, registry: Registry) -> KeyRecord | None:
    """The key that waits to be claimed with this job's receipt; None where it has a secret, no model, or expired."""
    if job.state is not JobState.SUCCEEDED:
        return None
    try:
        key = registry.get_key(job.key_id)
    except KeyNotFound:
        return None
    return key if key.secret_sha256 is None else None


def _earlier_claims(receipt_name: str, job_id: str, store: ObjectStore, now: Timestamp) -> list[dict[str, str]]:
    """Claims that other jobs offered in this receipt and that still run, oldest first."""
    try:
        receipt = json.loads(store.read(receipt_name))
    except (ObjectNotFound, ValueError):
        return []
    if not isinstance(receipt, dict):
        return []
    before = receipt.get("earlier")
    found = [*(before if isinstance(before, list) else ()), receipt]
    claims = [{name: claim[name] for name in _CLAIM} for claim in found if _is_claim(claim)]
    return [claim for claim in claims if claim["job_id"] != job_id and claim["claim_expires_at"] > now][-MAX_EARLIER:]


def _is_claim(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in _CLAIM)
