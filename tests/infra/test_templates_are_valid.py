"""template.yaml passes cfn-lint and `sam validate` without an AWS account or a network, and defines every route."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from local_aws.templates import load
from tests.infra.stack import ROOT, read_sam

ROUTES: Final = {
    "POST /v1/train",
    "POST /v1/validate",
    "POST /v1/uploads",
    "GET /v1/jobs/{job_id}",
    "GET /v1/usage",
    "GET /v1/models",
    "POST /v1/models/{version}/activate",
    "POST /v1/models/{version}/pin",
    "DELETE /v1/models/{version}/pin",
    "GET /v1/key",
    "DELETE /v1/key",
    "POST /v1/key/rotate",
    "POST /v1/key/claim",
    "GET /health/live",
    "GET /health/ready",
    "GET /openapi.json",
    "GET /docs",
    "GET /console",
    "$default",
}


def test_cfn_lint_reports_no_findings() -> None:
    command = [str(Path(sys.executable).with_name("cfn-lint")), "template.yaml"]
    result = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.slow
@pytest.mark.xdist_group("packages")
def test_sam_validates_the_template_without_an_account(sam: Path, tmp_path: Path) -> None:
    result = subprocess.run(
        [str(sam), "validate", "--lint"],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "SAM_CLI_TELEMETRY": "0",
            "AWS_DEFAULT_REGION": "eu-central-1",
            "HTTPS_PROXY": "http://127.0.0.1:9",  # a closed port, so that network access fails
        },
        check=False,
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_sam_build_finds_a_target_for_each_function_and_layer() -> None:
    built = {
        logical_id: ROOT / resource["Properties"].get("CodeUri", resource["Properties"].get("ContentUri")) / "Makefile"
        for logical_id, resource in load()["Resources"].items()
        if resource.get("Metadata", {}).get("BuildMethod") == "makefile"
    }
    assert len(built) >= 5
    for logical_id, makefile in built.items():
        targets = re.findall(r"^(build-.+):", makefile.read_text("utf-8"), re.MULTILINE)
        assert f"build-{logical_id}" in " ".join(targets).split()


def test_every_route_maps_to_its_function() -> None:
    routes = read_sam().routes
    assert {route for route, function in routes.items() if function == "ApiFunction"} == ROUTES
    assert {route for route, function in routes.items() if function == "RecommendFunction"} == {
        "ANY /v1/recommendations",
        "ANY /v1/recommendations/batch",
        "GET /v1/items",
        "ANY /v1/items/{proxy+}",
        "ANY /v1/popular",
    }
    assert set(routes.values()) == {"ApiFunction", "RecommendFunction"}
