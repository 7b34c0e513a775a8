"""Process uploads through the API: one version per event, and the newest data wins."""

from __future__ import annotations

import gzip

from recsys.model.recommender import Strategy, recommend
from recsys.registry.records import Job, JobState, Progress
from tests.markers import TENSORFLOW
from tests.train.backend import GOOD_CSV, VERSION_FILES, Backend

pytestmark = list(TENSORFLOW)


def test_an_upload_becomes_the_current_version_of_its_key(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    job = backend.finish(backend.upload("job1", key_id))
    assert (job.state, job.version, job.fence, job.problem) == (JobState.SUCCEEDED, "job1.1", 1, None)
    assert backend.only_version_is(key_id, "job1.1")
    assert backend.registry.get_key(key_id).expires_at is None
    assert recommend(backend.load(key_id), "u0", n=3).strategy is Strategy.PERSONAL


def test_a_gzipped_upload_gives_the_same_model(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    backend.finish(backend.upload("job1", key_id))
    plain = backend.load(key_id)
    backend.finish(backend.upload("job2", key_id, gzip.compress(GOOD_CSV)))
    assert recommend(backend.load(key_id), "u1", n=5).items == recommend(plain, "u1", n=5).items


def test_a_finished_job_has_its_report_and_metrics(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    job = backend.finish(backend.upload("job1", key_id, GOOD_CSV + b"u1,i1\n" * 400 + b"ragged\n"))
    assert job.report is not None
    assert (job.report["lines"], job.report["bad_lines"], job.report["users"], job.report["items"]) == (433, 1, 8, 6)
    assert job.metrics is not None
    assert {"quality", "popularity_baseline", "training"} <= set(job.metrics)
    curve = job.metrics["training"]["curve"]
    assert [point["epoch"] for point in curve] == list(range(1, len(curve) + 1)) != []
    assert [version.metrics for version in backend.registry.list_versions(key_id)] == [job.metrics]


def test_progress_reports_the_phases_in_order(backend: Backend) -> None:
    seen: list[str] = []
    worker = backend.worker(on_progress=lambda job, progress: seen.append(f"{job.job_id} {progress.phase}"))
    backend.finish(backend.upload("job1", backend.add_key().key_id), worker)
    assert seen[0] == "job1 reading"
    assert "job1 fitting" in seen
    assert seen[-1] == "job1 publishing"


def test_a_repeated_event_trains_once(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    event = backend.upload("job1", key_id)
    first = backend.finish(event)
    stored = list(backend.store.list(""))
    assert backend.finish(event) == first
    assert backend.finish(event, backend.worker("worker-2")) == first
    assert (backend.fits, first.fence, list(backend.store.list(""))) == (1, 1, stored)


def test_each_upload_of_a_key_becomes_a_version(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    for job_id in ("job1", "job2"):
        backend.finish(backend.upload(job_id, key_id))
    assert backend.load(key_id).version == "job2.1"
    assert [each.version for each in backend.registry.list_versions(key_id)] == ["job2.1", "job1.1"]
    assert len(backend.objects("models/")) == 2 * len(VERSION_FILES)


def test_older_data_is_superseded_and_leaves_no_objects(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    older, newer = backend.upload("older", key_id), backend.upload("newer", key_id)
    backend.finish(newer)
    assert backend.finish(older).state is JobState.SUPERSEDED
    assert backend.only_version_is(key_id, "newer.1")
    assert backend.fits == 1


def test_newer_data_that_is_published_during_a_training_wins(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    older, newer = backend.upload("older", key_id), backend.upload("newer", key_id)

    def train_the_newer_one(_job: Job, progress: Progress) -> None:
        if progress.phase == "publishing":
            backend.finish(newer, backend.worker("worker-2"))

    job = backend.finish(older, backend.worker(on_progress=train_the_newer_one))
    assert job.state is JobState.SUPERSEDED
    assert backend.only_version_is(key_id, "newer.1")


def test_a_key_that_is_revoked_during_a_training_gets_no_version(backend: Backend) -> None:
    key_id = backend.add_key().key_id
    worker = backend.worker(on_progress=lambda _job, _progress: backend.registry.revoke_key(key_id))
    assert backend.finish(backend.upload("job1", key_id), worker).state is JobState.SUPERSEDED
    assert backend.objects("models/") == []
    assert backend.registry.get_key(key_id).current_version is None
