"""Every operation behaves as `recsys/openapi.json` says, for generated valid and invalid requests."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi.checks import positive_data_acceptance

from tests.unit.http_fakes import CSV, Service, running

pytestmark = pytest.mark.slow

MAX_EXAMPLES = 20
SEED = 20261124
CHANGES_KEY = {("DELETE", "/v1/key"), ("POST", "/v1/key/rotate")}
CONFIG = {
    # A claim token that fits the schema and is unknown is 410, as it would be for one that was used.
    "checks": {"positive_data_acceptance": {"expected-statuses": ["2xx", "3xx", 401, 403, 404, 409, 410, 429, "5xx"]}}
}


@pytest.fixture(scope="module")
def conforming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    # Unlimited, so that every generated request is handled.
    limits = {"anonymous_trainings_per_hour": 0, "trainings_per_day": 0}
    with running(tmp_path_factory.mktemp("service"), **limits) as service:
        yield service


@pytest.fixture(scope="module")
def api_key(conforming: Service) -> str:
    """A key with a model."""
    return str(conforming.published_key())


@pytest.fixture(scope="module")
def api_schema(conforming: Service, api_key: str) -> Any:
    schema = schemathesis.openapi.from_asgi(
        "/openapi.json", conforming.client.app, config=schemathesis.Config.from_dict(CONFIG)
    )

    @schema.auth(refresh_interval=None)
    class KeyHeader:
        def get(self, case: schemathesis.Case, _: schemathesis.AuthContext) -> str:
            changes_key = (case.method.upper(), case.path) in CHANGES_KEY
            return str(conforming.new_key()) if changes_key else api_key

        def set(self, case: schemathesis.Case, data: str, _: schemathesis.AuthContext) -> None:
            case.headers["X-API-Key"] = data

    return schema


schema = schemathesis.pytest.from_fixture("api_schema")


@schema.parametrize()
@hypothesis.seed(SEED)
@hypothesis.settings(
    max_examples=MAX_EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
def test_operation_conforms_to_the_document(case: schemathesis.Case) -> None:
    # The same value with another body is an error that a schema cannot express.
    if re.fullmatch("[!-~]{1,255}", str((case.headers or {}).get("Idempotency-Key", ""))):
        case.headers["Idempotency-Key"] = uuid.uuid4().hex

    # schemathesis writes a text/csv body from rows, and leaves it empty where the document describes a file.
    if case.media_type == "text/csv":
        case.body = CSV.decode()

    # Names of columns and charsets, and combinations of file options, cannot be expressed by a schema, so that valid
    # data may be rejected. tests/unit/test_file_options.py and tests/unit/test_data_files.py test the options.
    has_file_options = case.path in ("/v1/train", "/v1/validate", "/v1/uploads") or case.method in ("PUT", "PATCH")
    case.call_and_validate(excluded_checks=[positive_data_acceptance] if has_file_options else None)
