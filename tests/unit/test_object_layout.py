"""Object names: which of them start a training job, and the names of uploads, receipts and models."""

from __future__ import annotations

import pytest

from recsys.objects.layout import model_prefix, upload
from recsys.objects.sources import Drop, Upload, parse_source


@pytest.mark.parametrize("gzipped", [False, True])
def test_the_name_of_an_upload_parses_back(gzipped: bool) -> None:
    assert upload("job1", gzipped=gzipped) == ("uploads/job1.csv.gz" if gzipped else "uploads/job1.csv")
    assert parse_source(upload("job1", gzipped=gzipped)) == Upload("job1")


@pytest.mark.parametrize(
    ("name", "drop"),
    [
        ("inbox/orders.csv", Drop(None, "orders")),
        ("inbox/orders.csv.gz", Drop(None, "orders", "csv.gz")),
        ("inbox/ORDERS.CSV", Drop(None, "ORDERS")),
        ("inbox/Orders.Csv.GZ", Drop(None, "Orders", "csv.gz")),
        ("inbox/orders.2026.csv", Drop(None, "orders.2026")),
        ("inbox/orders.csv.csv", Drop(None, "orders.csv")),
        ("inbox/größe 1+1 日本.csv", Drop(None, "größe 1+1 日本")),
        ("inbox/ .csv", Drop(None, " ")),
        ("inbox/key1/orders.csv", Drop("key1", "orders")),
        ("inbox/key1/orders.csv.gz", Drop("key1", "orders", "csv.gz")),
    ],
)
def test_a_drop_is_parsed_from_its_name(name: str, drop: Drop) -> None:
    assert parse_source(name) == drop


@pytest.mark.parametrize(
    "name",
    [
        "",
        "orders.csv",
        "/inbox/orders.csv",
        "Inbox/orders.csv",
        "inbox",
        "inbox/",
        "inbox/.csv",
        "inbox/key1/.csv",
        "inbox/key1/",
        "inbox//orders.csv",
        "inbox/key1/deeper/orders.csv",
        "inbox/orders.csv/",
        "inbox/orders.csv\n",
        "inbox/orders.csv.bak",
        "inbox/orders.csv.gz.part",
        "inbox/orders.gz",
        "inbox/orders.xlsx",
        "inbox/orderscsv",
        "uploads/.csv",
        "uploads/job1",
        "uploads/job1.json",
        "uploads/key1/job1.csv",
        "models/key1/job1.1/orders.csv",
        "receipts/orders.csv",
        "elsewhere/orders.csv",
    ],
)
def test_other_names_are_not_sources(name: str) -> None:
    assert parse_source(name) is None


def test_receipts_are_separated_by_key() -> None:
    drops = [Drop(None, "orders"), Drop("key1", "orders"), Drop("key2", "orders")]
    assert [drop.receipt_name for drop in drops] == [
        "receipts/orders.json",
        "receipts/key1/orders.json",
        "receipts/key2/orders.json",
    ]


def test_a_gzipped_drop_has_a_different_receipt_than_the_plain_file() -> None:
    assert Drop(None, "orders", "csv.gz").receipt_name == "receipts/orders.gz.json"
    assert Drop("key1", "orders", "csv.gz").receipt_name == "receipts/key1/orders.gz.json"


def test_a_receipt_name_of_200_bytes_is_not_truncated() -> None:
    assert Drop("key1", "x" * 195).receipt_name == f"receipts/key1/{'x' * 195}.json"


@pytest.mark.parametrize("letter", ["x", "ö", "日", "🛒"])
def test_longer_receipt_names_are_truncated_and_stay_unique(letter: str) -> None:
    n_letters = 250 // len(letter.encode())
    names = [letter * n_letters, letter * (n_letters - 1) + "!", letter * (n_letters - 1)]
    extensions = ("csv", "csv.gz", "tsv", "parquet")
    receipts = [Drop(None, name, extension).receipt_name for name in names for extension in extensions]
    assert len(set(receipts)) == 12
    for name in receipts:
        part = name.removeprefix("receipts/")
        assert part.startswith(letter)
        assert part.endswith(".json")
        assert len(part.encode()) <= 200


def test_the_prefixes_of_two_versions_do_not_overlap() -> None:
    assert model_prefix("key1", "job1.1") == "models/key1/job1.1/"
    assert not model_prefix("key1", "job1.10").startswith(model_prefix("key1", "job1.1"))
