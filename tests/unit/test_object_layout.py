"""The layout of the store: which names ask for training, and where things lie."""

from __future__ import annotations

import pytest

from recsys.objects.layout import Drop, Upload, model_prefix, parse_source, receipt, upload


@pytest.mark.parametrize("gzipped", [False, True])
def test_an_upload_is_recognised_under_the_name_it_was_given(gzipped: bool) -> None:
    assert upload("job1", gzipped=gzipped) == ("uploads/job1.csv.gz" if gzipped else "uploads/job1.csv")
    assert parse_source(upload("job1", gzipped=gzipped)) == Upload("job1")


@pytest.mark.parametrize(
    ("name", "drop"),
    [
        ("inbox/orders.csv", Drop(None, "orders")),
        ("inbox/orders.csv.gz", Drop(None, "orders", gzipped=True)),
        ("inbox/ORDERS.CSV", Drop(None, "ORDERS")),
        ("inbox/Orders.Csv.GZ", Drop(None, "Orders", gzipped=True)),
        ("inbox/orders.2026.csv", Drop(None, "orders.2026")),
        ("inbox/orders.csv.csv", Drop(None, "orders.csv")),
        ("inbox/größe 1+1 日本.csv", Drop(None, "größe 1+1 日本")),
        ("inbox/ .csv", Drop(None, " ")),
        ("inbox/key1/orders.csv", Drop("key1", "orders")),
        ("inbox/key1/orders.csv.gz", Drop("key1", "orders", gzipped=True)),
    ],
)
def test_drops_say_whose_they_are(name: str, drop: Drop) -> None:
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
def test_other_names_ask_for_no_training(name: str) -> None:
    assert parse_source(name) is None


def test_receipts_of_two_keys_and_of_a_stranger_lie_apart() -> None:
    drops = [Drop(None, "orders"), Drop("key1", "orders"), Drop("key2", "orders")]
    assert [receipt(drop) for drop in drops] == [
        "receipts/orders.json",
        "receipts/key1/orders.json",
        "receipts/key2/orders.json",
    ]


def test_the_receipt_of_a_gzipped_drop_lies_beside_that_of_the_plain_one() -> None:
    assert receipt(Drop(None, "orders", gzipped=True)) == "receipts/orders.gz.json"
    assert receipt(Drop("key1", "orders", gzipped=True)) == "receipts/key1/orders.gz.json"


def test_a_receipt_takes_the_whole_name_up_to_200_bytes() -> None:
    assert receipt(Drop("key1", "x" * 195)) == f"receipts/key1/{'x' * 195}.json"


@pytest.mark.parametrize("letter", ["x", "ö", "日", "🛒"])
def test_a_longer_receipt_name_is_cut_and_still_one_of_its_own(letter: str) -> None:
    n_letters = 250 // len(letter.encode())
    names = [letter * n_letters, letter * (n_letters - 1) + "!", letter * (n_letters - 1)]
    receipts = [receipt(Drop(None, name, gzipped)) for name in names for gzipped in (False, True)]
    assert len(set(receipts)) == 6
    for name in receipts:
        part = name.removeprefix("receipts/")
        assert part.startswith(letter)
        assert part.endswith(".json")
        assert len(part.encode()) <= 200


def test_each_version_has_a_folder_of_its_own() -> None:
    assert model_prefix("key1", "job1.1") == "models/key1/job1.1/"
    assert not model_prefix("key1", "job1.10").startswith(model_prefix("key1", "job1.1"))
