"""Process drops into the inbox: keys, claims and receipts."""

from __future__ import annotations

import gzip
from dataclasses import replace

import pytest

from recsys.clock import DAY_S, after
from recsys.errors import Gone, KeyNotFound, Unavailable
from recsys.keys.api_key import ApiKey, claim_token_sha256
from recsys.registry.records import JobState
from tests.markers import TENSORFLOW
from tests.train.backend import BAD_CSV, GOOD_CSV, Backend, raising

pytestmark = list(TENSORFLOW)


def test_a_drop_without_a_key_creates_a_key_that_can_be_claimed_once(backend: Backend) -> None:
    job = backend.finish(backend.put("inbox/orders.csv"))
    assert backend.only_version_is(job.key_id, f"{job.job_id}.1")
    receipt = backend.receipt("receipts/orders.json")
    assert (receipt["status"], receipt["key_id"]) == ("succeeded", job.key_id)
    assert (receipt["file"], receipt["model_version"]) == ("inbox/orders.csv", job.version)
    assert receipt["claim_expires_at"] == after(backend.now, 24 * 3600)
    secret = ApiKey.mint(job.key_id)
    token = claim_token_sha256(receipt["claim_token"])
    assert backend.registry.claim_key(token, secret.sha256()).key_id == job.key_id
    assert backend.registry.get_key(job.key_id).secret_sha256 == secret.sha256()
    with pytest.raises(Gone):
        backend.registry.claim_key(token, ApiKey.mint().sha256())


def test_a_claim_token_expires_after_a_day(backend: Backend) -> None:
    backend.finish(backend.put("inbox/orders.csv"))
    token = claim_token_sha256(backend.receipt("receipts/orders.json")["claim_token"])
    backend.pass_s(24 * 3600)
    with pytest.raises(Gone):
        backend.registry.claim_key(token, ApiKey.mint().sha256())


def test_a_repeated_drop_event_changes_neither_key_nor_receipt(backend: Backend) -> None:
    event = backend.put("inbox/orders.csv")
    first = backend.finish(event)
    receipt = backend.store.info("receipts/orders.json")
    assert backend.finish(event, backend.worker("worker-2")).key_id == first.key_id
    assert backend.store.info("receipts/orders.json") == receipt
    assert backend.fits == 1


def test_a_drop_that_stays_in_the_inbox_for_a_year_is_not_trained_again(backend: Backend) -> None:
    event = backend.put("inbox/orders.csv")
    job = backend.finish(event)
    backend.claim("receipts/orders.json")
    backend.finish(backend.put(f"inbox/{job.key_id}/newer.csv"))
    current = backend.load(job.key_id).version
    backend.pass_s(400 * DAY_S)
    found_after_a_restart = replace(event, data_timestamp=f"{backend.now}#{event.name}")
    assert backend.finish(found_after_a_restart).version == job.version
    assert backend.load(job.key_id).version == current
    assert backend.fits == 2


def test_every_drop_without_a_key_creates_its_own_key(backend: Backend) -> None:
    jobs = [backend.finish(backend.put(f"inbox/shop{number}.csv")) for number in (1, 2)]
    jobs.append(backend.finish(backend.put("inbox/shop1.csv")))  # the same name, another file
    assert len({job.key_id for job in jobs}) == 3


def test_a_replaced_drop_fails_and_the_newer_file_is_trained(backend: Backend) -> None:
    older = backend.put("inbox/orders.csv", GOOD_CSV)
    newer = backend.put("inbox/orders.csv", GOOD_CSV + b"u1,i1\n")
    job = backend.finish(older)
    assert job.problem is not None
    assert (job.state, job.problem.code) == (JobState.FAILED, "upload-replaced")
    trained = backend.finish(newer)
    assert (trained.state, trained.report and trained.report["lines"]) == (JobState.SUCCEEDED, 33)
    assert backend.receipt("receipts/orders.json")["job_id"] == trained.job_id
    assert all(stream.closed for stream in backend.store.opened)


def test_two_drops_of_the_same_name_can_both_be_claimed(backend: Backend) -> None:
    first = backend.finish(backend.put("inbox/orders.csv"))
    offered = backend.receipt("receipts/orders.json")
    second = backend.finish(backend.put("inbox/orders.csv"))
    receipt = backend.receipt("receipts/orders.json")
    assert receipt["earlier"] == [
        {name: offered[name] for name in ("job_id", "key_id", "claim_token", "claim_expires_at")}
    ]
    assert backend.claim("receipts/orders.json").key_id == second.key_id
    token = claim_token_sha256(receipt["earlier"][0]["claim_token"])
    assert backend.registry.claim_key(token, "6" * 64).key_id == first.key_id


def test_a_receipt_keeps_ten_earlier_claims_until_they_expire(backend: Backend) -> None:
    jobs = [backend.finish(backend.put("inbox/orders.csv")).job_id for _ in range(13)]
    earlier = backend.receipt("receipts/orders.json")["earlier"]
    assert [claim["job_id"] for claim in earlier] == jobs[2:12]
    backend.pass_s(24 * 3600)
    backend.finish(backend.put("inbox/orders.csv"))
    assert "earlier" not in backend.receipt("receipts/orders.json")


@pytest.mark.parametrize(
    "content", [b"\xff", b"", b"[1]", b"null", b'{"earlier": 1, "claim_token": 2}', b'{"earlier": [1]}']
)
def test_an_invalid_receipt_is_overwritten(backend: Backend, content: bytes) -> None:
    backend.store.replace("receipts/orders.json", content)
    backend.finish(backend.put("inbox/orders.csv"))
    receipt = backend.receipt("receipts/orders.json")
    assert receipt["status"] == "succeeded"
    assert "earlier" not in receipt


def test_a_gzipped_drop_and_a_plain_one_have_separate_receipts(backend: Backend) -> None:
    backend.finish(backend.put("inbox/orders.csv"))
    backend.finish(backend.put("inbox/orders.csv.gz", gzip.compress(GOOD_CSV)))
    assert backend.objects("receipts/") == ["receipts/orders.gz.json", "receipts/orders.json"]


def test_a_drop_with_the_longest_name_gets_a_receipt(backend: Backend) -> None:
    job = backend.finish(backend.put(f"inbox/{'x' * 251}.csv"))
    assert job.receipt_name is not None
    assert backend.receipt(job.receipt_name)["status"] == "succeeded"


def test_an_unclaimed_key_is_deleted_after_a_week(backend: Backend) -> None:
    event = backend.put("inbox/orders.csv")
    job = backend.finish(event)
    assert backend.registry.get_key(job.key_id).current_version == job.version
    backend.pass_s(7 * DAY_S)
    for _ in range(2):
        with pytest.raises(KeyNotFound):
            backend.registry.get_key(job.key_id)
        backend.finish(event)  # as after a restart


def test_a_claimed_key_does_not_expire(backend: Backend) -> None:
    job = backend.finish(backend.put("inbox/orders.csv"))
    backend.claim("receipts/orders.json")
    backend.pass_s(10 * 365 * DAY_S)
    assert backend.registry.get_key(job.key_id).current_version == job.version


def test_a_claim_expires_no_later_than_its_key(backend: Backend) -> None:
    event = backend.put("inbox/orders.csv")
    dropped_at = backend.now
    backend.store.before["replace"] = raising(Unavailable("The disk is full."))
    with pytest.raises(Unavailable):
        backend.process(event)
    backend.store.before.clear()
    backend.pass_s(7 * DAY_S - 60)
    backend.finish(event)
    assert backend.receipt("receipts/orders.json")["claim_expires_at"] == after(dropped_at, 7 * DAY_S)


def test_a_receipt_written_after_its_key_expired_offers_no_claim(backend: Backend) -> None:
    event = backend.put("inbox/orders.csv")
    backend.store.before["replace"] = raising(Unavailable("The disk is full."))
    with pytest.raises(Unavailable):
        backend.process(event)
    backend.store.before.clear()
    backend.pass_s(7 * DAY_S)
    backend.finish(event)
    receipt = backend.receipt("receipts/orders.json")
    assert receipt["status"] == "succeeded"
    assert "claim_token" not in receipt


def test_a_drop_for_a_key_becomes_its_next_version(backend: Backend) -> None:
    first = backend.finish(backend.put("inbox/orders.csv"))
    job = backend.finish(backend.put(f"inbox/{first.key_id}/more.csv.gz", gzip.compress(GOOD_CSV)))
    assert (job.key_id, job.state) == (first.key_id, JobState.SUCCEEDED)
    assert backend.load(first.key_id).version == job.version
    assert len(backend.registry.list_versions(first.key_id)) == 2


def test_the_receipt_for_a_claimed_key_has_no_token(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    backend.finish(backend.put(f"inbox/{key_id}/orders.csv"))
    receipt = backend.receipt(f"receipts/{key_id}/orders.json")
    assert receipt["status"] == "succeeded"
    assert not {"claim_token", "claim_expires_at", "next"} & set(receipt)


@pytest.mark.parametrize("was_revoked", [False, True], ids=["never-existed", "revoked"])
def test_a_drop_for_an_unknown_or_revoked_key_fails_with_a_receipt(backend: Backend, was_revoked: bool) -> None:
    key_id = "nobodysKey12"
    if was_revoked:
        key_id = backend.add_key().key_id
        backend.registry.revoke_key(key_id)
    job = backend.finish(backend.put(f"inbox/{key_id}/orders.csv"))
    assert job.state is JobState.FAILED
    receipt = backend.receipt(f"receipts/{key_id}/orders.json")
    assert (receipt["status"], receipt["problem"]["code"]) == ("failed", "unknown-key")
    assert "claim_token" not in receipt
    assert (backend.objects("models/"), backend.fits) == ([], 0)


def test_the_receipt_of_a_bad_drop_lists_the_lines_and_has_no_token(backend: Backend) -> None:
    backend.finish(backend.put("inbox/orders.csv", BAD_CSV))
    receipt = backend.receipt("receipts/orders.json")
    assert receipt["status"] == "failed"
    assert [error["line"] for error in receipt["problem"]["errors"]] == [3, 4]
    assert "claim_token" not in receipt


def test_a_key_without_a_model_expires_after_a_week(backend: Backend) -> None:
    job = backend.finish(backend.put("inbox/orders.csv", BAD_CSV))
    dropped_at = backend.now
    assert backend.registry.get_key(job.key_id).expires_at == after(dropped_at, 7 * DAY_S)


def test_a_receipt_that_could_not_be_written_is_written_at_the_next_event(backend: Backend) -> None:
    event = backend.put("inbox/orders.csv")
    backend.store.before["replace"] = raising(Unavailable("The disk is full."))
    with pytest.raises(Unavailable):
        backend.process(event)
    assert backend.objects("receipts/") == []
    backend.store.before.clear()
    job = backend.finish(event)
    token = claim_token_sha256(backend.receipt("receipts/orders.json")["claim_token"])
    assert backend.registry.claim_key(token, "5" * 64).key_id == job.key_id
    assert backend.fits == 1
