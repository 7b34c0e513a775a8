"""template.yaml and serverless.yml describe the same deployment."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import pytest

from tests.infra.stack import Stack, read_compiled, read_sam, read_serverless

NODE: Final = (pytest.mark.node, pytest.mark.xdist_group("node"))
COMPILED_ONLY: Final = {
    # osls generates these from the functions; serverless.yml does not contain them.
    "AWS::ApiGatewayV2::Api",
    "AWS::ApiGatewayV2::Integration",
    "AWS::ApiGatewayV2::Stage",
    "AWS::Lambda::Alias",
    "AWS::Lambda::LayerVersion",
    "AWS::Lambda::Permission",
    "AWS::Lambda::Version",
    "AWS::Logs::LogGroup",
}
EVERYTHING: Final = {
    "AlarmTopicArn": "arn:aws:sns:eu-central-1:123456789012:operations",
    "CertificateArn": "arn:aws:acm:eu-central-1:123456789012:certificate/1",
    "DomainName": "recsys.example.com",
    "ModelAgeDays": "3",
    "MonthlyBudgetUsd": "100",
    "Tracing": "Active",
}
"""Parameters that create every optional resource; CanaryDeployment and Dashboard do so by default."""


@pytest.fixture
def sam_stack() -> Stack:
    return read_sam()


ReadServerless = Callable[..., Stack]


@pytest.fixture(params=["written", pytest.param("compiled", marks=NODE)])
def read_other(request: pytest.FixtureRequest) -> ReadServerless:
    """Return a function that reads serverless.yml, once as written and once as compiled by osls."""
    if request.param == "written":
        return read_serverless
    return partial(read_compiled, request.getfixturevalue("compiled_stages")["dev"])


@pytest.fixture
def serverless_stack(read_other: ReadServerless) -> Stack:
    """Return the stack of serverless.yml, once as written and once as compiled by osls."""
    return read_other()


def test_functions_are_the_same(sam_stack: Stack, serverless_stack: Stack) -> None:
    names = ("Api", "Dispatch", "Gc", "Recommend", "Train")
    assert set(sam_stack.functions) == {f"{name}Function" for name in names}
    assert serverless_stack.functions == sam_stack.functions


def test_routes_are_the_same(sam_stack: Stack, serverless_stack: Stack) -> None:
    assert serverless_stack.routes == sam_stack.routes


def test_triggers_are_the_same(sam_stack: Stack, serverless_stack: Stack) -> None:
    assert [trigger.function for trigger in sam_stack.triggers] == ["DispatchFunction", "TrainFunction"]
    assert serverless_stack.triggers == sam_stack.triggers


@pytest.mark.parametrize("role", ["ApiRole", "DispatchRole", "GcRole", "RecommendRole", "TrainRole"])
def test_permissions_are_the_same(sam_stack: Stack, serverless_stack: Stack, role: str) -> None:
    assert serverless_stack.statements(role) == sam_stack.statements(role)


@pytest.mark.parametrize(
    "kind",
    [
        "AWS::ApiGatewayV2::ApiMapping",
        "AWS::ApiGatewayV2::DomainName",
        "AWS::Budgets::Budget",
        "AWS::CloudWatch::Alarm",
        "AWS::CloudWatch::Dashboard",
        "AWS::CodeDeploy::Application",
        "AWS::CodeDeploy::DeploymentGroup",
        "AWS::DynamoDB::Table",
        "AWS::Events::Rule",
        "AWS::IAM::Role",
        "AWS::S3::Bucket",
        "AWS::S3::BucketPolicy",
        "AWS::SQS::Queue",
        "AWS::SQS::QueuePolicy",
    ],
)
def test_resources_are_the_same(read_other: ReadServerless, kind: str) -> None:
    complete = read_sam(**EVERYTHING).of_type(kind)
    assert complete
    assert read_other(**EVERYTHING).of_type(kind) == complete
    assert read_other().of_type(kind) == read_sam().of_type(kind)


OPTIONAL: Final = {
    "CanaryDeployment": {
        "ApiFunctionDeploymentGroup",
        "CodeDeployServiceRole",
        "RecommendFunctionDeploymentGroup",
        "ServerlessDeploymentApplication",
    },
    "Dashboard": {"MetricsDashboard"},
    "DomainName": {"Domain", "DomainMapping"},
    "ModelAgeDays": {"ModelAgeAlarm"},
    "MonthlyBudgetUsd": {"Budget"},
}
"""Resources that a parameter creates."""


@pytest.mark.parametrize("parameter", OPTIONAL)
def test_parameter_creates_optional_resources(read_other: ReadServerless, parameter: str) -> None:
    off = {"CanaryDeployment": "false", "Dashboard": "false"}
    on = {parameter: EVERYTHING.get(parameter, "true")}
    for read in (read_sam, read_other):
        assert set(read(**off | on).resources) - set(read(**off).resources) == OPTIONAL[parameter]


@pytest.mark.node
@pytest.mark.xdist_group("node")
def test_canary_deployment_shifts_the_requests_of_both_aliases(compiled_stages: dict[str, Path]) -> None:
    for read in (read_sam, partial(read_compiled, compiled_stages["dev"])):
        for name in ("Api", "Recommend"):
            alias = f"{name}FunctionAliaslive"
            assert read().resources[alias]["UpdatePolicy"] == {
                "CodeDeployLambdaAliasUpdate": {
                    "ApplicationName": "<ServerlessDeploymentApplication>",
                    "DeploymentGroupName": f"<{name}FunctionDeploymentGroup>",
                }
            }
            assert "UpdatePolicy" not in read(CanaryDeployment="false").resources[alias]


def test_every_type_of_resource_is_compared() -> None:
    written = {resource["Type"] for resource in read_serverless(**EVERYTHING).resources.values()}
    complete = read_sam(**EVERYTHING).resources.values()
    assert {resource["Type"] for resource in complete} == written | COMPILED_ONLY


def test_outputs_are_the_same(sam_stack: Stack, serverless_stack: Stack) -> None:
    assert set(sam_stack.outputs) == {"ApiUrl", "ArrivalQueueUrl", "BucketName", "TableName", "QueueUrl", "DlqUrl"}
    assert {key: serverless_stack.outputs.get(key) for key in sam_stack.outputs} == sam_stack.outputs


@pytest.mark.node
@pytest.mark.xdist_group("node")
@pytest.mark.parametrize("kind", sorted(COMPILED_ONLY))
def test_derived_resources_are_the_same(sam_stack: Stack, compiled_stages: dict[str, Path], kind: str) -> None:
    assert sam_stack.of_type(kind)
    assert _comparable(read_compiled(compiled_stages["dev"]).of_type(kind)) == _comparable(sam_stack.of_type(kind))


@pytest.mark.node
@pytest.mark.xdist_group("node")
def test_compiled_template_passes_cfn_lint(compiled_stages: dict[str, Path]) -> None:
    # W3005: osls writes dependencies that a reference already implies.
    lint = [
        str(Path(sys.executable).with_name("cfn-lint")),
        "--ignore-checks",
        "W3005",
        "--",
        str(compiled_stages["dev"]),
    ]
    result = subprocess.run(lint, check=False, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.node
@pytest.mark.xdist_group("node")
def test_compiled_stages_have_different_names(compiled_stages: dict[str, Path]) -> None:
    assert not _names(read_compiled(compiled_stages["dev"])) & _names(read_compiled(compiled_stages["prod"]))


@pytest.mark.parametrize("read", [read_sam, read_serverless])
def test_stages_have_different_names(read: Any) -> None:
    development, production = _names(read("dev")), _names(read("prod"))
    assert len(development) >= 9
    assert not development & production


def _names(stack: Stack) -> set[str]:
    """Return every name that must be unique in an account."""
    named = ("BucketName", "TableName", "QueueName", "LogGroupName", "AlarmName", "LayerName", "RoleName")
    properties = [resource["Properties"] for resource in stack.resources.values()]
    return {entry[name] for entry in properties for name in named if name in entry} | {
        function.name for function in stack.functions.values()
    }


def _comparable(resources: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the resources without the location of the code and without defaults that only osls writes."""
    ignored = ("CodeSha256", "Content", "ContentUri", "DefaultRouteSettings", "Description", "RetentionPolicy")
    return {
        key: {name: value for name, value in properties.items() if name not in ignored}
        for key, properties in resources.items()
    }
