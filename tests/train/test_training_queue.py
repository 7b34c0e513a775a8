"""The worker's queue: which files it trains on, in which order, and what their jobs say meanwhile."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from recsys.clock import utc_now
from recsys.errors import Unavailable
from recsys.objects.created import ObjectCreated
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose, JobState
from recsys_local.queue_file import QueueFile, QueuePosition
from recsys_local.shared_queue import QueueState
from recsys_local.training_queue import OVERHEAD_BYTES, TrainingQueue
from recsys_local.watcher import ObjectWatcher
from tests.markers import TENSORFLOW
from tests.train.backend import GOOD_CSV, Backend

pytestmark = list(TENSORFLOW)


class Machine:
    """A queue over a real directory. Files arrive a moment apart, by the clock of the file system."""

    def __init__(self, backend: Backend) -> None:
        self.backend = backend
        self.data_dir = backend.root / "objects"
        (self.data_dir / ".scratch").mkdir(parents=True)
        self.trainer = backend.worker("local-worker")
        self.watcher = ObjectWatcher(backend.store, self.data_dir)
        self.queue = TrainingQueue(self.trainer, self.watcher, self.data_dir)

    def add_known_key(self, key_id: str) -> None:
        self.backend.registry.create_key(KeyRecord(key_id, utc_now(), secret_sha256="5" * 64))

    def upload(self, job_id: str, key_id: str, content: bytes = GOOD_CSV, **fields: Any) -> None:
        name = f"uploads/{job_id}.csv"
        now = self.backend.now
        self.backend.registry.create_job(Job(job_id, key_id, name, created_at=now, updated_at=now, **fields))
        self.backend.store.create(name, content)
        time.sleep(0.02)

    def worker(self, name: str, n_workers: int = 2) -> TrainingQueue:
        """Return the queue as another worker sees it."""
        watcher = ObjectWatcher(self.backend.store, self.data_dir)
        return TrainingQueue(self.trainer, watcher, self.data_dir, worker=name, n_workers=n_workers)

    def look(self) -> list[str]:
        """Look for files, end those that need no training, and return their names."""
        with self.queue.turn() as turn:
            ended = turn.look()
            for event, end in ended:
                end(event, self.trainer)
                self.watcher.mark_done(event)
        return [event.name for event, _ in ended]

    def train_next(self) -> str:
        event = started(self.queue)
        assert event is not None
        self.backend.process(event, self.trainer)
        self.watcher.mark_done(event)
        with self.queue.turn():
            pass  # ends the training
        return event.name

    def state(self, job_id: str) -> JobState:
        return self.backend.registry.get_job(job_id).state


def started(queue: TrainingQueue) -> ObjectCreated | None:
    """Start the next file of a worker. Its previous training counts as ended."""
    with queue.turn() as turn:
        return turn.start()


def looked_and_started(queue: TrainingQueue) -> str | None:
    """Look for files as a worker does, and return the job id of the file that it starts."""
    with queue.turn() as turn:
        turn.look()
        event = turn.start()
    return None if event is None else Path(event.name).stem


@pytest.fixture
def machine(backend: Backend) -> Machine:
    return Machine(backend)


def test_known_key_is_trained_before_anonymous_ones_that_came_first(machine: Machine) -> None:
    for number in range(3):
        machine.upload(f"anonymous{number}", machine.backend.add_key().key_id)
    machine.add_known_key("shop")
    machine.upload("known", "shop")
    machine.look()
    assert [machine.train_next() for _ in range(2)] == ["uploads/known.csv", "uploads/anonymous0.csv"]
    assert machine.state("known") is JobState.SUCCEEDED


def test_newer_file_of_a_key_supersedes_the_waiting_one_without_training(machine: Machine) -> None:
    machine.add_known_key("shop")
    machine.upload("older", "shop")
    machine.look()
    machine.upload("newer", "shop")
    assert machine.look() == ["uploads/older.csv"]
    assert (machine.state("older"), machine.backend.fits) == (JobState.SUPERSEDED, 0)
    assert machine.train_next() == "uploads/newer.csv"
    assert machine.look() == []
    assert started(machine.queue) is None


def test_validation_and_training_of_a_key_do_not_supersede_each_other(machine: Machine) -> None:
    machine.add_known_key("shop")
    machine.upload("check", "shop", purpose=JobPurpose.VALIDATE)
    machine.look()
    machine.upload("train", "shop")
    assert machine.look() == []
    machine.upload("check-again", "shop", purpose=JobPurpose.VALIDATE)
    assert machine.look() == ["uploads/check.csv"]
    assert {machine.train_next(), machine.train_next()} == {"uploads/train.csv", "uploads/check-again.csv"}
    assert (machine.state("train"), machine.backend.fits) == (JobState.SUCCEEDED, 1)


def test_all_added_files_of_a_key_are_trained(machine: Machine) -> None:
    machine.add_known_key("shop")
    for number in range(3):
        machine.upload(f"day{number}", "shop", GOOD_CSV + b"new%d,i1\n" % number, options={"mode": "append"})
    assert machine.look() == []
    reader = QueueFile(machine.data_dir)
    assert [reader.position_of(f"day{number}") for number in range(3)] == [QueuePosition(n, None) for n in (1, 2, 3)]
    assert [machine.train_next() for _ in range(3)] == [f"uploads/day{number}.csv" for number in range(3)]
    users = machine.backend.load("shop").users
    assert all(f"new{number}" in users for number in range(3))


def test_superseded_drop_gets_its_receipt(machine: Machine) -> None:
    machine.add_known_key("shop")
    for name in ("older", "newer"):
        machine.backend.store.create(f"inbox/shop/{name}.csv", GOOD_CSV)
        time.sleep(0.02)
    machine.watcher.clock = lambda: "2999-01-01T00:00:00.000000Z"  # type: ignore[assignment,return-value]
    machine.look()
    assert machine.look() == ["inbox/shop/older.csv"]
    assert machine.backend.receipt("receipts/shop/older.json")["status"] == "superseded"


def test_final_job_is_not_trained_again_after_a_restart(machine: Machine) -> None:
    machine.add_known_key("shop")
    machine.upload("job1", "shop")
    machine.look()
    machine.train_next()
    with machine.worker("1").turn() as turn:
        assert [event.name for event, _ in turn.look()] == ["uploads/job1.csv"]
        assert turn.start() is None


def test_failed_training_returns_to_the_queue(machine: Machine) -> None:
    machine.add_known_key("shop")
    machine.upload("job1", "shop")
    machine.look()
    first = started(machine.queue)
    assert first is not None
    machine.look()
    assert started(machine.queue) == first


def test_positions_and_estimates_are_published(machine: Machine) -> None:
    for name, size in (("small", 1), ("large", 2 * OVERHEAD_BYTES)):
        machine.add_known_key(name)
        machine.upload(name, name, GOOD_CSV + b"\n" * size)
    machine.look()
    reader = QueueFile(machine.data_dir)
    assert [reader.position_of(name) for name in ("small", "large")] == [QueuePosition(1, None), QueuePosition(2, None)]
    machine.train_next()
    place = reader.position_of("large")
    assert place == QueuePosition(1, 0)
    assert reader.position_of("small") is None


def test_position_is_unknown_before_the_worker_has_started(tmp_path: Path) -> None:
    assert QueueFile(tmp_path).position_of("job1") is None


def test_two_workers_train_different_keys_and_never_two_jobs_of_one_key(machine: Machine) -> None:
    for key_id in ("shop", "other"):
        machine.add_known_key(key_id)
    machine.upload("shop-first", "shop")
    first, second = machine.worker("1"), machine.worker("2")
    assert looked_and_started(first) == "shop-first"
    machine.upload("shop-second", "shop")
    machine.upload("other-first", "other")
    assert looked_and_started(second) == "other-first"
    assert looked_and_started(machine.worker("3")) is None  # the file that waits belongs to a key whose job runs
    assert looked_and_started(first) == "shop-second"  # its first training has ended


def test_file_that_superseded_another_one_is_seen_by_all_workers(machine: Machine) -> None:
    machine.add_known_key("shop")
    machine.upload("older", "shop")
    other = machine.worker("2")
    with other.turn() as turn:
        assert turn.look() == []
    machine.upload("newer", "shop")
    assert machine.look() == ["uploads/older.csv"]
    assert looked_and_started(other) == "newer"


def test_job_of_a_killed_worker_returns_to_the_queue_when_the_worker_is_started_again(machine: Machine) -> None:
    machine.add_known_key("shop")
    machine.upload("job1", "shop")
    survivor = machine.worker("2")
    assert looked_and_started(machine.worker("1")) == "job1"
    assert looked_and_started(survivor) is None
    restarted = machine.worker("1")
    with restarted.turn() as turn:
        turn.look()
    assert looked_and_started(survivor) == "job1"


def test_file_is_not_started_if_its_turn_cannot_be_stored(machine: Machine) -> None:
    machine.add_known_key("shop")
    machine.upload("job1", "shop")
    machine.look()
    state = machine.data_dir / ".scratch" / "turns.json"
    before = state.read_text()
    blocked = state.with_suffix(".tmp")
    blocked.mkdir()
    with pytest.raises(Unavailable, match=r"turns\.json cannot be written"), machine.queue.turn() as turn:
        assert turn.start() is not None
    blocked.rmdir()
    assert state.read_text() == before
    assert looked_and_started(machine.worker("2")) == "job1"


def test_turn_without_a_change_writes_no_file(machine: Machine) -> None:
    machine.look()
    scratch = machine.data_dir / ".scratch"
    before = {path.name: path.stat().st_mtime_ns for path in scratch.iterdir()}
    assert before.keys() == {"queue.json", "turns.json", "turns.lock"}
    assert looked_and_started(machine.worker("2")) is None
    assert {path.name: path.stat().st_mtime_ns for path in scratch.iterdir()} == before


def test_estimates_are_divided_by_the_number_of_workers(machine: Machine) -> None:
    for name in ("a", "b", "c"):
        machine.add_known_key(name)
        machine.upload(name, name)
    state = QueueState(trained_s=60.0, trained_cost=OVERHEAD_BYTES)
    (machine.data_dir / ".scratch" / "turns.json").write_text(json.dumps(state.to_json()))
    assert looked_and_started(machine.worker("1", n_workers=2)) == "a"
    reader = QueueFile(machine.data_dir)
    assert [reader.position_of(name) for name in ("b", "c")] == [QueuePosition(1, 30), QueuePosition(2, 60)]
