"""The Lambda handlers of both HTTP functions, invoked with API Gateway events on the local adapters."""

from __future__ import annotations

import asyncio
import base64
import gzip
import importlib
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from recsys.http.telemetry import LambdaHandler
from recsys.settings import Settings
from tests.unit.http_fakes import CSV, Service, publish
from tests.unit.lambda_events import Context, event, imported, unconfigured_logging

Build = Callable[..., LambdaHandler]
Captured = pytest.CaptureFixture[str]
SETTINGS = Settings(backend="aws", max_request_bytes=4 * 1024 * 1024)


@pytest.fixture
def event_loop() -> Iterator[None]:
    """Provide the event loop of this thread, on which Mangum runs the app."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)


@pytest.fixture
def build(service: Service, monkeypatch: pytest.MonkeyPatch, event_loop: None) -> Iterator[Build]:
    """Return a function that builds the handler of `api` or `recommend`.

    A test calls it itself, because the logger keeps the standard output of that moment.
    """
    modules = {name: imported(f"recsys_{name}.handler", monkeypatch) for name in ("api", "recommend")}
    with unconfigured_logging():
        yield lambda name, **changes: modules[name].build_handler(
            service.registry, service.store, replace(SETTINGS, **changes)
        )


def printed(capsys: Captured) -> list[dict[str, Any]]:
    """Return the JSON lines on standard output."""
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.parametrize("name", ["api_gateway_v2_train_multipart", "api_gateway_v2_train_csv"])
def test_upload_through_api_gateway_is_stored(build: Build, service: Service, name: str) -> None:
    response = build("api")(event(name), Context())

    assert response["statusCode"] == 202
    assert response["isBase64Encoded"] is False
    body = json.loads(response["body"])
    assert response["headers"]["location"] == f"/v1/jobs/{body['job_id']}"
    assert service.store.read(f"uploads/{body['job_id']}.csv") == CSV


def test_problem_is_not_base64_encoded(build: Build) -> None:
    response = build("api")(event("api_gateway_v2_unknown_path"), Context())

    assert response["statusCode"] == 404
    assert response["isBase64Encoded"] is False
    assert response["headers"]["content-type"] == "application/problem+json"
    assert json.loads(response["body"])["type"] == "urn:recsys:problem:not-found"


def test_request_id_is_taken_from_api_gateway(build: Build, service: Service) -> None:
    response = build("api")(event("api_gateway_v2_job", key=service.new_key()), Context())

    assert json.loads(response["body"])["request_id"] == response["headers"]["x-request-id"] == "JKJaXmPLvHcESHA="


def test_recommendations_through_api_gateway(build: Build, service: Service) -> None:
    response = build("recommend")(event("api_gateway_v2_recommendations", key=service.published_key()), Context())

    assert response["statusCode"] == 200
    assert [item["item_id"] for item in json.loads(response["body"])["items"]] == ["B", "C"]


def test_item_id_in_the_path_is_not_decoded_twice(build: Build, service: Service) -> None:
    """The request is `/v1/items/50%25%20off%2Fshoes%2Bh%C3%BCte/similar`; decoding it twice gives another id."""
    key = service.new_key()
    item_ids = ["A", "50% off/shoes+hüte", "C", "D"]
    publish(service.registry, service.store, key.key_id, service.folder / "m", service.now, item_ids=item_ids)

    response = build("recommend")(event("api_gateway_v2_similar", key=key), Context())

    body = json.loads(response["body"])
    assert response["statusCode"] == 200, body
    assert (body["item_id"], [item["item_id"] for item in body["items"]]) == ("50% off/shoes+hüte", ["A", "C"])


def test_second_invocation_gives_the_same_response(build: Build, service: Service) -> None:
    """Lambda keeps the event loop and the loaded model between two invocations."""
    handle, call = build("recommend"), event("api_gateway_v2_recommendations", key=service.published_key())

    assert handle(call, Context())["body"] == handle(call, Context())["body"]


def test_invocation_is_logged_as_one_line_with_both_request_ids(
    build: Build, service: Service, capsys: Captured
) -> None:
    key = service.published_key()
    capsys.readouterr()

    build("recommend")(event("api_gateway_v2_recommendations", key=key), Context())

    (line,) = [line for line in printed(capsys) if line.get("route") and "level" in line]
    assert (line["method"], line["route"], line["status"]) == ("POST", "/v1/recommendations", 200)
    assert line["key_id"] == key.key_id
    assert line["request_id"] == "JKJaXmPLvHcESHA="
    assert line["function_request_id"] == Context().aws_request_id
    assert line["service"] == "recommend"
    assert line["latency_ms"] > 0


def test_invocation_emits_embedded_metrics(build: Build, service: Service, capsys: Captured) -> None:
    key = service.published_key()
    capsys.readouterr()

    build("recommend")(event("api_gateway_v2_recommendations", key=key), Context())

    (line,) = [line for line in printed(capsys) if "_aws" in line]
    (described,) = line["_aws"]["CloudWatchMetrics"]
    assert described["Namespace"] == "recsys"
    assert {metric["Name"] for metric in described["Metrics"]} == {"Latency", "ServerError", "ModelLoaded"}
    assert described["Dimensions"] == [["service"]]
    assert line["service"] == "recommend"
    assert line["ServerError"] == [0.0]


def test_per_route_metrics_are_added_to_those_of_the_service(build: Build, service: Service, capsys: Captured) -> None:
    """Each value of a dimension adds a metric, which AWS charges for, and alarms watch the whole service."""
    key = service.published_key()
    capsys.readouterr()

    build("recommend", per_route_metrics=True)(event("api_gateway_v2_recommendations", key=key), Context())

    (line,) = [line for line in printed(capsys) if "_aws" in line]
    (described,) = line["_aws"]["CloudWatchMetrics"]
    assert sorted(map(sorted, described["Dimensions"])) == [["route", "service"], ["service"]]
    assert (line["service"], line["route"]) == ("recommend", "POST /v1/recommendations")


def test_detailed_metrics_have_their_units_and_are_off_by_default(
    build: Build, service: Service, capsys: Captured
) -> None:
    key = service.published_key()
    capsys.readouterr()

    build("recommend", detailed_metrics=True)(event("api_gateway_v2_recommendations", key=key), Context())

    (line,) = [line for line in printed(capsys) if "_aws" in line]
    units = {metric["Name"]: metric["Unit"] for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]}
    assert {name: unit for name, unit in units.items() if "Cache" in name} == {
        "ModelCacheMiss": "Count",
        "ModelCacheBytes": "Bytes",
        "ResponseCacheMiss": "Count",
        "ResponseCacheBytes": "Bytes",
    }
    assert line["ModelCacheBytes"][0] > 0


@pytest.mark.parametrize(("method", "measured"), [("DELETE", "DELETE"), ("BREW1", "OTHER"), ("delete", "OTHER")])
def test_unknown_method_does_not_create_a_metric_dimension(
    build: Build, capsys: Captured, method: str, measured: str
) -> None:
    call = event("api_gateway_v2_recommendations")
    call["requestContext"]["http"]["method"] = method

    build("recommend", per_route_metrics=True)(call, Context())

    (line,) = [line for line in printed(capsys) if "_aws" in line]
    assert line["route"].split()[0] == measured


def test_wrong_method_lists_the_allowed_one(build: Build) -> None:
    """API Gateway routes every method of this path to `recommend`."""
    call = event("api_gateway_v2_recommendations", routeKey="ANY /v1/recommendations")
    call["requestContext"]["http"]["method"] = "GET"

    response = build("recommend")(call, Context())

    assert (response["statusCode"], response["headers"]["allow"]) == (405, "OPTIONS, POST")


@pytest.mark.parametrize("name", ["api", "recommend"])
def test_backend_on_lambda_is_always_aws(build: Build, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    module = importlib.import_module(f"recsys_{name}.handler")
    monkeypatch.setenv("RECSYS_BACKEND", "local")

    settings = importlib.reload(module)._settings

    assert (settings.backend, settings.max_wait_s) == ("aws", 25)


def test_lambda_output_contains_no_key(build: Build, service: Service, capsys: Captured) -> None:
    key = service.published_key()

    trained = json.loads(build("api")(event("api_gateway_v2_train_csv"), Context())["body"])
    build("api")(event("api_gateway_v2_train_csv", key=key), Context())
    build("api")(event("api_gateway_v2_job", key=key), Context())
    build("recommend")(event("api_gateway_v2_recommendations", key=key), Context())
    build("recommend")(event("api_gateway_v2_recommendations", key=f"{key}x", body="{"), Context())

    output = "".join(capsys.readouterr())
    assert output
    for secret in (str(key), key.secret, trained["api_key"]):
        assert secret not in output


def test_asset_of_the_documentation_is_sent_compressed_through_api_gateway(build: Build) -> None:
    api = build("api")
    page = api(get("/docs"), Context())
    path = next(address for address in page["body"].split('"') if address.endswith("swagger-ui.css"))

    response = api(get(f"/{path}", **{"accept-encoding": "gzip, br"}), Context())

    assert (page["statusCode"], page["isBase64Encoded"]) == (200, False)
    assert (response["isBase64Encoded"], response["headers"]["content-encoding"]) == (True, "gzip")
    assert gzip.decompress(base64.b64decode(response["body"])).startswith(b".swagger-ui")


def test_preflight_through_api_gateway_is_granted(build: Build) -> None:
    """An HTTP API without a CORS configuration passes OPTIONS on to the function."""
    call = get("/v1/recommendations", origin="https://shop.example", **{"access-control-request-method": "POST"})
    call["requestContext"]["http"]["method"] = "OPTIONS"

    response = build("recommend")(call, Context())

    assert (response["statusCode"], response["headers"]["access-control-allow-origin"]) == (204, "*")


def get(path: str, **headers: str) -> dict[str, Any]:
    """Return API Gateway's event of a GET request."""
    call = event("api_gateway_v2_unknown_path")
    call["rawPath"] = path
    call["requestContext"]["http"] |= {"path": path, "method": "GET"}
    call["headers"] |= headers
    return call
