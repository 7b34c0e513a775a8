"""Turns of the groups at training, on every adapter."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from recsys.errors import Unavailable
from recsys.registry.sqlite import SqliteTable
from recsys.registry.turns import ANONYMOUS, SENDING_S, TURN_VALID_S, FileTurn, Turns
from tests.contract.conftest import Bench
from tests.racing import race


@dataclass
class Queue:
    """The queue of trainings: messages in the order in which they were sent."""

    bench: Bench
    messages: list[dict[str, Any]] = field(default_factory=list)
    failures: int = 0
    """Number of the next messages that are not sent."""

    @property
    def turns(self) -> Turns:
        return Turns(self.bench.table, self.send, self.bench.clock)

    def send(self, message: str) -> None:
        if self.failures:
            self.failures -= 1
            raise Unavailable("The queue is gone.")
        self.messages.append(json.loads(message))

    def arrive(self, group: str, name: str, *, replaces: bool = False) -> FileTurn:
        """Let a file wait for its turn, a second after the previous one."""
        self.bench.clock.advance(1)
        turn = FileTurn.of(group, data_timestamp=self.bench.clock.now, name=name, version="1")
        self.turns.wait(turn, {"name": name}, replaces=replaces)
        return turn

    def end(self, name: str) -> None:
        (message,) = [message for message in self.messages if message["name"] == name]
        self.turns.end(FileTurn(**message["turn"]))

    @property
    def names(self) -> list[str]:
        return [message["name"] for message in self.messages]

    def rows(self, group: str) -> int:
        return sum(
            len(self.bench.table.list(*address)) for address in (("TURNS", "GROUP#"), (f"WAITING#{group}", "FILE#"))
        )


@pytest.fixture
def queue(bench: Bench) -> Queue:
    return Queue(bench)


def test_a_group_has_one_message_in_the_queue_and_others_do_not_wait_for_it(queue: Queue) -> None:
    for number in range(3):
        queue.arrive(ANONYMOUS, f"flood{number}")
    queue.arrive("shop", "orders")
    assert queue.names == ["flood0", "orders"]


def test_next_file_of_a_group_follows_the_groups_that_wait(queue: Queue) -> None:
    queue.arrive("a", "a1")
    queue.arrive("a", "a2")
    queue.arrive("b", "b1")
    queue.end("a1")
    assert queue.names == ["a1", "b1", "a2"]


def test_nothing_is_left_when_every_file_has_had_its_turn(queue: Queue) -> None:
    queue.arrive("a", "a1")
    queue.arrive("a", "a2")
    queue.end("a1")
    queue.end("a2")
    assert (queue.names, queue.rows("a")) == (["a1", "a2"], 0)


def test_newest_file_that_replaces_others_is_next(queue: Queue) -> None:
    queue.arrive("a", "first", replaces=True)
    queue.arrive("a", "added")
    queue.arrive("a", "older", replaces=True)
    queue.arrive("a", "newer", replaces=True)
    for name in ("first", "newer", "older"):
        queue.end(name)
    assert queue.names == ["first", "newer", "older", "added"]


def test_repeated_notification_and_repeated_end_send_nothing_twice(queue: Queue) -> None:
    turn = queue.arrive("a", "a1")
    queue.arrive("a", "a2")
    queue.turns.wait(turn, {"name": "a1"}, replaces=False)
    assert queue.names == ["a1"]
    queue.end("a1")
    queue.end("a1")
    assert queue.names == ["a1", "a2"]


def test_message_that_was_not_sent_is_sent_by_the_next_attempt(queue: Queue) -> None:
    queue.failures = 1
    with pytest.raises(Unavailable):
        queue.arrive("a", "a1")
    queue.bench.clock.advance(SENDING_S)
    queue.arrive("a", "a2")
    assert queue.names == ["a1"]


def test_next_message_that_was_not_sent_is_sent_when_the_end_is_repeated(queue: Queue) -> None:
    queue.arrive("a", "a1")
    queue.arrive("a", "a2")
    queue.failures = 1
    with pytest.raises(Unavailable):
        queue.end("a1")
    queue.bench.clock.advance(SENDING_S)
    queue.end("a1")
    assert queue.names == ["a1", "a2"]


def test_file_in_the_dead_letter_queue_blocks_its_group_for_hours_only(queue: Queue) -> None:
    queue.arrive("a", "lost")
    queue.arrive("a", "a2")
    queue.bench.clock.advance(TURN_VALID_S - 10)
    queue.arrive("a", "a3")
    assert queue.names == ["lost"]
    queue.bench.clock.advance(10)
    queue.arrive("a", "a4")
    assert queue.names == ["lost", "a2"]
    queue.end("lost")  # it returned from the dead-letter queue
    assert queue.names == ["lost", "a2"]
    queue.end("a2")
    assert queue.names == ["lost", "a2", "a3"]


def test_file_of_any_group_lets_a_group_continue_whose_message_is_lost(queue: Queue) -> None:
    queue.arrive("a", "lost")
    queue.arrive("a", "a2")
    queue.arrive("idle", "i1")
    queue.end("i1")
    queue.turns.resume()
    assert queue.names == ["lost", "i1"]
    queue.bench.clock.advance(TURN_VALID_S)
    queue.turns.resume()
    assert queue.names == ["lost", "i1", "a2"]
    queue.end("a2")
    queue.turns.resume()
    assert (queue.names, queue.rows("a")) == (["lost", "i1", "a2"], 0)


def test_files_that_arrive_at_once_get_one_turn(atomic_bench: Bench) -> None:
    queue = Queue(atomic_bench)
    turns = [FileTurn.of("a", data_timestamp=f"2026-{number}", name="x", version="1") for number in range(8)]
    race(*[lambda turn=turn: queue.turns.wait(turn, {"name": turn.file}, replaces=False) for turn in turns])
    assert len(queue.messages) == 1
    for _ in range(8):
        queue.end(queue.names[-1])
    assert sorted(queue.names) == [turn.file for turn in turns]


@pytest.mark.parametrize("seed", range(5))
def test_every_file_has_a_turn_although_calls_fail_and_are_repeated(tmp_path: Path, seed: int) -> None:
    """Messages are sent or not, and each failed call is repeated after a minute, as the queues do."""
    generator = random.Random(seed)
    table = SqliteTable(tmp_path / "registry.sqlite")
    queue = Queue(Bench(table))
    ended: set[str] = set()
    arrivals = [(generator.choice(["a", "b", ANONYMOUS]), f"file{number}") for number in range(30)]
    expected = {name for _, name in arrivals}
    for _ in range(1000):
        queue.failures = int(generator.random() < 0.3)
        running = [message for message in queue.messages if message["name"] not in ended]
        groups = [message["turn"]["group"] for message in running]
        assert len(set(groups)) == len(groups)
        if arrivals and generator.random() < 0.5:
            group, name = arrivals.pop()
            turn = FileTurn.of(group, data_timestamp=str(len(arrivals)), name=name, version="1")
            _until_done(queue, lambda turn=turn, name=name: queue.turns.wait(turn, {"name": name}, replaces=False))
        elif running:
            message = generator.choice(running)
            _until_done(queue, lambda message=message: queue.turns.end(FileTurn(**message["turn"])))
            ended.add(message["name"])
    assert sorted(queue.names) == sorted(expected)
    assert [queue.rows(group) for group in ("a", "b", ANONYMOUS)] == [0, 0, 0]
    table.close()


def _until_done(queue: Queue, call: Any) -> None:
    """Call a function. If it fails, call it again after a minute, with the queue available."""
    try:
        call()
    except Unavailable:
        queue.bench.clock.advance(SENDING_S)
        call()
