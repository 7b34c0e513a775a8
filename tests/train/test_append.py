"""`mode=append`: files that are added to what a key has, in any order, repeated, interrupted or at the same time."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pyarrow.parquet as pq
import pytest

from recsys.errors import Unavailable
from recsys.model import artifact
from recsys.objects.created import ObjectCreated
from recsys.registry.records import Job, JobState, Progress
from tests.markers import TENSORFLOW
from tests.train.backend import LEASE_S, Backend, Killed, at_call, raising

pytestmark = list(TENSORFLOW)

N_DAYS: Final = int(os.environ.get("TEST_DAYS", "10"))
APPEND: Final = {"mode": "append"}


def made_days() -> list[list[bytes]]:
    """Return the lines of some days: 40 users, 25 items, repeated purchases, and many equal times."""
    generator = random.Random(3)
    days = []
    for day in range(N_DAYS):
        start = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=day)
        minutes = sorted(generator.randrange(0, 1440, 30) for _ in range(60))
        days.append(
            [
                b"u%d,i%d,%s"
                % (
                    generator.randrange(40),
                    int(generator.paretovariate(1.0)) % 25,
                    (start + timedelta(minutes=minute)).isoformat().encode(),
                )
                for minute in minutes
            ]
        )
    return days


def as_csv(lines: Sequence[bytes], *, header: bytes = b"user_id,item_id,timestamp") -> bytes:
    return b"\n".join([header, *lines]) + b"\n"


DAYS: Final = made_days()
ALL_LINES: Final = [line for day in DAYS for line in day]


def add(backend: Backend, job_id: str, key_id: str, content: bytes, **fields: Any) -> ObjectCreated:
    """Create a job that adds a file, and then its file, as the API does."""
    name = f"uploads/{job_id}.csv"
    values = {"created_at": backend.now, "updated_at": backend.now, "options": APPEND, **fields}
    backend.registry.create_job(Job(job_id, key_id, name, **values))
    return backend.put(name, content)


def send_all(backend: Backend, files: Sequence[bytes], **fields: Any) -> str:
    """Train a new key on files, one after the other, and return its id.

    Only the last training has the time to fit, because nothing of the models before it remains.
    """
    key_id, settings = backend.add_key().key_id, backend.settings
    for number, content in enumerate(files, start=1):
        backend.settings = settings if number == len(files) else replace(settings, train_budget_s=0.0)
        job = backend.finish(add(backend, f"{key_id}n{number}", key_id, content, **fields))
        assert job.state is JobState.SUCCEEDED, job.problem
    return key_id


def kept(backend: Backend, key_id: str) -> list[dict[str, Any]]:
    """Return the interactions that the current version keeps, by time and ids, without their row numbers."""
    version = backend.registry.get_key(key_id).current_version
    content = backend.store.read(f"models/{key_id}/{version}/{artifact.INTERACTIONS}")
    rows = pq.read_table(io.BytesIO(content)).drop_columns(["file_row"]).to_pylist()
    return sorted(rows, key=lambda row: (row.get("time", 0), row["user_id"], row["item_id"]))


def serving_bytes(backend: Backend, key_id: str) -> bytes:
    version = backend.registry.get_key(key_id).current_version
    return backend.store.read(f"models/{key_id}/{version}/{artifact.SERVING}")


def expected(lines: Sequence[bytes]) -> list[tuple[str, str, datetime]]:
    """Return the distinct pairs with their earliest time, by time and then by ids."""
    earliest: dict[tuple[str, str], datetime] = {}
    for line in lines:
        user, item, text = line.decode().split(",")
        time = datetime.fromisoformat(text)
        earliest[user, item] = min(time, earliest.get((user, item), time))
    return sorted(((*pair, time) for pair, time in earliest.items()), key=lambda row: (row[2], row[0], row[1]))


# -- the order of arrival


def test_a_version_keeps_its_interactions(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES)])
    assert [(row["user_id"], row["item_id"], row["time"]) for row in kept(backend, key_id)] == expected(ALL_LINES)


@pytest.mark.slow
def test_one_file_and_daily_files_in_any_order_give_the_same_model(backend: Backend) -> None:
    daily = [as_csv(day) for day in DAYS]
    shuffled = random.Random(7).sample(daily, N_DAYS)
    repeated = [*daily[:6], *random.Random(8).sample(daily[:6], 5), *daily[6:]]
    sorted_lines = sorted(ALL_LINES, key=lambda line: (line.split(b",")[2], line.split(b",")[0]))

    one = send_all(backend, [as_csv(ALL_LINES)])
    others = [send_all(backend, files) for files in (daily, shuffled, repeated)]
    complete = send_all(backend, [as_csv(sorted_lines)], options=None)

    for key_id in (*others, complete):
        assert kept(backend, key_id) == kept(backend, one)
        assert serving_bytes(backend, key_id) == serving_bytes(backend, one)


def test_a_day_that_is_sent_again_changes_nothing(backend: Backend) -> None:
    once = send_all(backend, [as_csv(ALL_LINES[:300]), as_csv(ALL_LINES[300:400])])
    again = send_all(backend, [as_csv(ALL_LINES[:300]), as_csv(ALL_LINES[300:400]), as_csv(ALL_LINES[250:350])])
    assert kept(backend, again) == kept(backend, once)
    report = backend.registry.get_job(f"{again}n3").report
    assert report is not None
    assert (report["appended_to"], report["interactions"]) == (f"{again}n2.1", len(kept(backend, once)))


def test_pairs_without_times_merge_too(backend: Backend) -> None:
    lines = [line.rsplit(b",", 1)[0] for line in ALL_LINES[:200]]
    header = b"user_id,item_id"
    one = send_all(backend, [as_csv(lines, header=header)])
    two = send_all(backend, [as_csv(lines[120:], header=header), as_csv(lines[:150], header=header)])
    assert kept(backend, two) == kept(backend, one)
    assert serving_bytes(backend, two) == serving_bytes(backend, one)


@pytest.mark.parametrize("first_has_times", [True, False])
def test_files_with_and_without_times_are_not_mixed(backend: Backend, *, first_has_times: bool) -> None:
    with_times = as_csv(ALL_LINES[:200])
    without = as_csv([line.rsplit(b",", 1)[0] for line in ALL_LINES[200:300]], header=b"user_id,item_id")
    first, second = (with_times, without) if first_has_times else (without, with_times)
    key_id = send_all(backend, [first])
    before = kept(backend, key_id)
    job = backend.finish(add(backend, "mixed", key_id, second))
    assert job.problem is not None
    assert (job.problem.code, kept(backend, key_id)) == ("mixed-timestamps", before)


def test_a_complete_file_replaces_what_was_added(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300]), as_csv(ALL_LINES[300:])])
    backend.finish(backend.upload("complete", key_id, as_csv(ALL_LINES[:200])))
    rows = {(row["user_id"], row["item_id"]) for row in kept(backend, key_id)}
    assert rows == {(user, item) for user, item, _ in expected(ALL_LINES[:200])}


def test_a_small_file_of_one_user_can_be_added(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300]), as_csv([b"newcomer,i1,2026-02-01"])])
    assert "newcomer" in backend.load(key_id).users


def test_nothing_is_added_to_a_version_that_keeps_no_interactions(backend: Backend) -> None:
    """Earlier releases published such versions."""
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    version = backend.registry.get_key(key_id).current_version
    files = [name for name in artifact.LISTED_FILES if name != artifact.INTERACTIONS]
    backend.settings = replace(backend.settings, hold_versions=False)  # the data is random
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(artifact, "LISTED_FILES", tuple(files))
        backend.finish(backend.upload("old", key_id, as_csv(ALL_LINES[:300])))
    assert backend.registry.get_key(key_id).current_version != version
    job = backend.finish(add(backend, "next", key_id, as_csv(ALL_LINES[300:])))
    assert job.problem is not None
    assert job.problem.code == "nothing-to-append-to"


# -- interruptions


def fail_once_at(backend: Backend, method: str, number: int, error: BaseException) -> None:
    backend.store.before[method] = at_call(number, raising(error))


@pytest.mark.parametrize("number", range(1, len(artifact.LISTED_FILES) + 2))
@pytest.mark.parametrize("error", [Killed(), Unavailable("no answer")], ids=["killed", "unavailable"])
def test_nothing_is_lost_or_doubled_when_an_upload_is_interrupted(
    backend: Backend, number: int, error: BaseException
) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    event = add(backend, "second", key_id, as_csv(ALL_LINES[250:400]))
    fail_once_at(backend, "create", number, error)
    with pytest.raises(type(error)):
        backend.process(event)
    assert backend.registry.get_key(key_id).current_version == f"{key_id}n1.1"
    backend.pass_s(LEASE_S + 1)
    assert backend.finish(event, backend.worker("worker-2")).state is JobState.SUCCEEDED
    assert [(row["user_id"], row["item_id"], row["time"]) for row in kept(backend, key_id)] == expected(ALL_LINES[:400])
    assert len(backend.objects("models/")) == 2 * (len(artifact.LISTED_FILES) + 1)


@pytest.mark.parametrize("error", [Killed(), Unavailable("no answer")], ids=["killed", "unavailable"])
@pytest.mark.parametrize("name", [artifact.MANIFEST, artifact.INTERACTIONS, "uploads/second.csv"])
def test_nothing_is_lost_or_doubled_when_a_read_is_interrupted(
    backend: Backend, name: str, error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    event = add(backend, "second", key_id, as_csv(ALL_LINES[250:400]))
    with monkeypatch.context() as patch:
        for method in ("read", "open"):
            patch.setattr(backend.store, method, failing_for(getattr(backend.store, method), name, error))
        with pytest.raises(type(error)):
            backend.process(event)
    backend.pass_s(LEASE_S + 1)
    assert backend.finish(event, backend.worker("worker-2")).state is JobState.SUCCEEDED
    assert [(row["user_id"], row["item_id"], row["time"]) for row in kept(backend, key_id)] == expected(ALL_LINES[:400])


def failing_for(method: Callable[[str], Any], part: str, error: BaseException) -> Callable[[str], Any]:
    def call(name: str) -> Any:
        if name.endswith(part):
            raise error
        return method(name)

    return call


@pytest.mark.parametrize("is_committed", [False, True], ids=["before", "after"])
def test_nothing_is_lost_or_doubled_when_a_worker_is_killed_at_the_commit(
    backend: Backend, monkeypatch: pytest.MonkeyPatch, *, is_committed: bool
) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    event = add(backend, "second", key_id, as_csv(ALL_LINES[250:400]))
    publish = backend.registry.publish_version

    def killed(*args: Any) -> None:
        if is_committed:
            publish(*args)
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(backend.registry, "publish_version", killed)
        with pytest.raises(Killed):
            backend.process(event)
    backend.pass_s(LEASE_S + 1)
    assert backend.finish(event, backend.worker("worker-2")).state is JobState.SUCCEEDED
    assert [(row["user_id"], row["item_id"], row["time"]) for row in kept(backend, key_id)] == expected(ALL_LINES[:400])
    assert len(backend.objects("models/")) == 2 * (len(artifact.LISTED_FILES) + 1)


# -- at the same time


def during_fitting(job_id: str, step: Callable[[int], None]) -> Callable[[Job, Progress], None]:
    """Return a callback that runs `step` with the number of the attempt once in each attempt of a job."""
    seen = set()

    def on_progress(job: Job, progress: Progress) -> None:
        if job.job_id == job_id and progress.phase == "fitting" and job.fence not in seen:
            seen.add(job.fence)
            step(job.fence)

    return on_progress


def test_two_files_that_are_added_at_the_same_time_are_both_kept(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    slow = add(backend, "slow", key_id, as_csv(ALL_LINES[300:400]))
    fast = add(backend, "fast", key_id, as_csv(ALL_LINES[400:500]))

    def publish_another(attempt: int) -> None:
        if attempt == 1:
            backend.finish(fast, backend.worker("worker-2"))

    job = backend.finish(slow, backend.worker(on_progress=during_fitting("slow", publish_another)))
    assert (job.state, job.version, job.counted_attempts) == (JobState.SUCCEEDED, "slow.2", 1)
    assert [(row["user_id"], row["item_id"], row["time"]) for row in kept(backend, key_id)] == expected(ALL_LINES[:500])
    assert "models/" + key_id + "/slow.1/model.h5" not in backend.objects("models/")


def test_a_file_whose_base_is_always_replaced_is_retried_later(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    slow = add(backend, "slow", key_id, as_csv(ALL_LINES[300:400]))

    def publish_another(attempt: int) -> None:
        backend.finish(
            add(backend, f"fast{attempt}", key_id, as_csv(ALL_LINES[400 : 410 + attempt])), backend.worker("2")
        )

    with pytest.raises(Unavailable, match="Other versions were published"):
        backend.process(slow, backend.worker(on_progress=during_fitting("slow", publish_another)))
    assert backend.registry.get_job("slow").counted_attempts == 0
    assert backend.finish(slow).state is JobState.SUCCEEDED


def test_a_file_is_added_although_a_newer_one_was_added_before(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    older, newer = (
        add(backend, "older", key_id, as_csv(ALL_LINES[300:400])),
        add(backend, "newer", key_id, as_csv(ALL_LINES[400:500])),
    )
    for event in (newer, older):
        assert backend.finish(event).state is JobState.SUCCEEDED
    assert [(row["user_id"], row["item_id"], row["time"]) for row in kept(backend, key_id)] == expected(ALL_LINES[:500])


def test_a_file_is_superseded_by_a_newer_complete_one(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    older = add(backend, "older", key_id, as_csv(ALL_LINES[300:400]))
    backend.finish(backend.upload("complete", key_id, as_csv(ALL_LINES)))
    fits = backend.fits
    assert (backend.finish(older).state, backend.fits) == (JobState.SUPERSEDED, fits)


# -- drops


def test_a_drop_into_the_folder_append_is_added(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    job = backend.finish(backend.put(f"inbox/{key_id}/append/day.csv", as_csv(ALL_LINES[300:400])))
    assert job.state is JobState.SUCCEEDED
    assert [(row["user_id"], row["item_id"], row["time"]) for row in kept(backend, key_id)] == expected(ALL_LINES[:400])
    receipt = backend.receipt(f"receipts/{key_id}/append/day.json")
    assert (receipt["status"], receipt["mode"]) == ("succeeded", "append")


def test_a_sidecar_chooses_the_mode_of_a_drop(backend: Backend) -> None:
    key_id = send_all(backend, [as_csv(ALL_LINES[:300])])
    backend.put(f"inbox/{key_id}/day.csv.json", b'{"mode": "append", "user": "user_id"}')
    backend.finish(backend.put(f"inbox/{key_id}/day.csv", as_csv(ALL_LINES[300:400])))
    assert [(row["user_id"], row["item_id"], row["time"]) for row in kept(backend, key_id)] == expected(ALL_LINES[:400])
    assert backend.receipt(f"receipts/{key_id}/day.json")["mode"] == "append"
