"""The `traceparent` header: which values count, and that the trace id is logged."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from recsys.http.middleware import LOG_FIELDS, RequestContext
from recsys.http.trace_context import trace_id_of
from recsys_local.request_log import log_as_json
from tests.docs.pages import DOCS, code_spans, table_rows
from tests.unit.http_fakes import Service, running

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    with running(tmp_path) as service:
        yield service


@pytest.mark.parametrize(
    "value",
    [
        f"00-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-00",
        f"00-{TRACE_ID}-{PARENT_ID}-ff",
        f"01-{TRACE_ID}-{PARENT_ID}-01",
        f"cc-{TRACE_ID}-{PARENT_ID}-01-what-the-future-will-be-like",
        f"  00-{TRACE_ID}-{PARENT_ID}-01 ",
    ],
)
def test_a_valid_header_has_a_trace_id(value: str) -> None:
    assert trace_id_of([(b"traceparent", value.encode())]) == TRACE_ID


@pytest.mark.parametrize(
    "value",
    [
        "",
        "00",
        f"ff-{TRACE_ID}-{PARENT_ID}-01",
        f"00-{'0' * 32}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{'0' * 16}-01",
        f"00-{TRACE_ID.upper()}-{PARENT_ID}-01",
        f"00-{TRACE_ID[:-1]}-{PARENT_ID}-01",
        f"00-{TRACE_ID}-{PARENT_ID}-01-more",
        f"00-{TRACE_ID}-{PARENT_ID}-01-",
        f"00-{TRACE_ID}-{PARENT_ID}-1",
        f"01-{TRACE_ID}-{PARENT_ID}-01more",
        f"00-{TRACE_ID}-{PARENT_ID}-01\n",
        f"00-{'g' * 32}-{PARENT_ID}-01",
        f"00 {TRACE_ID} {PARENT_ID} 01",
        "é" * 55,
    ],
)
def test_an_invalid_header_is_ignored(value: str) -> None:
    assert trace_id_of([(b"traceparent", value.replace("\n", "\n!").encode("latin-1"))]) is None


def test_a_missing_or_repeated_header_is_ignored() -> None:
    header = (b"traceparent", f"00-{TRACE_ID}-{PARENT_ID}-01".encode())
    assert trace_id_of([]) is None
    assert trace_id_of([header, header]) is None
    assert trace_id_of([(b"tracestate", b"a=1"), header]) == TRACE_ID


def test_the_trace_id_is_logged(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "recsys.http")
    headers = {"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"}
    response = service.client.request("GET", "/health/live", headers=headers)
    service.client.get("/health/live")
    traced, untraced = (record for record in caplog.records if record.name == "recsys.http")
    assert traced.__dict__["trace_id"] == TRACE_ID
    assert "trace_id" not in untraced.__dict__
    assert "traceparent" not in response.headers


def test_the_local_log_has_the_same_fields_as_on_aws(service: Service) -> None:
    stream = io.StringIO()
    logger = logging.getLogger("recsys")
    level, propagate = logger.level, logger.propagate
    handler = log_as_json(stream)
    try:
        service.client.request("GET", "/v1/key", headers={"traceparent": f"00-{TRACE_ID}-{PARENT_ID}-01"})
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
    (line,) = [json.loads(text) for text in stream.getvalue().splitlines()]
    assert (line["level"], line["service"], line["message"]) == ("INFO", "local", "GET /v1/key 401")
    assert (line["route"], line["status"], line["problem"]) == ("/v1/key", 401, "invalid-api-key")
    assert line["trace_id"] == TRACE_ID


def test_the_fields_of_the_request_log_are_documented() -> None:
    rows = table_rows(DOCS / "operations/monitor.md", "Logs")
    documented = [span for row in rows for span in code_spans(row[0])]
    assert documented[: len(LOG_FIELDS)] == list(LOG_FIELDS)
    assert set(LOG_FIELDS) <= set(RequestContext.__slots__)
