"""The interactions that a version keeps, and files that are added to them."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import InvalidData
from recsys.file_options import FileOptions
from recsys_train.data.history import History, KeyData, in_canonical_order, write_history
from recsys_train.data.interactions import Interactions
from recsys_train.data.reader import read_interactions
from recsys_train.data.report import DataReport

APPEND = FileOptions(mode="append")

Rows = list[tuple[str, str, int | None]]
"""User, item and hour of some interactions."""

_ids = st.sampled_from(["a", "B", "é", "日本", "🛒", "z z", "0", "007"])
_rows = st.lists(st.tuples(_ids, _ids, st.none() | st.integers(0, 5)), min_size=1, max_size=30)


def as_csv(rows: Rows, *, with_times: bool = True) -> bytes:
    # Rows of two users with two items, because a smaller file cannot be trained on.
    lines = [("a", "a", 0), ("B", "B", 0), *rows]
    header = "user_id,item_id" + (",timestamp" if with_times else "")
    text = [
        f"{user},{item}" + (("," + ("" if hour is None else f"2026-03-01T{hour:02}:00:00")) if with_times else "")
        for user, item, hour in lines
    ]
    return "\n".join([header, *text, ""]).encode()


def added(folder: Path, files: list[bytes]) -> tuple[Interactions, DataReport]:
    """Add files one after the other, each to the interactions that the previous one left."""
    path = folder / "kept.parquet"
    path.unlink(missing_ok=True)
    for content in files:
        key_data = KeyData(History(path, "job.1")) if path.exists() else None
        interactions, report = read_interactions(
            io.BytesIO(content), max_unpacked_bytes=10**6, options=APPEND, key_data=key_data
        )
        write_history(path, interactions)
    return interactions, report


def triples(interactions: Interactions) -> list[tuple[str, str, int | None]]:
    times = [None] * len(interactions) if interactions.times is None else interactions.times.tolist()
    users, items = interactions.user_ids, interactions.item_ids
    return [
        (users[user], items[item], time)
        for user, item, time in zip(interactions.users, interactions.items, times, strict=True)
    ]


def are_equal(one: Interactions, other: Interactions) -> bool:
    """Whether two sets of interactions are the same to every byte that a training sees."""
    return (one.user_ids, one.item_ids, triples(one)) == (other.user_ids, other.item_ids, triples(other))


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(rows=_rows, seed=st.integers(0, 1000), with_times=st.booleans())
def test_any_split_by_time_order_and_repetition_of_files_gives_the_same_interactions(
    tmp_path_factory: pytest.TempPathFactory, rows: Rows, seed: int, *, with_times: bool
) -> None:
    folder = tmp_path_factory.mktemp("history")
    generator = random.Random(seed)
    hours = generator.sample([None, *range(6)], k=7)
    by_hour = [[row for row in rows if row[2] in part] for part in (hours[:2], hours[2:4], hours[4:])]
    files = [as_csv(part, with_times=with_times) for part in [*by_hour, generator.choice(by_hour)]]
    generator.shuffle(files)
    one, _ = added(folder, [as_csv(rows, with_times=with_times)])
    several, _ = added(folder, files)
    assert are_equal(several, one)


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(parts=st.lists(_rows, min_size=2, max_size=4), seed=st.integers(0, 1000))
def test_files_that_contradict_each_other_in_the_order_of_rows_can_arrive_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, parts: list[Rows], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("history")
    files = [as_csv(part) for part in parts]
    shuffled = random.Random(seed).sample([*files, files[0]], len(files) + 1)
    assert are_equal(added(folder, shuffled)[0], added(folder, files)[0])


def test_pairs_are_kept_with_their_earliest_time_by_time_user_and_row(tmp_path: Path) -> None:
    rows: Rows = [("b", "x", 2), ("a", "z", 2), ("a", "y", 2), ("a", "x", 2), ("a", "x", 1), ("c", "x", None)]
    interactions, _ = added(tmp_path, [as_csv(rows)])
    assert [(user, item) for user, item, _ in triples(interactions)] == [
        ("c", "x"),  # a missing time comes first
        ("B", "B"),
        ("a", "a"),
        ("a", "x"),
        ("a", "z"),
        ("a", "y"),
        ("b", "x"),
    ]


def test_the_report_counts_the_kept_interactions_and_repeated_rows(tmp_path: Path) -> None:
    _, report = added(tmp_path, [as_csv([("a", "b", 1)]), as_csv([("a", "b", 1), ("c", "d", 2)])])
    counts = report.to_json()
    assert (counts["kept_interactions"], counts["rows_used"], counts["duplicates"]) == (3, 4, 3)
    assert (counts["interactions"], counts["users"], counts["appended_to"]) == (4, 3, "job.1")


@pytest.mark.parametrize("with_times", [True, False])
def test_data_with_and_without_times_is_not_mixed(tmp_path: Path, *, with_times: bool) -> None:
    with pytest.raises(InvalidData, match="in both the file and the model's data, or in neither") as raised:
        added(tmp_path, [as_csv([], with_times=with_times), as_csv([], with_times=not with_times)])
    assert raised.value.problem_code == "mixed-timestamps"


def test_rows_of_erased_users_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "kept.parquet"
    interactions, _ = added(tmp_path, [as_csv([("anna", "tea", 1), ("b", "only anna's", 1)])])
    write_history(path, interactions)
    key_data = KeyData(History(path, "job.1", erased_users={"anna"}), erased_users={"ben"})
    interactions, report = read_interactions(
        io.BytesIO(as_csv([("anna", "milk", 3), ("ben", "rum", 3)])),
        max_unpacked_bytes=10**6,
        options=APPEND,
        key_data=key_data,
    )
    assert {user for user, _, _ in triples(interactions)} == {"a", "B", "anna", "b"}
    assert ("anna", "tea") not in {(user, item) for user, item, _ in triples(interactions)}
    assert report.to_json()["skipped"] == {"erased-user": {"count": 1, "lines": [5]}}
    assert {"ben", "rum"}.isdisjoint(interactions.user_ids + interactions.item_ids)


def test_a_complete_file_keeps_the_order_of_its_rows() -> None:
    content = as_csv([("z z", "0", 1), ("a", "0", 1)])
    interactions, _ = read_interactions(io.BytesIO(content), max_unpacked_bytes=10**6)
    assert interactions.user_ids == ["a", "B", "z z"]
    assert [user for user, _, _ in triples(interactions)] == ["a", "B", "z z", "a"]


def test_the_canonical_order_drops_ids_without_pairs() -> None:
    users, items = np.array([1, 1], np.int32), np.array([2, 0], np.int32)
    ordered = in_canonical_order(Interactions(["x", "y"], ["b", "unused", "a"], users, items))
    assert (ordered.user_ids, ordered.item_ids) == (["y"], ["a", "b"])
    assert (ordered.users.tolist(), ordered.items.tolist(), ordered.times) == ([0, 0], [0, 1], None)
