"""A Parquet file is read the same whether its columns are stored as dictionaries or as plain values."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import InvalidData
from recsys_train.data import parquet_chunks
from recsys_train.data.interactions import Interactions
from recsys_train.data.reader import read_interactions
from recsys_train.data.report import DataReport


def read(table: pa.Table, **options: Any) -> tuple[Interactions, DataReport]:
    content = io.BytesIO()
    pq.write_table(table, content, **options)
    return read_interactions(io.BytesIO(content.getvalue()), max_unpacked_bytes=10**8)


def test_categories_without_rows_are_not_users() -> None:
    users = pa.DictionaryArray.from_arrays(pa.array([3, 1, 2, 1]), pa.array(["unused", "anna", "ben", "cleo"]))
    interactions, report = read(pa.table({"user_id": users, "item_id": ["tea", "milk", "tea", "mug"]}))
    assert (interactions.user_ids, interactions.users.tolist()) == (["cleo", "anna", "ben"], [0, 1, 2, 1])
    assert report.users == 3


@pytest.mark.parametrize(
    "options",
    [{}, {"row_group_size": 700}, {"dictionary_pagesize_limit": 500}, {"use_dictionary": ["item_id"]}],
    ids=str,
)
@pytest.mark.parametrize("rows_per_chunk", [1_000, 10_000])
def test_dictionaries_in_the_file_change_nothing(
    options: dict[str, Any], rows_per_chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_chunks, "_ROWS_PER_CHUNK", rows_per_chunk)
    generator = np.random.default_rng(0)
    table = pa.table(
        {
            "user_id": [f"user {number}" for number in generator.integers(0, 300, 5_000)],
            "item_id": [f"item {number % 20}" if number else None for number in generator.integers(0, 200, 5_000)],
            "timestamp": 1_700_000_000 + generator.integers(0, 1_000, 5_000),
        }
    )
    plain, report = read(table, use_dictionary=False)
    interactions, same_report = read(table, **options)
    assert (interactions.user_ids, interactions.item_ids) == (plain.user_ids, plain.item_ids)
    for name in ("users", "items", "times"):
        assert getattr(interactions, name).tolist() == getattr(plain, name).tolist()
    assert same_report.to_json() == report.to_json()


@pytest.mark.parametrize(
    ("limits", "code"),
    [({"max_unpacked_bytes": 100}, "too-large-unpacked"), ({"timeout_s": -1.0}, "reading-timeout")],
    ids=["size", "time"],
)
def test_the_limits_apply_to_a_file_on_disk(tmp_path: Path, limits: dict[str, Any], code: str) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"user_id": ["anna", "ben"], "item_id": ["tea", "milk"]}), path)
    with path.open("rb") as stream, pytest.raises(InvalidData) as raised:
        read_interactions(stream, **{"max_unpacked_bytes": 10**6, **limits})
    assert raised.value.problem_code == code


def test_a_file_on_disk_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"user_id": ["anna", "ben"], "item_id": ["tea", "milk"]}), path)
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", None)
    with path.open("rb") as stream:
        assert len(read_interactions(stream, max_unpacked_bytes=10**6)[0]) == 2
