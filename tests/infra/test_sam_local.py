"""`sam local` finds every route and function of template.yaml: SAM's own parser, without Docker."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from recsys_api.uploads import RAW_TYPES
from tests.infra.stack import ROOT, read_sam

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packages")]

STAGE = "prod"
ANY = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
DEFAULT_ROUTE = ("X-AMAZON-APIGATEWAY-ANY-METHOD", "$default")
"""SAM CLI's own words for a route key that is `$default`."""


@pytest.fixture(scope="module")
def parsed(sam: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What SAM CLI reads from template.yaml."""
    command = [str(sam.with_name("python")), str(Path(__file__).with_name("sam_parser.py"))]
    done = subprocess.run(
        [*command, str(ROOT / "template.yaml"), STAGE],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path_factory.mktemp("home")),
            "SAM_CLI_TELEMETRY": "0",
            "AWS_DEFAULT_REGION": "eu-central-1",
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_start_api_mounts_every_route_on_its_function(parsed: dict[str, Any]) -> None:
    stack = read_sam(STAGE)
    expected = set()
    for route_key, function in stack.routes.items():
        name = stack.functions[function].name
        if route_key == "$default":
            expected.add((*DEFAULT_ROUTE, name))
            continue
        method, path = route_key.split()
        expected |= {(each, path, name) for each in (ANY if method == "ANY" else {method})}
    assert {tuple(route) for route in parsed["routes"]} == expected


def test_invoke_knows_every_function(parsed: dict[str, Any]) -> None:
    assert set(parsed["environments"]) == {f"recsys-{STAGE}-{name}" for name in ("api", "recommend", "train")}


def test_bodies_that_are_not_text_are_encoded_as_on_aws(parsed: dict[str, Any]) -> None:
    """SAM CLI answers 502 to a body that is not UTF-8 unless its type is listed."""
    sent = {*RAW_TYPES, "multipart/form-data"}
    assert set(parsed["binary"]) == {media_type for media_type in sent if not media_type.startswith("text/")}


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "RECSYS_BUCKET", "RECSYS_TABLE"])
def test_every_function_can_be_pointed_at_an_emulator(parsed: dict[str, Any], variable: str) -> None:
    """`--env-vars` sets only variables that the template declares."""
    assert [name for name, variables in parsed["environments"].items() if variable not in variables] == []
