"""`recsys/openapi.json` describes the routes that both functions have."""

from __future__ import annotations

from typing import Any

from recsys_local import openapi


def operations(document: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method, path): operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_committed_document_is_up_to_date() -> None:
    assert openapi.PATH.read_text("utf-8") == openapi.text(), "Run `.venv/bin/python -m recsys_local.openapi`."


def test_every_problem_is_described_as_ours() -> None:
    for operation in operations(openapi.document()).values():
        for status, response in operation["responses"].items():
            if int(status) >= 400:
                (media_type,) = response["content"]
                assert media_type == "application/problem+json"


def test_every_route_says_what_it_does() -> None:
    for operation in operations(openapi.document()).values():
        assert operation["description"]


def test_a_key_is_optional_only_where_one_is_given() -> None:
    described = operations(openapi.document())
    optional = {name for name, operation in described.items() if {} in operation.get("security", [])}
    open_to_all = {name for name, operation in described.items() if "security" not in operation}

    assert optional == {("post", "/v1/train"), ("post", "/v1/uploads")}
    assert open_to_all == {("post", "/v1/key/claim"), ("get", "/health/live"), ("get", "/health/ready")}
