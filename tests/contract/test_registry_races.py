"""Concurrent operations of the registry, on the adapters that are atomic under threads (moto's server is not)."""

from __future__ import annotations

from functools import partial

from recsys.errors import Gone, JobBusy, KeyExists
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import JobState, Lease
from recsys.registry.registry import Published
from tests.contract.conftest import Bench
from tests.contract.records import HOUR_LATER, REPORT, a_job, a_key, a_version, claim, claim_new
from tests.racing import race

ROUNDS = 12


def test_one_of_many_workers_claims_a_job(atomic_bench: Bench) -> None:
    registry = atomic_bench.registry
    for number in range(ROUNDS):
        registry.create_job(a_job(f"job{number}"))
        outcomes = race(*(partial(claim, registry, f"job{number}", owner=f"worker-{w}") for w in range(6)))
        leases = [outcome for outcome in outcomes if isinstance(outcome, Lease)]
        assert [lease.fence for lease in leases] == [1]
        assert sum(isinstance(outcome, JobBusy) for outcome in outcomes) == 5
        assert registry.get_job(f"job{number}") == leases[0].job


def test_concurrent_claims_of_one_owner_get_different_fences(atomic_bench: Bench) -> None:
    registry = atomic_bench.registry
    registry.create_job(a_job())
    outcomes = race(*[partial(claim, registry)] * 6)
    assert sorted(outcome.fence for outcome in outcomes if isinstance(outcome, Lease)) == [1, 2, 3, 4, 5, 6]
    assert registry.get_job("job1").fence == 6


def test_the_newest_data_becomes_current_in_any_order_of_publication(atomic_bench: Bench) -> None:
    registry = atomic_bench.registry
    for number in range(ROUNDS):
        key_id = f"key{number}"
        registry.create_key(a_key(key_id))
        leases = []
        for source in "abcd":
            registry.create_job(a_job(f"{source}{number}", key_id=key_id))
            leases.append(claim(registry, f"{source}{number}", source=f"2026-03-01#{source}"))
        outcomes = race(*(partial(registry.publish_version, lease, a_version(lease), REPORT) for lease in leases))
        assert set(outcomes) <= {Published.CURRENT, Published.SUPERSEDED}
        assert outcomes[3] is Published.CURRENT
        key = registry.get_key(key_id)
        assert (key.current_version, key.current_data_timestamp) == (f"d{number}.1", "2026-03-01#d")
        # Each publication that became current incremented the revision and added a version; the others added nothing.
        kept = {lease.version for lease, outcome in zip(leases, outcomes, strict=True) if outcome is Published.CURRENT}
        assert {version.version for version in registry.list_versions(key_id)} == kept
        assert key.revision == len(kept)
        states = {lease.version: registry.get_job(lease.job.job_id).state for lease in leases}
        assert {version for version, state in states.items() if state is JobState.SUCCEEDED} == kept
        assert set(states.values()) <= {JobState.SUCCEEDED, JobState.SUPERSEDED}


def test_either_the_publication_or_the_concurrent_claim_succeeds(atomic_bench: Bench) -> None:
    registry, clock = atomic_bench.registry, atomic_bench.clock
    for number in range(ROUNDS):
        registry.create_key(a_key(f"key{number}"))
        registry.create_job(a_job(f"job{number}", key_id=f"key{number}"))
        stale = claim(registry, f"job{number}", owner="worker-1")
        clock.advance(60)
        published, taken = race(
            partial(registry.publish_version, stale, a_version(stale), REPORT),
            partial(claim, registry, f"job{number}", owner="worker-2"),
        )
        assert (published is Published.CURRENT) is not isinstance(taken, Lease)
        current = registry.get_key(f"key{number}").current_version
        assert current == (stale.version if published is Published.CURRENT else None)


def test_concurrent_changes_of_a_key_are_all_kept(atomic_bench: Bench) -> None:
    registry = atomic_bench.registry
    for number in range(ROUNDS):
        registry.create_key(a_key(f"key{number}"))
        registry.create_job(a_job(f"job{number}", key_id=f"key{number}"))
        lease = claim(registry, f"job{number}")
        outcomes = race(
            partial(registry.rotate_key, f"key{number}", "2" * 64, overlap_s=60),
            partial(registry.publish_version, lease, a_version(lease), REPORT),
        )
        assert isinstance(outcomes[0], KeyRecord)
        assert outcomes[1] is Published.CURRENT
        key = registry.get_key(f"key{number}")
        assert (key.revision, key.secret_sha256, key.current_version) == (2, "2" * 64, f"job{number}.1")


def test_a_claim_token_works_for_one_of_many_clients(atomic_bench: Bench) -> None:
    registry = atomic_bench.registry
    for number in range(ROUNDS):
        registry.create_key(a_key(f"key{number}", secret_sha256=None))
        registry.offer_claim(f"token{number}", f"key{number}", expires_at=HOUR_LATER)
        outcomes = race(*(partial(registry.claim_key, f"token{number}", f"secret{s}") for s in range(6)))
        winners = [outcome for outcome in outcomes if isinstance(outcome, KeyRecord)]
        assert len(winners) == 1
        assert sum(isinstance(outcome, Gone) for outcome in outcomes) == 5
        assert registry.get_key(f"key{number}") == winners[0]


def test_concurrent_creates_store_one_key_and_one_job(atomic_bench: Bench) -> None:
    registry = atomic_bench.registry
    for number in range(ROUNDS):
        keys = [a_key(f"key{number}", secret_sha256=f"secret{s}") for s in range(5)]
        outcomes = race(*(partial(registry.create_key, key) for key in keys))
        assert sum(isinstance(outcome, KeyExists) for outcome in outcomes) == 4
        assert registry.get_key(f"key{number}") == keys[outcomes.index(None)]

        jobs = [a_job(f"job{number}", fingerprint=f"body{b}") for b in range(5)]
        created = race(*(partial(registry.create_job, job) for job in jobs))
        assert set(map(repr, created)) == {repr(registry.get_job(f"job{number}"))}


def test_concurrent_renewal_and_receipt_are_both_kept(atomic_bench: Bench) -> None:
    registry = atomic_bench.registry
    for number in range(ROUNDS):
        lease = claim_new(registry, f"job{number}", "2026-03-01#a")
        outcomes = race(
            partial(registry.mark_receipted, lease.job.job_id),
            partial(registry.renew_lease, lease, lease_s=3600, progress=None),
        )
        assert list(outcomes) == [None, None]
        job = registry.get_job(lease.job.job_id)
        assert (job.receipted_at, job.lease_until) == (atomic_bench.clock.now, HOUR_LATER)
