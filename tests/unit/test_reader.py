"""Read a CSV: ids stay byte for byte, bad lines are counted, and an untrainable file is rejected with a hint."""

from __future__ import annotations

import gzip
import io
import json
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pytest

from recsys.errors import FieldError, InvalidData
from recsys.file_options import FileOptions
from recsys_train.data import collector, csv_chunks
from recsys_train.data.interactions import Interactions
from recsys_train.data.reader import UntrainableData, read_interactions
from recsys_train.data.report import DataReport

HEADER = b"user_id,item_id\n"
GOOD_LINES = b"".join(b"u%d,i%d\n" % (line % 50, line % 37) for line in range(1000))


def read(content: bytes, *, max_unpacked_bytes: int = 10**8) -> tuple[Interactions, DataReport]:
    return read_interactions(io.BytesIO(content), max_unpacked_bytes=max_unpacked_bytes)


def pairs(interactions: Interactions) -> list[tuple[str, str]]:
    return [
        (interactions.user_ids[user], interactions.item_ids[item])
        for user, item in zip(interactions.users, interactions.items, strict=True)
    ]


def lines_and_codes(errors: list[FieldError]) -> list[tuple[int | None, str]]:
    return [(error.line, error.code) for error in errors]


@pytest.mark.parametrize(
    "content",
    [
        b"user_id,item_id\nanna,tea\nben,milk\n",
        b"ITEM_ID, User_Id\ntea,anna\nmilk,ben\n",
        b"\xef\xbb\xbfuser_id,item_id\r\nanna,tea\r\nben,milk",
        b"user_id,title,item_id\nanna,a tea,tea\nben,some milk,milk\n",
        b'user_id,item_id\n"anna","tea"\n"ben","milk"\n',
        b"user_id,item_id\n\nanna,tea\n,\nben,milk\n\n",
        b"user_id,item_id\ranna,tea\rben,milk\r",
        gzip.compress(b"user_id,item_id\nanna,tea\nben,milk\n", mtime=0),
        gzip.compress(b"user_id,item_id\nanna,tea\n") + gzip.compress(b"ben,milk\n"),
    ],
    ids=[
        "plain",
        "header-case-and-order",
        "bom-crlf",
        "extra-column",
        "quoted",
        "blank-lines",
        "cr",
        "gzip",
        "gzip-twice",
    ],
)
def test_every_csv_dialect_gives_the_same_interactions(content: bytes) -> None:
    interactions, report = read(content)
    assert pairs(interactions) == [("anna", "tea"), ("ben", "milk")]
    assert (report.lines, report.bad_lines) == (2, 0)


@pytest.mark.parametrize(
    "item_id", ["007", "7", "NA", "null", "None", "nan", "1e5", "9007199254740993", "  x ", "é", "日本"]
)
def test_ids_are_kept_byte_for_byte(item_id: str) -> None:
    interactions, _report = read(f"user_id,item_id\na,{item_id}\nb,other\n".encode())
    assert interactions.item_ids == [item_id, "other"]


def test_a_quoted_id_may_contain_a_comma_and_a_quote() -> None:
    interactions, _report = read(b'user_id,item_id\na,"x,""y"""\nb,z\n')
    assert interactions.item_ids == ['x,"y"', "z"]


def test_a_repeated_pair_counts_once_at_its_earliest_time() -> None:
    interactions, _report = read(
        b"user_id,item_id,interaction_score,timestamp\n"
        b"a,x,2,2020-01-03\na,y,1,2020-01-02\na,x,0.5,2020-01-01\nb,x,1,2020-01-01\n"
    )
    assert pairs(interactions) == [("a", "x"), ("b", "x"), ("a", "y")]


@pytest.mark.parametrize(
    ("early", "late"),
    [
        ("881250949", "881250950"),
        ("881250949", "881250949001"),
        ("2020-01-01", "2020-01-01T00:00:01"),
        ("2020-01-01T12:00:00+02:00", "2020-01-01T10:30:00Z"),
        ("2020-01-01 10:00:00", "2020-01-01T10:00:00.5Z"),
        ("", "1970-01-01"),
    ],
)
def test_rows_are_sorted_by_time_in_every_timestamp_format(early: str, late: str) -> None:
    interactions, _report = read(
        f"user_id,item_id,timestamp\na,late,{late}\na,early,{early}\nb,early,{early}\n".encode()
    )
    assert pairs(interactions)[-1] == ("a", "late")


def test_rows_of_the_same_time_stay_in_file_order() -> None:
    interactions, _report = read(b"user_id,item_id,timestamp\na,z,5\na,b,5\nb,m,5\n")
    assert pairs(interactions) == [("a", "z"), ("a", "b"), ("b", "m")]


def test_every_kind_of_bad_line_is_counted_and_listed_with_its_line_number() -> None:
    content = (
        b"user_id,item_id,interaction_score,timestamp\n"
        b"a,x,1,1\n"  # line 2
        b"a,x,1\n"
        b"a,x,1,1,1\n"
        b",x,1,1\n"
        b"a,  ,1,1\n"
        b"caf\xe9,x,1,1\n"  # line 7, Latin-1
        b"a,x,many,1\n"
        b"a,x,inf,1\n"
        b"a,x,1,yesterday\n" + b"a," + b"x" * 513 + b",1,1\n" + b"a,x\0,1,1\n" + b"b,y,,\n" * 990
    )
    _interactions, report = read(content)
    assert lines_and_codes(report.listed) == [
        (3, "ragged-line"),
        (4, "ragged-line"),
        (6, "blank-item-id"),
        (7, "not-utf8-user-id"),
        (8, "bad-interaction-score"),
        (9, "bad-interaction-score"),
        (10, "bad-timestamp"),
        (11, "too-long-item-id"),
        (12, "nul-item-id"),
    ]
    assert (report.lines, report.bad_lines) == (1001, 9)
    assert report.skipped["guest"].lines == [5]


def test_line_numbers_are_correct_across_chunks() -> None:
    lines = b"user,item\n" * 900_000  # more than one chunk of 8 MiB
    _interactions, report = read(HEADER + lines + b"ragged\n" + lines + b"a,b\nblank,\n")
    assert lines_and_codes(report.listed) == [(900_002, "ragged-line"), (1_800_004, "blank-item-id")]


def test_ids_of_bad_lines_are_not_in_the_vocabulary() -> None:
    interactions, _report = read(HEADER + GOOD_LINES + b"ghost,\n,phantom\n")
    assert "ghost" not in interactions.user_ids
    assert "phantom" not in interactions.item_ids


def test_one_percent_of_bad_lines_is_accepted_with_a_warning() -> None:
    good = b"".join(GOOD_LINES.splitlines(keepends=True)[:990])
    _interactions, report = read(HEADER + b"bad\n" * 10 + good)
    assert "10 of 1,000 lines are bad (10 ragged-line)" in report.warnings()[0].text


def test_more_than_one_percent_of_bad_lines_is_rejected_and_the_first_hundred_are_listed() -> None:
    with pytest.raises(UntrainableData) as caught:
        read(HEADER + GOOD_LINES + b"bad\n" * 150)
    assert caught.value.problem_code == "too-many-bad-lines"
    assert "150 of 1,150 lines are bad" in caught.value.detail
    assert [error.line for error in caught.value.errors] == list(range(1002, 1102))
    assert caught.value.hint == "Fix the bad lines and send the file again. `errors` lists the first 100 of them."


def test_every_line_that_an_unclosed_quote_swallows_is_counted() -> None:
    with pytest.raises(UntrainableData, match=r"1,001 of 2,001 lines are bad"):
        read(HEADER + GOOD_LINES + b'"a,b\n' + GOOD_LINES)


def test_rows_with_a_score_of_zero_or_less_are_ignored_with_a_warning() -> None:
    interactions, report = read(b"user_id,item_id,interaction_score\na,x,1\nb,y,2\na,y,0\nb,x,-3\n")
    assert pairs(interactions) == [("a", "x"), ("b", "y")]
    assert report.bad_lines == 0
    assert "Ignored 2 lines with an interaction_score of 0 or less." in report.warnings()[0].text


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "empty-file"),
        (b"\n\n", "empty-file"),
        (gzip.compress(b"", mtime=0), "empty-file"),
        (HEADER, "no-rows"),
        (b"user_id,item_id", "no-rows"),
        (b"user_id\na\n", "missing-column"),
        (b"user_id:item_id\na:b\n", "missing-column"),
        (b"17850,85123A\n17850,71053\n", "missing-column"),
        (b"user_id,item_id,USER_ID\na,b,c\n", "duplicate-column"),
        (b"user_id,item_id,timestamp,timestamp\na,b,1,2\n", "duplicate-column"),
        (bytes(range(256)) * 100, "not-a-csv"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(255, 0, -1)) * 9, "not-utf8"),
        ("user_id,item_id\na,b\n".encode("utf-16-le"), "not-utf8"),
        (b"PK\x03\x04 a zip", "damaged-zip"),
        (b"BZh9 bzip2", "unsupported-compression"),
        (gzip.compress(HEADER + GOOD_LINES, mtime=0)[:-20], "damaged-gzip"),
        (gzip.compress(HEADER + GOOD_LINES, mtime=0)[:15], "damaged-gzip"),
        (b"\x1f\x8b no gzip", "damaged-gzip"),
        (HEADER + GOOD_LINES + b'a,"b\n' + GOOD_LINES * 2000, "unclosed-quote"),
        (HEADER + b"a,x\na,y\na,z\n", "too-few-users"),
        (HEADER + b"a,x\nb,x\n", "too-few-items"),
        (b"user_id,item_id,interaction_score\na,x,0\nb,y,-1\n", "too-few-users"),
    ],
)
def test_an_untrainable_file_is_rejected_with_a_code_and_a_hint(content: bytes, code: str) -> None:
    with pytest.raises(InvalidData) as caught:
        read(content)
    assert caught.value.problem_code == code
    assert caught.value.hint


def test_the_error_names_the_missing_column_and_the_received_ones() -> None:
    with pytest.raises(InvalidData, match=r"Column item_id is missing, .*Received: 'user_id', 'price'\."):
        read(b"user_id,price\na,b\n")


def test_a_gzip_bomb_is_rejected_at_the_limit() -> None:
    bomb = gzip.compress(HEADER + b"a,b\nc,d\n" * 1_000_000)
    assert len(bomb) < 50_000
    with pytest.raises(InvalidData) as caught:
        read(bomb, max_unpacked_bytes=1_000_000)
    assert caught.value.problem_code == "too-large-unpacked"


def test_merging_rows_while_reading_gives_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [f"u{line % 7},i{line % 5},{line % 3 + 1},{(line * 37) % 11}" for line in range(500)]
    content = b"user_id,item_id,interaction_score,timestamp\n" + "\n".join(lines).encode()
    monkeypatch.setattr(csv_chunks, "CHUNK_BYTES", 400)
    merged_once, _ = read(content)
    monkeypatch.setattr(collector, "MERGE_ROWS", 10)
    merged_often, _ = read(content)
    assert pairs(merged_often) == pairs(merged_once)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", csv_chunks.NO_RECORDS_MESSAGE), (b"a,b\n" + b"x" * 999, csv_chunks.LONG_RECORD_MESSAGE)],
    ids=["no-records", "long-record"],
)
def test_pyarrow_words_its_errors_as_the_reader_expects(content: bytes, message: str) -> None:
    """The reader tells these errors apart by their text, because pyarrow 26.0 raises `ArrowInvalid` for both."""
    with pytest.raises(pa.ArrowInvalid) as caught:
        pyarrow.csv.open_csv(io.BytesIO(content), pyarrow.csv.ReadOptions(block_size=100)).read_all()
    assert message in str(caught.value), f"pyarrow {pa.__version__} changed a message that csv_chunks.py matches"


def test_a_ragged_line_that_is_not_utf8_costs_only_that_line() -> None:
    _interactions, report = read(HEADER + GOOD_LINES + b"caf\xe9,x,y\n")
    assert lines_and_codes(report.listed) == [(1002, "ragged-line")]


EVENTS = b"user_id,item_id,event_name\na,x,view\na,y,purchase\nb,x,purchase\nb,,session_start\nb,y,cart\n"


def test_only_rows_with_the_chosen_events_are_used() -> None:
    options = FileOptions(events=("purchase", "cart"))
    interactions, report = read_interactions(io.BytesIO(EVENTS), max_unpacked_bytes=10**6, options=options)
    assert pairs(interactions) == [("a", "y"), ("b", "x"), ("b", "y")]
    assert report.mapping["event"] == "event_name"
    assert (report.skipped["other-event"].lines, report.bad_lines) == ([2, 5], 0)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"events": ["purchase"], "event": "kind"}, "missing-column"),
        ({"events": ["purchase"], "event": "item_id"}, "duplicate-column"),
        ({"events": ["checkout"]}, "too-few-users"),
    ],
)
def test_events_that_cannot_be_found_are_an_error(options: dict[str, Any], code: str) -> None:
    with pytest.raises(InvalidData) as caught:
        read_interactions(io.BytesIO(EVENTS), max_unpacked_bytes=10**6, options=FileOptions.of(options))
    assert caught.value.problem_code == code


def test_an_unused_column_of_events_is_reported() -> None:
    _interactions, report = read(EVENTS.replace(b"b,,session_start\n", b""))
    assert [warning.code for warning in report.warnings()] == ["unused-event"]
    assert read(EVENTS.replace(b"event_name", b"kind").replace(b"b,,session_start\n", b""))[1].warnings() == []


def test_advice_is_based_on_the_users_with_two_or_more_interactions() -> None:
    _interactions, report = read(HEADER + b"a,x\na,y\nb,x\nc,x\n")
    document = report.to_json()
    codes = [finding["code"] for finding in document["advice"]]
    assert codes == ["expect-popularity", "longer-period", "add-times", "single-items"]
    assert "two or more interactions: 1;" in document["advice"][0]["text"]
    many = b"".join(b"u%d,i%d\n" % (user, item) for user in range(400) for item in range(3))
    assert read(HEADER + many)[1].to_json()["advice"][0]["code"] == "expect-measured"


def test_report_and_problem_of_a_monstrous_header_fit_into_a_row_of_dynamodb() -> None:
    column = "ß" * 500
    header = ",".join([column, "item_id", *(f"{'é' * 1000}{n}" for n in range(2000))]).encode()
    bad = b"b,x" + b"," * 1000 + b"\n"
    with pytest.raises(UntrainableData) as caught:
        read_interactions(
            io.BytesIO(header + b"\n" + bad * 1000), max_unpacked_bytes=10**8, options=FileOptions(user=column)
        )
    document = {"report": caught.value.report.to_json(), "problem": caught.value.to_problem().to_json()}
    assert len(json.dumps(document["report"]["errors"])) > 1000
    assert len(json.dumps(document)) < 300_000
