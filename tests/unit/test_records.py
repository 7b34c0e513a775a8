"""Timestamps as text, and records as flat documents."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from recsys.clock import DAY_S, Timestamp, after, from_datetime, to_datetime, to_epoch_s, utc_now
from recsys.errors import FieldError, NotReady, Problem
from recsys.registry.key_record import KeyRecord
from recsys.registry.records import Job, JobPurpose, JobState, Lease, ModelVersion
from tests.contract.records import FULL_JOB, FULL_KEY, HELD_REASONS, METRICS, NOW, PROBLEM

VERSION = ModelVersion("key1", "job1.1", "job1", NOW, "d" * 64, METRICS, held_reasons=HELD_REASONS)
MOMENTS = st.datetimes(datetime(1000, 1, 1), datetime(9000, 1, 1), timezones=st.just(UTC))


def test_a_time_is_written_in_utc_with_microseconds() -> None:
    moment = datetime(2026, 11, 22, 21, 31, 5, 60, tzinfo=timezone(timedelta(hours=1)))
    assert from_datetime(moment) == "2026-11-22T20:31:05.000060Z"


@given(MOMENTS)
def test_a_time_reads_back(moment: datetime) -> None:
    assert to_datetime(from_datetime(moment)) == moment


@given(MOMENTS, MOMENTS)
def test_text_order_is_time_order(first: datetime, second: datetime) -> None:
    assert (from_datetime(first) < from_datetime(second)) == (first < second)


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0, "2026-03-01T12:00:00.000000Z"),
        (0.5, "2026-03-01T12:00:00.500000Z"),
        (DAY_S, "2026-03-02T12:00:00.000000Z"),
        (-DAY_S, "2026-02-28T12:00:00.000000Z"),
    ],
)
def test_after_moves_in_both_directions(seconds: float, expected: str) -> None:
    assert after(NOW, seconds) == expected


def test_epoch_seconds_are_whole() -> None:
    assert to_epoch_s(Timestamp("1970-01-02T00:00:01.999999Z")) == 86_401


def test_utc_now_returns_the_current_time() -> None:
    before = datetime.now(UTC)
    assert before <= to_datetime(utc_now()) <= datetime.now(UTC)


@pytest.mark.parametrize("record", [FULL_KEY, FULL_JOB, VERSION], ids=["key", "job", "version"])
def test_a_full_record_reads_back_from_a_flat_document(record: KeyRecord | Job | ModelVersion) -> None:
    document = record.to_document()
    assert {type(value) for value in document.values()} <= {str, int, JobState, JobPurpose}
    assert type(record).from_document(document) == record
    assert type(record).from_document(document | {"member_of_a_newer_release": "x"}) == record


def test_fields_that_are_none_are_omitted() -> None:
    assert KeyRecord("key1", NOW).to_document() == {"key_id": "key1", "created_at": NOW, "revision": 0}


@pytest.mark.parametrize(
    ("state", "final"),
    [
        ("queued", False),
        ("running", False),
        ("succeeded", True),
        ("failed", True),
        ("superseded", True),
        ("held", True),
    ],
)
def test_four_states_are_final(state: str, final: bool) -> None:
    assert JobState(state).is_final is final


def test_the_version_of_an_attempt_contains_its_fence() -> None:
    assert Lease(FULL_JOB).version == "fullJob.3"


def test_a_problem_reads_back_from_json() -> None:
    assert Problem.from_json(PROBLEM.to_json()) == PROBLEM
    short = Problem("code", "title", "detail")
    assert short.to_json() == {"code": "code", "title": "title", "detail": "detail"}
    assert Problem.from_json(short.to_json()) == short


def test_a_field_error_omits_fields_that_are_none() -> None:
    assert FieldError("ragged-line", "three fields", line=7).to_json() == {
        "code": "ragged-line",
        "detail": "three fields",
        "line": 7,
    }


def test_job_of_a_newer_release_is_not_ready() -> None:
    document = FULL_JOB.to_document() | {"state": "paused"}

    with pytest.raises(NotReady, match="paused"):
        Job.from_document(document)


def test_job_with_a_purpose_of_a_newer_release_is_not_ready() -> None:
    with pytest.raises(NotReady, match="dream"):
        Job.from_document(FULL_JOB.to_document() | {"purpose": "dream"})


def test_job_of_an_earlier_release_trains() -> None:
    document = FULL_JOB.to_document()
    del document["purpose"]
    assert Job.from_document(document).purpose is JobPurpose.TRAIN
