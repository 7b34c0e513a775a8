"""What a registry must do. `tests/contract/test_registry.py` says it in tests.

Every verb is atomic and durable when it returns, and safe to call from many processes at once. An adapter is made with
a `Clock`; "now" below is what it says. Every verb raises `Unavailable` when the store does not answer.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Protocol

from recsys.clock import Timestamp
from recsys.errors import Problem
from recsys.registry.records import Job, KeyRecord, Lease, ModelVersion, Progress


class Published(StrEnum):
    """How a publication ended."""

    CURRENT = "current"
    """The version is what readers get from now on."""
    SUPERSEDED = "superseded"
    """The key's current version was made from newer data, or the key was revoked: this version was not kept."""


class KeyReader(Protocol):
    """Keys that can be read: all that recommending needs of a registry."""

    def get_key(self, key_id: str) -> KeyRecord:
        """Read a key, revoked ones included; what was written before the call is seen (a consistent read).

        Raises
        ------
        KeyNotFound
            There is none, or it expired (`expires_at` ≤ now), whether or not it was removed yet.
        """


class Registry(KeyReader, Protocol):
    """Keys, jobs and versions."""

    # -- keys

    def create_key(self, key: KeyRecord) -> None:
        """Add a key.

        Raises
        ------
        KeyExists
            A key of this id exists (an expired one counts as absent); it is left as it is.
        """

    def rotate_key(self, key_id: str, new_sha256: str, *, overlap_s: float) -> KeyRecord:
        """Replace the secret; the one before works for `overlap_s` more. Raises `KeyNotFound` (revoked ones too)."""

    def revoke_key(self, key_id: str) -> None:
        """Make the key invalid for good; the second time is no error. Raises `KeyNotFound`."""

    def offer_claim(self, token_sha256: str, key_id: str, *, expires_at: Timestamp) -> None:
        """Remember that whoever shows the token may set the first secret of `key_id`."""

    def claim_key(self, token_sha256: str, secret_sha256: str) -> KeyRecord:
        """Use up a claim token and set the key's first secret, in one transaction; `expires_at` goes if it has a model.

        Raises
        ------
        Gone
            The token is unknown, used or expired, or its key has a secret, is revoked or is gone.
        """

    # -- jobs

    def create_job(self, job: Job) -> Job:
        """Add a job, or return the one that has its id already, unchanged: asking twice is asking once."""

    def get_job(self, job_id: str) -> Job:
        """Read a job (a consistent read). Raises `JobNotFound` (expired ones too)."""

    def claim_job(self, job_id: str, *, owner: str, source_order: str, lease_s: float) -> Lease:
        """Take the job: one conditional write that raises its fence by one and makes it running.

        It succeeds while the job is queued, or running with a lease that ran out or is held by the same `owner`.
        `source_order` is kept if the job has none yet. `problem` and `progress` of an earlier attempt are dropped.

        Raises
        ------
        JobNotFound
        JobFinished
            The job is in a final state.
        JobBusy
            Another owner's lease still runs.
        """

    def renew_lease(self, lease: Lease, *, lease_s: float, progress: Progress | None) -> None:
        """Extend the lease and store `progress`.

        Raises
        ------
        LeaseLost
            The job is not running, or its fence is another one. (A lease that ran out with nobody taking the job over
            can be renewed.)
        """

    def fail_job(self, lease: Lease, problem: Problem, report: dict[str, Any] | None) -> None:
        """End the job as failed. Raises `LeaseLost` as `renew_lease` does."""

    def supersede_job(self, lease: Lease) -> None:
        """End the job as superseded. Raises `LeaseLost` as `renew_lease` does."""

    def mark_receipted(self, job_id: str) -> None:
        """Note that the outcome of a drop was written. Raises `JobNotFound`."""

    # -- versions

    def publish_version(self, lease: Lease, version: ModelVersion, report: dict[str, Any]) -> Published:
        """Make `version` the current one of its key and the job succeeded, in one transaction.

        Conditions: the job is running with this lease's fence; the key exists at the revision that was read, is not
        revoked, and its `current_source` is absent or older than the job's `source_order`. The key's `expires_at`
        goes if it has a secret, and its revision rises; the version is added; the job keeps `version`, `metrics` and
        `report`. When the key changed in between it is read again and tried again. When the key is gone or revoked,
        or its source is newer, the job ends as superseded and nothing else changes.

        Raises
        ------
        LeaseLost
            The job is not running, or its fence is another one; nothing changed.
        """

    def list_versions(self, key_id: str) -> list[ModelVersion]:
        """Published versions of a key, newest first."""

    def activate_version(self, key_id: str, version: str) -> KeyRecord:
        """Make a published version current; what was claimed from older data cannot replace it any more.

        Raises
        ------
        KeyNotFound
            The key is gone or revoked.
        VersionNotFound
        """
