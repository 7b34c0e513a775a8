"""The SAM CLI's parser finds every route and function of template.yaml, so `sam local` can serve them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest

from local_aws.templates import load
from recsys_api.uploads import RAW_TYPES
from tests.infra.sam_transform import expanded
from tests.infra.stack import ROOT, read_sam

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("packages")]

STAGE: Final = "prod"
ANY: Final = {"DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT"}
DEFAULT_ROUTE: Final = ("X-AMAZON-APIGATEWAY-ANY-METHOD", "$default")
"""Method and path by which the SAM CLI represents the route key `$default`."""


@pytest.fixture(scope="module")
def parsed(sam: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the routes and functions that the SAM CLI finds in template.yaml."""
    command = [str(sam.with_name("python")), str(Path(__file__).with_name("sam_parser.py"))]
    result = subprocess.run(
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
    assert result.returncode == 0, result.stderr
    document: dict[str, Any] = json.loads(result.stdout)
    return document


def test_start_api_maps_every_route_to_its_function(parsed: dict[str, Any]) -> None:
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


def test_invoke_finds_every_function(parsed: dict[str, Any]) -> None:
    assert set(parsed["environments"]) == {
        f"recsys-{STAGE}-{name}" for name in ("api", "dispatch", "gc", "recommend", "train")
    }


def test_binary_media_types_are_declared(parsed: dict[str, Any]) -> None:
    """The SAM CLI answers 502 to a body that is not UTF-8 unless its media type is declared as binary."""
    assert set(parsed["binary"]) == {*RAW_TYPES, "multipart/form-data"}


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL", "RECSYS_BUCKET", "RECSYS_TABLE"])
def test_every_function_can_be_configured_for_an_emulator(parsed: dict[str, Any], variable: str) -> None:
    """`sam local --env-vars` sets only variables that the template declares."""
    assert [name for name, variables in parsed["environments"].items() if variable not in variables] == []


def test_aliases_and_canary_deployments_are_as_sam_generates_them(parsed: dict[str, Any]) -> None:
    """The other tests read template.yaml without SAM's translator, so `sam_transform.py` imitates it."""
    kinds = ("AWS::Lambda::Alias", "AWS::CodeDeploy::Application", "AWS::CodeDeploy::DeploymentGroup")
    generated = {key: each for key, each in parsed["resources"].items() if each["Type"] in kinds}
    text = re.sub(r"FunctionVersion[0-9a-f]{10}", "FunctionVersion", json.dumps(generated))
    expected = expanded(load(), {"CanaryDeployment": "true"})["Resources"]
    expected = {key: each for key, each in expected.items() if each["Type"] in kinds}
    assert _evaluated(json.loads(text)) == _evaluated(expected)


def test_every_parameter_of_a_version_is_part_of_its_description(parsed: dict[str, Any]) -> None:
    """SAM publishes a version for changed code only. A changed description makes CloudFormation publish one, too."""
    for function in ("ApiFunction", "RecommendFunction"):
        used = _parameters(parsed["resources"][function]["Properties"])
        versions = [key for key in parsed["resources"] if re.fullmatch(rf"{function}Version[0-9a-f]{{10}}", key)]
        described = {name for key in versions for name in _parameters(parsed["resources"][key]["Properties"])}
        # The stage never changes, and only an emulator has an address.
        assert used - {"Stage", "EmulatorUrl"} <= described
        assert "SnapStart" in described


def _parameters(node: Any) -> set[str]:
    """Return the names of the template's parameters to which a resource refers."""
    text = json.dumps(node)
    return {name for name in load()["Parameters"] if f'{{"Ref": "{name}"}}' in text or f"${{{name}}}" in text}


def _evaluated(node: Any) -> Any:
    """Replace SAM's two-argument `Fn::Sub` with its value."""
    if isinstance(node, list):
        return [_evaluated(item) for item in node]
    if not isinstance(node, dict):
        return node
    match node.get("Fn::Sub"):
        case [text, {"ConfigName": value}]:
            return text.replace("${ConfigName}", value)
    return {key: _evaluated(value) for key, value in node.items()}
