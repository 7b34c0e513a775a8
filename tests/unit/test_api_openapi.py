"""`recsys/openapi.json` describes the routes of both functions completely."""

from __future__ import annotations

from typing import Any

from recsys.errors import FieldError
from recsys_local import openapi


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_committed_document_is_up_to_date() -> None:
    assert openapi.PATH.read_text("utf-8") == openapi.text(), "Run `.venv/bin/python -m recsys_local.openapi`."


def test_every_error_response_is_a_problem_document() -> None:
    for operation in operations(openapi.document()).values():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                (media_type,) = response["content"]
                assert media_type == "application/problem+json"


def test_every_route_has_a_summary_a_description_and_a_described_tag() -> None:
    document = openapi.document()
    described_tags = {tag["name"] for tag in document["tags"] if tag["description"]}
    for operation in operations(document).values():
        assert operation["summary"]
        assert operation["description"]
        assert len(operation["tags"]) == 1
        assert set(operation["tags"]) <= described_tags


def test_every_parameter_and_response_is_described() -> None:
    for name, operation in operations(openapi.document()).items():
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), (name, parameter["name"])
        for status, response in operation["responses"].items():
            assert response["description"] not in ("", "Successful Response"), (name, status)


def test_every_schema_and_field_is_described() -> None:
    schemas = openapi.document()["components"]["schemas"]
    for name, schema in schemas.items():
        assert schema.get("description"), name
        for field, described in schema.get("properties", {}).items():
            assert described.get("description"), (name, field)


def test_schema_of_a_problem_describes_every_member_of_a_field_error() -> None:
    described = openapi.document()["components"]["schemas"]["Problem"]["properties"]["errors"]["items"]["properties"]
    assert described.keys() == set(FieldError._fields)
    assert all(member["description"] for member in described.values())


def test_operation_ids_are_unique_and_short() -> None:
    ids = [operation["operationId"] for operation in operations(openapi.document()).values()]

    assert len(set(ids)) == len(ids)
    assert max(map(len, ids)) <= 30


def test_api_key_is_optional_only_where_the_response_contains_one() -> None:
    described = operations(openapi.document())
    optional = {name for name, operation in described.items() if {} in operation.get("security", [])}
    open_to_all = {name for name, operation in described.items() if "security" not in operation}

    assert optional == {("post", "/v1/train"), ("post", "/v1/validate"), ("post", "/v1/uploads")}
    assert open_to_all == {("post", "/v1/key/claim"), ("get", "/health/live"), ("get", "/health/ready")}
