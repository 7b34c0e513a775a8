"""A Parquet file is read the same whether its columns are stored as dictionaries or as plain values."""

from __future__ import annotations

import io
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys.errors import InvalidData
from recsys_train.data import parquet_chunks
from recsys_train.data import unpack as unpack_module
from recsys_train.data.interactions import Interactions
from recsys_train.data.parquet_chunks import open_parquet
from recsys_train.data.reader import read_interactions
from recsys_train.data.report import DataReport
from recsys_train.data.unpack import Limits, unpack


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


def test_the_size_of_a_file_on_disk_is_limited_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "file.parquet"
    path.write_bytes(b"PAR1" + bytes(4 * 1024**2))  # more than the first read
    limits = Limits(max_unpacked_bytes=2 * 1024**2)
    with path.open("rb") as stream, pytest.raises(InvalidData) as raised, unpack(stream, limits):
        pass
    assert raised.value.problem_code == "too-large-unpacked"


def test_the_time_for_reading_a_file_on_disk_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"user_id": ["anna", "ben"], "item_id": ["tea", "milk"]}), path)
    with path.open("rb") as stream, unpack(stream, Limits(10**6, timeout_s=600.0)) as unpacked:
        overdue = time.monotonic() + 601.0
        monkeypatch.setattr(unpack_module, "time", SimpleNamespace(monotonic=lambda: overdue))
        with pytest.raises(InvalidData) as raised:
            parquet_chunks.open_parquet(unpacked.stream)
    assert raised.value.problem_code == "reading-timeout"


def test_numbers_do_not_make_a_file_be_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    opened = []
    monkeypatch.setattr(parquet_chunks, "_ROWS_PER_CHUNK", 100)
    monkeypatch.setattr(
        parquet_chunks,
        "open_parquet",
        lambda stream, columns=(): opened.append(columns) or open_parquet(stream, columns),
    )
    read(
        pa.table(
            {"user_id": ["anna", "ben"] * 150, "item_id": ["tea", "milk", "mug"] * 100, "score": [1.0, 2.0, 3.0] * 100}
        )
    )
    encoded = [columns for columns in opened if columns]
    assert len(encoded) == 1, encoded


def test_a_file_on_disk_is_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file.parquet"
    pq.write_table(pa.table({"user_id": ["anna", "ben"], "item_id": ["tea", "milk"]}), path)
    monkeypatch.setattr(tempfile, "SpooledTemporaryFile", None)
    with path.open("rb") as stream:
        assert len(read_interactions(stream, max_unpacked_bytes=10**6)[0]) == 2


class SlowFile(io.BytesIO):
    """A file that notes whether it is closed while it is read."""

    was_closed_early = False

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        time.sleep(0.02)
        SlowFile.was_closed_early |= self.closed
        return content


def test_an_error_waits_for_the_batch_that_is_read_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_chunks, "_ROWS_PER_CHUNK", 2)
    content = io.BytesIO()
    dates = ["13.03.2026", "03.13.2026"] * 10
    pq.write_table(
        pa.table({"user_id": ["anna", "ben"] * 10, "item_id": ["tea", "milk"] * 10, "timestamp": dates}),
        content,
        row_group_size=2,
    )
    file = SlowFile(content.getvalue())
    with file, pytest.raises(InvalidData) as raised:
        read_interactions(file, max_unpacked_bytes=10**8)
    assert raised.value.problem_code == "mixed-dates"
    time.sleep(0.1)
    assert not SlowFile.was_closed_early
