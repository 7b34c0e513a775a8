"""From an object in the store to a published version: once for each event, whatever breaks on the way.

Store and registry are the real ones of one machine. Time is moved by hand; the network is fitted once per data set.
"""

from __future__ import annotations

import gzip
import json
import logging
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest

from recsys.clock import Timestamp, after
from recsys.errors import Gone, JobBusy, JobNotFound, KeyNotFound, LeaseLost, RecsysError, Unavailable
from recsys.keys.api_key import ApiKey, claim_token_sha256
from recsys.keys.base62 import job_id_of_object
from recsys.model import artifact
from recsys.model.recommender import ServingModel, Strategy, recommend
from recsys.objects.files import FileObjectStore
from recsys.objects.store import ObjectInfo
from recsys.registry.records import Job, JobState, KeyRecord, Progress
from recsys.registry.sqlite import SqliteRegistry
from recsys.settings import Settings
from recsys_train import lease as lease_module
from tests.markers import TENSORFLOW

if TYPE_CHECKING:
    from recsys_train.events import ObjectCreated
    from recsys_train.fitting.fit import FitResult
    from recsys_train.job import Trainer

pytestmark = list(TENSORFLOW)

START = Timestamp("2026-03-01T12:00:00.000000Z")
LEASE_S = 60
VERSION_FILES = ["manifest.json", "mappings.json", "metrics.json", "model.h5", "serving.npz"]
GOOD_CSV = b"user_id,item_id\n" + b"".join(
    b"u%d,i%d\n" % (user, item) for user in range(8) for item in range(6) if (user + item) % 3
)
BAD_CSV = b"user_id,item_id\nanna,tea\nben\n,milk\n"


class Killed(BaseException):
    """The process ended here: nothing of ours gets to run."""


class FaultyStore(FileObjectStore):
    """A store that does something else at a named step: `before["create"]` is called with the name, and may raise.

    `opened` are the streams that were read from.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.before: dict[str, Callable[[str], None]] = {}
        self.opened: list[BinaryIO] = []

    def create(self, name: str, body: bytes | BinaryIO) -> ObjectInfo:
        self.before.get("create", _nothing)(name)
        return super().create(name, body)

    def open(self, name: str) -> BinaryIO:
        self.opened.append(super().open(name))
        return self.opened[-1]

    def replace(self, name: str, body: bytes) -> ObjectInfo:
        self.before.get("replace", _nothing)(name)
        return super().replace(name, body)

    def delete(self, name: str) -> None:
        self.before.get("delete", _nothing)(name)
        super().delete(name)


def _nothing(_name: str) -> None:
    pass


def at_call(number: int, step: Callable[[], None]) -> Callable[[str], None]:
    """Take `step` at the call of this number, from 1, and at none after."""
    calls = 0

    def count(_name: str) -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            step()

    return count


def raising(error: BaseException) -> Callable[..., None]:
    def step(*_args: object, **_kwargs: object) -> None:
        raise error

    return step


@dataclass
class Workshop:
    """A store, a registry and a clock, all that a worker meets."""

    root: Path
    store: FaultyStore
    now: Timestamp = START
    settings: Settings = field(default_factory=lambda: Settings(lease_s=LEASE_S))
    fits: int = 0

    def __post_init__(self) -> None:
        self.registry = SqliteRegistry(self.root / "registry.sqlite3", clock=self.clock)

    def clock(self) -> Timestamp:
        return self.now

    def pass_s(self, seconds: float) -> None:
        self.now = after(self.now, seconds)

    def worker(self, owner: str = "worker-1", **fields: Any) -> Trainer:
        from recsys_train.job import Trainer  # noqa: PLC0415

        return Trainer(self.store, self.registry, self.settings, owner=owner, clock=self.clock, **fields)

    def process(self, event: ObjectCreated, worker: Trainer | None = None) -> Job | None:
        from recsys_train.events import process  # noqa: PLC0415

        return process(event, worker or self.worker())

    def finish(self, event: ObjectCreated, worker: Trainer | None = None) -> Job:
        job = self.process(event, worker)
        assert job is not None
        assert job.state.is_final
        return job

    def put(self, name: str, content: bytes = GOOD_CSV) -> ObjectCreated:
        """Write an object and return its event; a later call is later data."""
        from recsys_train.events import ObjectCreated  # noqa: PLC0415

        self.pass_s(1)
        info = self.store.replace(name, content)
        return ObjectCreated(name, info.version, order=f"{self.now}#{name}")

    def add_key(self) -> ApiKey:
        api_key = ApiKey.mint()
        expires_at = after(self.now, 7 * 86_400)
        self.registry.create_key(
            KeyRecord(api_key.key_id, self.now, secret_sha256=api_key.sha256(), expires_at=expires_at)
        )
        return api_key

    def announce(self, job_id: str, key_id: str, content: bytes = GOOD_CSV) -> ObjectCreated:
        """What the API does: the job first, then the file."""
        name = f"uploads/{job_id}.csv"
        self.registry.create_job(Job(job_id, key_id, name, created_at=self.now, updated_at=self.now))
        return self.put(name, content)

    def objects(self, prefix: str) -> list[str]:
        return [info.name for info in self.store.list(prefix)]

    def load(self, key_id: str) -> ServingModel:
        """The key's current model, as a server reads it."""
        key = self.registry.get_key(key_id)
        prefix = f"models/{key_id}/{key.current_version}/"
        return artifact.read_model(
            lambda name: self.store.read(prefix + name), manifest_sha256=key.current_manifest_sha256
        )

    def only_version_is(self, key_id: str, version: str) -> bool:
        """Whether this is all there is of the key's models, it can be loaded, and the registry says the same."""
        assert self.objects("models/") == [f"models/{key_id}/{version}/{name}" for name in VERSION_FILES]
        assert [each.version for each in self.registry.list_versions(key_id)] == [version]
        return self.load(key_id).version == version

    def receipt(self, name: str) -> dict[str, Any]:
        document: dict[str, Any] = json.loads(self.store.read(name))
        return document

    def claim(self, receipt_name: str) -> KeyRecord:
        """Claim the key that a receipt offers, as the API does."""
        return self.registry.claim_key(claim_token_sha256(self.receipt(receipt_name)["claim_token"]), "5" * 64)


@pytest.fixture(scope="module")
def fitted_before() -> dict[bytes, FitResult]:
    """What was fitted to which data."""
    return {}


@pytest.fixture
def workshop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fitted_before: dict[bytes, FitResult]
) -> Iterator[Workshop]:
    from recsys_train import build  # noqa: PLC0415
    from recsys_train.fitting import fit  # noqa: PLC0415

    workshop = Workshop(tmp_path, FaultyStore(tmp_path / "objects"))
    really_fit = fit.fit

    def fit_once(interactions: Any, recipe: Any, *, on_progress: Any, **arguments: Any) -> FitResult:
        workshop.fits += 1
        data = repr((interactions.user_ids, interactions.item_ids)).encode() + interactions.users.tobytes()
        data += interactions.items.tobytes() + repr(sorted(arguments.items())).encode()
        if data not in fitted_before:
            fitted_before[data] = really_fit(interactions, recipe, on_progress=on_progress, **arguments)
        else:
            on_progress(Progress("fitting", 1, recipe.max_epochs, 0.5, 0.25))
        return fitted_before[data]

    monkeypatch.setattr(build, "fit", fit_once)
    # Nobody renews behind a test's back: what a keeper does is in test_lease.py.
    monkeypatch.setattr(lease_module, "PROGRESS_EVERY_S", 3600.0)
    yield workshop
    workshop.registry.close()


# -- an upload


def test_an_upload_becomes_the_current_version_of_its_key(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    job = workshop.finish(workshop.announce("job1", key_id))
    assert (job.state, job.version, job.fence, job.problem) == (JobState.SUCCEEDED, "job1.1", 1, None)
    assert workshop.only_version_is(key_id, "job1.1")
    assert workshop.registry.get_key(key_id).expires_at is None
    assert recommend(workshop.load(key_id), "u0", n=3).strategy is Strategy.PERSONAL


def test_a_gzipped_upload_is_the_same_model(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    workshop.finish(workshop.announce("job1", key_id))
    plain = workshop.load(key_id)
    workshop.finish(workshop.announce("job2", key_id, gzip.compress(GOOD_CSV)))
    assert recommend(workshop.load(key_id), "u1", n=5).items == recommend(plain, "u1", n=5).items


def test_a_finished_job_holds_report_and_metrics(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    job = workshop.finish(workshop.announce("job1", key_id, GOOD_CSV + b"u1,i1\n" * 400 + b"ragged\n"))
    assert job.report is not None
    assert (job.report["lines"], job.report["bad_lines"], job.report["users"], job.report["items"]) == (433, 1, 8, 6)
    assert job.metrics is not None
    assert {"quality", "popularity_baseline", "training"} <= set(job.metrics)
    assert [version.metrics for version in workshop.registry.list_versions(key_id)] == [job.metrics]


def test_a_watcher_sees_the_phases_in_order(workshop: Workshop) -> None:
    seen: list[str] = []
    worker = workshop.worker(watch=lambda job, progress: seen.append(f"{job.job_id} {progress.phase}"))
    workshop.finish(workshop.announce("job1", workshop.add_key().key_id), worker)
    assert seen[0] == "job1 reading"
    assert "job1 fitting" in seen
    assert seen[-1] == "job1 publishing"


def test_a_repeated_event_trains_once(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)
    first = workshop.finish(event)
    stored = list(workshop.store.list(""))
    assert workshop.finish(event) == first
    assert workshop.finish(event, workshop.worker("worker-2")) == first
    assert (workshop.fits, first.fence, list(workshop.store.list(""))) == (1, 1, stored)


def test_the_next_upload_is_the_next_version(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    for job_id in ("job1", "job2"):
        workshop.finish(workshop.announce(job_id, key_id))
    assert workshop.load(key_id).version == "job2.1"
    assert [each.version for each in workshop.registry.list_versions(key_id)] == ["job2.1", "job1.1"]
    assert len(workshop.objects("models/")) == 10


def test_an_older_event_is_superseded_and_leaves_nothing(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    older, newer = workshop.announce("older", key_id), workshop.announce("newer", key_id)
    workshop.finish(newer)
    assert workshop.finish(older).state is JobState.SUPERSEDED
    assert workshop.only_version_is(key_id, "newer.1")
    assert workshop.fits == 1


def test_newer_data_that_arrives_during_a_training_wins(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    older, newer = workshop.announce("older", key_id), workshop.announce("newer", key_id)

    def train_the_newer_one(_job: Job, progress: Progress) -> None:
        if progress.phase == "publishing":
            workshop.finish(newer, workshop.worker("worker-2"))

    job = workshop.finish(older, workshop.worker(watch=train_the_newer_one))
    assert job.state is JobState.SUPERSEDED
    assert workshop.only_version_is(key_id, "newer.1")


def test_a_key_that_is_revoked_during_a_training_gets_no_version(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    worker = workshop.worker(watch=lambda _job, _progress: workshop.registry.revoke_key(key_id))
    assert workshop.finish(workshop.announce("job1", key_id), worker).state is JobState.SUPERSEDED
    assert workshop.objects("models/") == []
    assert workshop.registry.get_key(key_id).current_version is None


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"user_id,item_id\n", "no-rows"),
        (b"user_id,product\na,b\n", "missing-column"),
        (b"user_id,item_id\na,b\na,c\n", "too-few-users"),
        (BAD_CSV, "too-many-bad-lines"),
        (gzip.compress(GOOD_CSV * 50, mtime=0)[:-20], "damaged-gzip"),
        (b"\x00\x01\x02", "not-a-csv"),
    ],
)
def test_bad_data_fails_the_job_and_publishes_nothing(workshop: Workshop, content: bytes, code: str) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id, content)
    job = workshop.finish(event)
    assert job.problem is not None
    assert (job.state, job.problem.code, job.version) == (JobState.FAILED, code, None)
    assert job.problem.hint
    assert workshop.objects("") == [event.name]
    assert workshop.finish(event) == job


def test_a_failed_job_lists_the_bad_lines(workshop: Workshop) -> None:
    job = workshop.finish(workshop.announce("job1", workshop.add_key().key_id, BAD_CSV))
    assert job.problem is not None
    assert [(error.line, error.code) for error in job.problem.errors] == [(3, "ragged-line"), (4, "blank-user-id")]
    assert job.report is not None
    assert (job.report["lines"], job.report["bad_lines"]) == (3, 2)


def test_bad_data_leaves_the_model_before_it_current(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    workshop.finish(workshop.announce("job1", key_id))
    workshop.finish(workshop.announce("job2", key_id, BAD_CSV))
    assert workshop.only_version_is(key_id, "job1.1")


def test_a_file_over_the_limit_is_not_read(workshop: Workshop) -> None:
    workshop.settings = replace(workshop.settings, max_upload_bytes=len(GOOD_CSV) - 1)
    job = workshop.finish(workshop.announce("job1", workshop.add_key().key_id))
    assert job.problem is not None
    assert job.problem.code == "upload-too-large"


def test_a_csv_that_unpacks_beyond_the_limit_fails(workshop: Workshop) -> None:
    workshop.settings = replace(workshop.settings, max_unpacked_bytes=len(GOOD_CSV) - 1)
    job = workshop.finish(workshop.announce("job1", workshop.add_key().key_id, gzip.compress(GOOD_CSV)))
    assert job.problem is not None
    assert job.problem.code == "too-large-unpacked"


def test_a_file_that_is_gone_fails_the_job(workshop: Workshop) -> None:
    event = workshop.announce("job1", workshop.add_key().key_id)
    workshop.store.delete(event.name)
    job = workshop.finish(event)
    assert job.problem is not None
    assert job.problem.code == "upload-missing"


def test_an_upload_that_nobody_announced_is_ignored(workshop: Workshop) -> None:
    assert workshop.process(workshop.put("uploads/stranger.csv")) is None
    assert workshop.objects("") == ["uploads/stranger.csv"]


def test_an_upload_under_another_name_than_announced_leaves_the_job_alone(workshop: Workshop) -> None:
    event = workshop.announce("job1", workshop.add_key().key_id)
    assert workshop.process(workshop.put("uploads/job1.csv.gz", b"rubbish")) is None
    assert workshop.registry.get_job("job1").state is JobState.QUEUED
    assert workshop.finish(event).state is JobState.SUCCEEDED


@pytest.mark.parametrize("name", [f"inbox/{'x' * 252}.csv", "inbox/a\\b.csv", "inbox/a\nb.csv", "inbox/../b.csv"])
def test_a_name_that_no_store_can_read_is_ignored(workshop: Workshop, name: str) -> None:
    event = replace(workshop.put("inbox/orders.csv"), name=name)
    assert workshop.process(event) is None
    assert workshop.objects("") == ["inbox/orders.csv"]
    with pytest.raises(JobNotFound):
        workshop.registry.get_job(job_id_of_object(event.name, event.version))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("uploads/stranger.csv", "nobody announced"),
        ("uploads/job1.csv.gz", "another name"),
        ("inbox/read me.txt", "not that of a source"),
        ("inbox/a\\b.csv", "must not contain a backslash"),
    ],
)
def test_the_log_says_why_an_object_was_ignored(
    workshop: Workshop, caplog: pytest.LogCaptureFixture, name: str, reason: str
) -> None:
    caplog.set_level(logging.INFO, "recsys.train")
    event = workshop.announce("job1", workshop.add_key().key_id)
    assert workshop.process(replace(event, name=name)) is None
    (record,) = [record for record in caplog.records if record.name == "recsys.train"]
    assert reason in record.getMessage()
    assert vars(record)["object_name"] == name


def test_the_file_is_closed_before_the_fitting(workshop: Workshop) -> None:
    closed: list[bool] = []

    def look(_job: Job, progress: Progress) -> None:
        if progress.phase == "fitting":
            closed.extend(stream.closed for stream in workshop.store.opened)

    workshop.finish(workshop.announce("job1", workshop.add_key().key_id), workshop.worker(watch=look))
    assert closed
    assert all(closed)


@pytest.mark.parametrize(
    "name", ["models/key1/job1.1/serving.npz", "receipts/x.json", "inbox/x.txt", "inbox/a/b/c.csv"]
)
def test_other_objects_are_ignored(workshop: Workshop, name: str) -> None:
    assert workshop.process(workshop.put(name)) is None
    assert workshop.objects("") == [name]


# -- drops and their receipts


def test_a_drop_by_somebody_new_becomes_a_key_that_is_claimed_once(workshop: Workshop) -> None:
    job = workshop.finish(workshop.put("inbox/orders.csv"))
    assert workshop.only_version_is(job.key_id, f"{job.job_id}.1")
    receipt = workshop.receipt("receipts/orders.json")
    assert (receipt["status"], receipt["key_id"]) == ("succeeded", job.key_id)
    assert (receipt["file"], receipt["model_version"]) == ("inbox/orders.csv", job.version)
    assert receipt["claim_expires_at"] == after(workshop.now, 24 * 3600)
    secret = ApiKey.mint(job.key_id)
    token = claim_token_sha256(receipt["claim_token"])
    assert workshop.registry.claim_key(token, secret.sha256()).key_id == job.key_id
    assert workshop.registry.get_key(job.key_id).secret_sha256 == secret.sha256()
    with pytest.raises(Gone):
        workshop.registry.claim_key(token, ApiKey.mint().sha256())


def test_a_claim_token_is_gone_after_a_day(workshop: Workshop) -> None:
    workshop.finish(workshop.put("inbox/orders.csv"))
    token = claim_token_sha256(workshop.receipt("receipts/orders.json")["claim_token"])
    workshop.pass_s(24 * 3600)
    with pytest.raises(Gone):
        workshop.registry.claim_key(token, ApiKey.mint().sha256())


def test_a_repeated_drop_event_changes_neither_key_nor_receipt(workshop: Workshop) -> None:
    event = workshop.put("inbox/orders.csv")
    first = workshop.finish(event)
    receipt = workshop.store.info("receipts/orders.json")
    assert workshop.finish(event, workshop.worker("worker-2")).key_id == first.key_id
    assert workshop.store.info("receipts/orders.json") == receipt
    assert workshop.fits == 1


def test_a_drop_that_still_lies_there_after_a_year_is_not_trained_on_again(workshop: Workshop) -> None:
    event = workshop.put("inbox/orders.csv")
    job = workshop.finish(event)
    workshop.claim("receipts/orders.json")
    workshop.finish(workshop.put(f"inbox/{job.key_id}/newer.csv"))
    current = workshop.load(job.key_id).version
    workshop.pass_s(400 * 86_400)
    found_after_a_restart = replace(event, order=f"{workshop.now}#{event.name}")
    assert workshop.finish(found_after_a_restart).version == job.version
    assert workshop.load(job.key_id).version == current
    assert workshop.fits == 2


def test_two_strangers_get_two_keys(workshop: Workshop) -> None:
    jobs = [workshop.finish(workshop.put(f"inbox/shop{number}.csv")) for number in (1, 2)]
    jobs.append(workshop.finish(workshop.put("inbox/shop1.csv")))  # the name again, another file
    assert len({job.key_id for job in jobs}) == 3


def test_a_drop_that_was_replaced_fails_and_the_newer_file_trains_by_itself(workshop: Workshop) -> None:
    older = workshop.put("inbox/orders.csv", GOOD_CSV)
    newer = workshop.put("inbox/orders.csv", GOOD_CSV + b"u1,i1\n")
    job = workshop.finish(older)
    assert job.problem is not None
    assert (job.state, job.problem.code) == (JobState.FAILED, "upload-replaced")
    trained = workshop.finish(newer)
    assert (trained.state, trained.report and trained.report["lines"]) == (JobState.SUCCEEDED, 33)
    assert workshop.receipt("receipts/orders.json")["job_id"] == trained.job_id
    assert all(stream.closed for stream in workshop.store.opened)


def test_two_strangers_files_of_one_name_can_both_be_claimed(workshop: Workshop) -> None:
    first = workshop.finish(workshop.put("inbox/orders.csv"))
    offered = workshop.receipt("receipts/orders.json")
    second = workshop.finish(workshop.put("inbox/orders.csv"))
    receipt = workshop.receipt("receipts/orders.json")
    assert receipt["earlier"] == [
        {name: offered[name] for name in ("job_id", "key_id", "claim_token", "claim_expires_at")}
    ]
    assert workshop.claim("receipts/orders.json").key_id == second.key_id
    token = claim_token_sha256(receipt["earlier"][0]["claim_token"])
    assert workshop.registry.claim_key(token, "6" * 64).key_id == first.key_id


def test_a_receipt_keeps_ten_earlier_claims_until_they_expire(workshop: Workshop) -> None:
    jobs = [workshop.finish(workshop.put("inbox/orders.csv")).job_id for _ in range(13)]
    earlier = workshop.receipt("receipts/orders.json")["earlier"]
    assert [claim["job_id"] for claim in earlier] == jobs[2:12]
    workshop.pass_s(24 * 3600)
    workshop.finish(workshop.put("inbox/orders.csv"))
    assert "earlier" not in workshop.receipt("receipts/orders.json")


@pytest.mark.parametrize(
    "before", [b"\xff", b"", b"[1]", b"null", b'{"earlier": 1, "claim_token": 2}', b'{"earlier": [1]}']
)
def test_a_receipt_that_cannot_be_read_is_written_over(workshop: Workshop, before: bytes) -> None:
    workshop.store.replace("receipts/orders.json", before)
    workshop.finish(workshop.put("inbox/orders.csv"))
    receipt = workshop.receipt("receipts/orders.json")
    assert receipt["status"] == "succeeded"
    assert "earlier" not in receipt


def test_a_gzipped_drop_has_a_receipt_beside_that_of_the_plain_one(workshop: Workshop) -> None:
    workshop.finish(workshop.put("inbox/orders.csv"))
    workshop.finish(workshop.put("inbox/orders.csv.gz", gzip.compress(GOOD_CSV)))
    assert workshop.objects("receipts/") == ["receipts/orders.gz.json", "receipts/orders.json"]


def test_a_drop_with_the_longest_name_gets_a_receipt(workshop: Workshop) -> None:
    job = workshop.finish(workshop.put(f"inbox/{'x' * 251}.csv"))
    assert job.receipt_name is not None
    assert workshop.receipt(job.receipt_name)["status"] == "succeeded"


def test_the_key_of_a_drop_that_nobody_claims_goes_after_a_week(workshop: Workshop) -> None:
    event = workshop.put("inbox/orders.csv")
    job = workshop.finish(event)
    assert workshop.registry.get_key(job.key_id).current_version == job.version
    workshop.pass_s(7 * 86_400)
    for _ in range(2):
        with pytest.raises(KeyNotFound):
            workshop.registry.get_key(job.key_id)
        workshop.finish(event)  # found again after a restart


def test_a_claimed_key_stays(workshop: Workshop) -> None:
    job = workshop.finish(workshop.put("inbox/orders.csv"))
    workshop.claim("receipts/orders.json")
    workshop.pass_s(10 * 365 * 86_400)
    assert workshop.registry.get_key(job.key_id).current_version == job.version


def test_a_claim_is_offered_no_longer_than_its_key_lives(workshop: Workshop) -> None:
    event = workshop.put("inbox/orders.csv")
    dropped_at = workshop.now
    workshop.store.before["replace"] = raising(Unavailable("The disk is full."))
    with pytest.raises(Unavailable):
        workshop.process(event)
    workshop.store.before.clear()
    workshop.pass_s(7 * 86_400 - 60)
    workshop.finish(event)
    assert workshop.receipt("receipts/orders.json")["claim_expires_at"] == after(dropped_at, 7 * 86_400)


def test_a_receipt_that_comes_after_its_key_expired_offers_no_claim(workshop: Workshop) -> None:
    event = workshop.put("inbox/orders.csv")
    workshop.store.before["replace"] = raising(Unavailable("The disk is full."))
    with pytest.raises(Unavailable):
        workshop.process(event)
    workshop.store.before.clear()
    workshop.pass_s(7 * 86_400)
    workshop.finish(event)
    receipt = workshop.receipt("receipts/orders.json")
    assert receipt["status"] == "succeeded"
    assert "claim_token" not in receipt


def test_a_drop_under_a_key_becomes_its_next_version(workshop: Workshop) -> None:
    first = workshop.finish(workshop.put("inbox/orders.csv"))
    job = workshop.finish(workshop.put(f"inbox/{first.key_id}/more.csv.gz", gzip.compress(GOOD_CSV)))
    assert (job.key_id, job.state) == (first.key_id, JobState.SUCCEEDED)
    assert workshop.load(first.key_id).version == job.version
    assert len(workshop.registry.list_versions(first.key_id)) == 2


def test_the_receipt_of_a_key_that_was_claimed_carries_no_token(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    workshop.finish(workshop.put(f"inbox/{key_id}/orders.csv"))
    receipt = workshop.receipt(f"receipts/{key_id}/orders.json")
    assert receipt["status"] == "succeeded"
    assert not {"claim_token", "claim_expires_at", "next"} & set(receipt)


@pytest.mark.parametrize("was_revoked", [False, True], ids=["never-existed", "revoked"])
def test_a_drop_under_a_key_that_cannot_be_used_fails_with_a_receipt(workshop: Workshop, was_revoked: bool) -> None:
    key_id = "nobodysKey12"
    if was_revoked:
        key_id = workshop.add_key().key_id
        workshop.registry.revoke_key(key_id)
    job = workshop.finish(workshop.put(f"inbox/{key_id}/orders.csv"))
    assert job.state is JobState.FAILED
    receipt = workshop.receipt(f"receipts/{key_id}/orders.json")
    assert (receipt["status"], receipt["problem"]["code"]) == ("failed", "unknown-key")
    assert "claim_token" not in receipt
    assert (workshop.objects("models/"), workshop.fits) == ([], 0)


def test_a_bad_drop_gets_a_receipt_that_names_the_lines_and_no_token(workshop: Workshop) -> None:
    workshop.finish(workshop.put("inbox/orders.csv", BAD_CSV))
    receipt = workshop.receipt("receipts/orders.json")
    assert receipt["status"] == "failed"
    assert [error["line"] for error in receipt["problem"]["errors"]] == [3, 4]
    assert "claim_token" not in receipt


def test_the_key_of_a_drop_that_never_got_a_model_goes_after_a_week(workshop: Workshop) -> None:
    job = workshop.finish(workshop.put("inbox/orders.csv", BAD_CSV))
    dropped_at = workshop.now
    assert workshop.registry.get_key(job.key_id).expires_at == after(dropped_at, 7 * 86_400)


def test_a_receipt_that_could_not_be_written_is_written_the_next_time(workshop: Workshop) -> None:
    event = workshop.put("inbox/orders.csv")
    workshop.store.before["replace"] = raising(Unavailable("The disk is full."))
    with pytest.raises(Unavailable):
        workshop.process(event)
    assert workshop.objects("receipts/") == []
    workshop.store.before.clear()
    job = workshop.finish(event)
    token = claim_token_sha256(workshop.receipt("receipts/orders.json")["claim_token"])
    assert workshop.registry.claim_key(token, "5" * 64).key_id == job.key_id
    assert workshop.fits == 1


# -- what breaks on the way


def test_a_job_that_another_worker_has_is_left_to_it(workshop: Workshop) -> None:
    event = workshop.announce("job1", workshop.add_key().key_id)
    workshop.registry.claim_job("job1", owner="worker-2", data_timestamp=event.order, lease_s=LEASE_S)
    with pytest.raises(JobBusy):
        workshop.process(event)
    assert (workshop.fits, workshop.objects("models/")) == (0, [])


@pytest.mark.parametrize("phase", ["reading", "fitting", "publishing"])
def test_a_worker_that_lost_its_lease_publishes_nothing_and_leaves_nothing(workshop: Workshop, phase: str) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)

    def fall_asleep(_job: Job, progress: Progress) -> None:
        if progress.phase == phase and workshop.registry.get_job("job1").fence == 1:
            workshop.pass_s(LEASE_S)
            workshop.registry.claim_job("job1", owner="worker-2", data_timestamp=event.order, lease_s=LEASE_S)

    with pytest.raises(LeaseLost):
        workshop.process(event, workshop.worker(watch=fall_asleep))
    assert workshop.objects("models/") == []
    assert workshop.registry.get_key(key_id).current_version is None
    job = workshop.finish(event, workshop.worker("worker-2"))
    assert (job.state, job.version) == (JobState.SUCCEEDED, "job1.3")
    assert workshop.only_version_is(key_id, "job1.3")


@pytest.mark.parametrize("n_files", [1, 2, 3, 4, 5])
def test_a_worker_that_sleeps_in_mid_upload_while_another_publishes_leaves_nothing(
    workshop: Workshop, n_files: int
) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)

    def fall_asleep() -> None:
        workshop.pass_s(LEASE_S)
        workshop.finish(event, workshop.worker("worker-2"))

    workshop.store.before["create"] = at_call(n_files, fall_asleep)
    with pytest.raises(RecsysError):
        workshop.process(event)
    assert workshop.load(key_id).version == "job1.2"
    assert workshop.finish(event).version == "job1.2"  # the message of the one that slept comes back
    assert workshop.only_version_is(key_id, "job1.2")


@pytest.mark.parametrize("fault", [Unavailable("The disk is full."), Killed()], ids=["no-answer", "killed"])
@pytest.mark.parametrize("n_files", [1, 3, 5])
def test_after_a_crash_in_mid_upload_the_next_attempt_publishes_and_clears_up(
    workshop: Workshop, n_files: int, fault: BaseException
) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)
    workshop.store.before["create"] = at_call(n_files, raising(fault))
    with pytest.raises(type(fault)):
        workshop.process(event)
    assert len(workshop.objects("models/")) == n_files - 1
    assert workshop.registry.get_job("job1").state is JobState.RUNNING
    workshop.pass_s(LEASE_S)
    job = workshop.finish(event, workshop.worker("worker-2"))
    assert (job.state, job.version) == (JobState.SUCCEEDED, "job1.2")
    assert workshop.only_version_is(key_id, "job1.2")


def test_the_same_worker_takes_up_its_job_again_at_once(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)
    workshop.store.before["create"] = at_call(2, raising(Killed()))
    with pytest.raises(Killed):
        workshop.process(event)
    assert workshop.finish(event).version == "job1.2"


def test_a_crashed_attempt_leaves_nothing_when_newer_data_won_meanwhile(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    older, newer = workshop.announce("older", key_id), workshop.announce("newer", key_id)
    workshop.store.before["create"] = at_call(4, raising(Killed()))
    with pytest.raises(Killed):
        workshop.process(older)
    workshop.finish(newer)
    assert workshop.finish(older).state is JobState.SUPERSEDED
    assert workshop.only_version_is(key_id, "newer.1")


def test_a_crashed_attempt_leaves_nothing_when_its_file_is_gone_meanwhile(workshop: Workshop) -> None:
    event = workshop.announce("job1", workshop.add_key().key_id)
    workshop.store.before["create"] = at_call(4, raising(Killed()))
    with pytest.raises(Killed):
        workshop.process(event)
    workshop.store.delete(event.name)
    assert workshop.finish(event).state is JobState.FAILED
    assert workshop.objects("models/") == []


def test_clearing_up_that_fails_is_made_up_for_by_the_next_event(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)
    workshop.store.before["create"] = at_call(4, raising(Killed()))
    with pytest.raises(Killed):
        workshop.process(event)
    workshop.store.before["delete"] = raising(Unavailable("The disk is gone."))
    with pytest.raises(Unavailable):
        workshop.process(event)
    assert workshop.load(key_id).version == "job1.2"
    workshop.store.before.clear()
    assert workshop.finish(event).version == "job1.2"
    assert workshop.only_version_is(key_id, "job1.2")


def test_a_damaged_upload_is_not_published(workshop: Workshop) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)

    def damage() -> None:
        serving = f"models/{key_id}/job1.1/serving.npz"
        workshop.store.replace(serving, workshop.store.read(serving)[:-1])

    workshop.store.before["create"] = at_call(5, damage)  # just before the manifest
    with pytest.raises(RecsysError, match=r"serving\.npz"):
        workshop.process(event)
    assert workshop.registry.get_key(key_id).current_version is None
    assert workshop.finish(event).version == "job1.2"
    assert workshop.only_version_is(key_id, "job1.2")


@pytest.mark.parametrize("fault", [Unavailable("The disk is full."), RuntimeError("out of handles")])
def test_after_the_last_attempt_the_job_fails_for_good_and_leaves_nothing(workshop: Workshop, fault: Exception) -> None:
    workshop.settings = replace(workshop.settings, max_attempts=3)
    event = workshop.put("inbox/orders.csv")
    workshop.store.before["create"] = lambda name: raising(fault)() if name.endswith("metrics.json") else None
    for _ in range(2):
        with pytest.raises(type(fault)):
            workshop.process(event)
    job = workshop.finish(event)
    assert job.problem is not None
    assert (job.state, job.fence, job.problem.code) == (JobState.FAILED, 3, "training-failed")
    assert "3 times" in job.problem.detail
    assert workshop.objects("models/") == []
    assert workshop.receipt("receipts/orders.json")["problem"]["code"] == "training-failed"
    assert workshop.finish(event).fence == 3


def test_a_job_whose_workers_were_all_killed_fails_without_another_try(workshop: Workshop) -> None:
    workshop.settings = replace(workshop.settings, max_attempts=2)
    event = workshop.announce("job1", workshop.add_key().key_id)
    workshop.store.before["create"] = raising(Killed())
    for _ in range(2):
        with pytest.raises(Killed):
            workshop.process(event)
    job = workshop.finish(event)
    assert job.problem is not None
    assert (job.state, job.problem.code) == (JobState.FAILED, "training-failed")
    assert "ended from outside" in job.problem.detail
    assert workshop.fits == 2
    assert workshop.objects("models/") == []


def test_a_problem_never_quotes_an_unexpected_error(workshop: Workshop) -> None:
    workshop.settings = replace(workshop.settings, max_attempts=1)
    workshop.store.before["create"] = raising(RuntimeError("password=hunter2"))
    job = workshop.finish(workshop.announce("job1", workshop.add_key().key_id))
    assert job.problem is not None
    assert "RuntimeError" in job.problem.detail
    assert "hunter2" not in json.dumps(job.problem.to_json())


@pytest.mark.parametrize("verb", ["claim_job", "get_key", "publish_version"])
def test_a_registry_that_does_not_answer_is_raised_so_that_the_event_comes_back(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)
    with monkeypatch.context() as broken:
        broken.setattr(workshop.registry, verb, raising(Unavailable("The registry did not answer.")))
        with pytest.raises(Unavailable):
            workshop.process(event)
    job = workshop.finish(event)
    assert job.version is not None
    assert workshop.only_version_is(key_id, job.version)


def test_a_publication_whose_answer_got_lost_counts(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    key_id = workshop.add_key().key_id
    event = workshop.announce("job1", key_id)
    really_publish = workshop.registry.publish_version

    def publish_and_lose_the_answer(*arguments: Any) -> None:
        really_publish(*arguments)
        raise Unavailable("The connection broke.")

    with monkeypatch.context() as broken:
        broken.setattr(workshop.registry, "publish_version", publish_and_lose_the_answer)
        with pytest.raises(Unavailable):
            workshop.process(event)
    assert workshop.finish(event).version == "job1.1"
    assert workshop.only_version_is(key_id, "job1.1")


# -- secrets


def test_no_secret_shows_in_logs_errors_rows_or_objects(workshop: Workshop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    weird = GOOD_CSV + 'u1,"a ""quoted"", id"\nu2,%s %d {0} ${jndi:x}\nu3,<script>\nu4,\u202eabc\n'.encode()
    api_key = workshop.add_key()
    said = ""
    for content in (weird, BAD_CSV, b"\xff\xfe"):
        workshop.finish(workshop.put(f"inbox/{api_key.key_id}/orders.csv", content))
    workshop.finish(workshop.put("inbox/new.csv", weird))
    token = workshop.receipt("receipts/new.json")["claim_token"]
    claimed = replace(ApiKey.mint(), key_id=workshop.receipt("receipts/new.json")["key_id"])
    workshop.registry.claim_key(claim_token_sha256(token), claimed.sha256())
    for fault in (Unavailable("The disk is full."), RuntimeError("unexpected")):
        workshop.store.before["create"] = raising(fault)
        with pytest.raises(type(fault)) as caught:
            workshop.process(workshop.put(f"inbox/{api_key.key_id}/again.csv"))
        said += "".join(traceback.format_exception(caught.value))
    with pytest.raises(Gone) as refused:
        workshop.registry.claim_key(claim_token_sha256(token), claimed.sha256())
    said += "".join(traceback.format_exception(refused.value))
    said += "".join(f"{record.getMessage()} {vars(record)}" for record in caplog.records)
    rows = b"".join(path.read_bytes() for path in workshop.root.glob("registry.sqlite3*"))
    objects = {info.name: workshop.store.read(info.name) for info in workshop.store.list("")}
    assert rows.count(claimed.key_id.encode()) > 0  # it is the file that is meant

    for secret in (api_key.secret, str(api_key), claimed.secret, str(claimed), token):
        assert secret not in said
        assert secret.encode() not in rows
        holders = [name for name, content in objects.items() if secret.encode() in content]
        assert holders == (["receipts/new.json"] if secret == token else [])
