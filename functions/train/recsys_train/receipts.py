"""Write receipts to the object store. A receipt tells the tenant the outcome of a dropped file."""

from __future__ import annotations

import json
from typing import Any, Final

from recsys.clock import Clock, Timestamp, after
from recsys.errors import KeyNotFound, ObjectNotFound
from recsys.keys.api_key import claim_token_sha256, new_claim_token
from recsys.objects.store import ObjectStore
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobState
from recsys.registry.registry import Registry

CLAIM_VALID_S: Final = 24 * 3600
MAX_EARLIER_CLAIMS: Final = 10
_CLAIM_FIELDS: Final = ("job_id", "key_id", "claim_token", "claim_expires_at")


def write_receipt(job: Job, store: ObjectStore, registry: Registry, clock: Clock) -> None:
    """Write the receipt of a drop whose job is in a final state.

    If the job succeeded and its key has no secret yet, the receipt contains a claim token, which `POST /v1/key/claim`
    exchanges for the API key once. If a worker dies after it has stored a token and before it has written the receipt,
    the next worker stores another token, and both tokens are valid. If an earlier file has a receipt with the same
    name, the claim tokens of that receipt are kept under `earlier` until they expire.
    """
    assert job.receipt_name is not None
    document = describe_outcome(job)
    now = clock()
    key = _unclaimed_key(job, registry)
    if key is not None:
        token = new_claim_token()
        latest = after(now, CLAIM_VALID_S)
        expires_at = min(latest, key.expires_at or latest)
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
    """Return the content of the receipt, without claim tokens."""
    document: dict[str, Any] = {
        "file": job.object_name,
        "status": job.state.value,
        "job_id": job.job_id,
        "key_id": job.key_id,
        "mode": job.mode,
        "model_version": job.version,
        "metrics": job.metrics,
        "held_reasons": job.held_reasons,
        "comparison": job.comparison,
        "report": job.report,
        "problem": job.problem.to_json() if job.problem else None,
        "finished_at": job.updated_at,
    }
    return {name: value for name, value in document.items() if value is not None}


def _unclaimed_key(job: Job, registry: Registry) -> KeyRecord | None:
    """Return the key of a succeeded job if the key exists and has no secret yet. Otherwise return None."""
    if job.state is not JobState.SUCCEEDED:
        return None
    try:
        key = registry.get_key(job.key_id)
    except KeyNotFound:
        return None
    return key if key.secret_sha256 is None else None


def _earlier_claims(receipt_name: str, job_id: str, store: ObjectStore, now: Timestamp) -> list[dict[str, str]]:
    """Return the unexpired claim tokens of other jobs in the existing receipt, oldest first.

    A receipt that cannot be parsed counts as a receipt without claim tokens.
    """
    try:
        receipt = json.loads(store.read(receipt_name))
    except (ObjectNotFound, ValueError):
        return []
    if not isinstance(receipt, dict):
        return []
    earlier = receipt.get("earlier")
    candidates = [*(earlier if isinstance(earlier, list) else ()), receipt]
    claims = [{name: claim[name] for name in _CLAIM_FIELDS} for claim in candidates if _is_claim(claim)]
    valid = [claim for claim in claims if claim["job_id"] != job_id and claim["claim_expires_at"] > now]
    return valid[-MAX_EARLIER_CLAIMS:]


def _is_claim(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), str) for name in _CLAIM_FIELDS)
