"""Read template.yaml and serverless.yml into one form, `Stack`, so that tests can compare them.

References become `<LogicalId>` or `<LogicalId.Attribute>`, and pseudo parameters become `<AWS::AccountId>` and so on.
Logical ids that the Serverless Framework generates are replaced by those of template.yaml.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import yaml

from local_aws.templates import load
from tests.infra.sam_transform import expanded
from tests.infra.serverless_variables import ServerlessVariables

ROOT: Final = Path(__file__).parents[2]
NAMES_FILE: Final = ROOT / "infra" / "names.yaml"

_SERVERLESS_IDS: Final = {
    "ApiLambdaFunction": "ApiFunction",
    "RecommendLambdaFunction": "RecommendFunction",
    "TrainLambdaFunction": "TrainFunction",
    "DispatchLambdaFunction": "DispatchFunction",
    "GcLambdaFunction": "GcFunction",
    "SharedLambdaLayer": "SharedLayer",
    "HttpApiIntegrationApi": "ApiIntegration",
    "HttpApiIntegrationRecommend": "RecommendIntegration",
    "ApiLambdaPermissionHttpApi": "ApiPermission",
    "RecommendLambdaPermissionHttpApi": "RecommendPermission",
    "DispatchEventSourceMappingSQSArrivalQueue": "DispatchTrigger",
    "TrainEventSourceMappingSQSQueue": "TrainTrigger",
    "ApiSnapStartLambdaAlias": "ApiFunctionAliaslive",
    "RecommendSnapStartLambdaAlias": "RecommendFunctionAliaslive",
}
_SERVERLESS_VERSION: Final = re.compile(r"^(Api|Recommend)LambdaVersion\w+$")
_SERVERLESS_OWN: Final = ("ServerlessDeploymentBucket", "ServerlessDeploymentBucketPolicy")


@dataclass(frozen=True)
class Function:
    """Configuration of a Lambda function."""

    name: str
    handler: str
    runtime: str | None
    packaging: str
    architectures: list[str]
    tracing: str
    snap_start: str | None
    memory_mb: int
    timeout_s: int
    storage_mb: int | None
    layers: list[str]
    role: str
    environment: dict[str, str]


@dataclass(frozen=True)
class Trigger:
    """Event source mapping from a queue to a function."""

    queue: str
    function: str
    batch_size: int
    response_types: list[str]
    max_concurrency: int


@dataclass(frozen=True)
class Stack:
    """A deployment, whichever template describes it."""

    functions: dict[str, Function]
    routes: dict[str, str]
    """Route key → logical id of the function."""
    triggers: list[Trigger]
    resources: dict[str, dict[str, Any]]
    """`{"Type": …, "Properties": …}` of every other resource, by logical id."""
    outputs: dict[str, str]

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Return the properties of all resources of a type, by logical id."""
        return {key: value["Properties"] for key, value in self.resources.items() if value["Type"] == kind}

    def statements(self, role: str) -> set[tuple[str, str, str, str]]:
        """Return the policy statements of a role, expanded to tuples of effect, action, resource and condition."""
        return {
            (statement["Effect"], action, resource, json.dumps(statement.get("Condition", {}), sort_keys=True))
            for policy in self.resources[role]["Properties"]["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            for action in _as_list(statement["Action"])
            for resource in _as_list(statement["Resource"])
        }


def names() -> dict[str, Any]:
    """Return the content of infra/names.yaml."""
    content: dict[str, Any] = yaml.safe_load(NAMES_FILE.read_text("utf-8"))
    return content


def read_sam(stage: str = "dev", **parameters: str | int) -> Stack:
    """Read template.yaml with the default of every parameter that `parameters` does not override."""
    template = _load("template.yaml")
    defaults = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    parameters = defaults | {"Stage": stage} | parameters
    return _from_cloudformation(expanded(template, parameters), parameters)


def read_compiled(path: Path, **parameters: str) -> Stack:
    """Read the template that osls compiled from serverless.yml, with `parameters` of CloudFormation."""
    template = json.loads(path.read_text("utf-8"))
    defaults = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            resource["Properties"].setdefault("PackageType", "Zip")
    return _from_cloudformation(template, defaults | parameters)


def read_serverless(stage: str = "dev", **parameters: str) -> Stack:
    """Read serverless.yml without the Serverless Framework, with `parameters` of CloudFormation."""
    service = ServerlessVariables(_load("serverless.yml"), stage).resolved()
    provider = service["provider"]
    template = service["resources"]
    values = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    values |= parameters
    values |= _conditions(template, values)
    functions, routes, triggers = {}, {}, []
    for key, function in service["functions"].items():
        logical_id = f"{key.title()}Function"
        extension = template["extensions"].get(f"{key.title()}LambdaFunction", {}).get("Properties", {})
        functions[logical_id] = _written_function(function, provider, extension)
        for event in function["events"]:
            if "httpApi" in event:
                routes["$default" if event["httpApi"] == "*" else event["httpApi"]] = logical_id
            else:
                triggers.append(_written_trigger(event["sqs"], logical_id))
    return Stack(
        functions,
        routes,
        triggers,
        _plain(_with_conditions(_evaluate(template["Resources"], values), values)),
        _outputs(template, values),
    )


def _load(name: str) -> dict[str, Any]:
    template: dict[str, Any] = json.loads(_json(name))
    return template


@cache
def _json(name: str) -> str:
    """Return a template as JSON. Parsing its YAML takes a second, and tests read it in every variant."""
    return json.dumps(load(ROOT / name))


def _from_cloudformation(template: dict[str, Any], parameters: Mapping[str, Any]) -> Stack:
    parameters = {**parameters, **_conditions(template, parameters)}
    resources = _with_references(
        {
            _sam_id(key): value
            for key, value in _with_conditions(_evaluate(template["Resources"], parameters), parameters).items()
            if key not in _SERVERLESS_OWN
        }
    )
    by_type: dict[str, dict[str, dict[str, Any]]] = {}
    for key, resource in resources.items():
        by_type.setdefault(resource["Type"], {})[key] = resource["Properties"]
    functions = by_type.pop("AWS::Lambda::Function")
    integrations = by_type["AWS::ApiGatewayV2::Integration"]
    return Stack(
        {key: _deployed_function(properties) for key, properties in functions.items()},
        {
            route["RouteKey"]: _function_of(route["Target"], integrations, by_type["AWS::Lambda::Alias"])
            for route in by_type.pop("AWS::ApiGatewayV2::Route").values()
        },
        [_deployed_trigger(properties) for properties in by_type.pop("AWS::Lambda::EventSourceMapping").values()],
        _plain({key: resource for key, resource in resources.items() if resource["Type"] in by_type}),
        _outputs(template, parameters),
    )


def _with_conditions(resources: dict[str, dict[str, Any]], parameters: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the resources, or outputs, that have no condition or one that is met."""
    return {key: value for key, value in resources.items() if parameters.get(value.get("Condition", ""), True)}


def _outputs(template: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, str]:
    outputs = _with_conditions(_evaluate(template["Outputs"], parameters), parameters)
    return {key: output["Value"] for key, output in outputs.items()}


def _with_references(resources: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Replace ARNs that name a function or an alias of this template with `<LogicalId.Arn>` or `<LogicalId>`."""
    function_arn = "arn:<AWS::Partition>:lambda:<AWS::Region>:<AWS::AccountId>:function"
    properties = {key: value["Properties"] for key, value in resources.items()}
    references = {
        f"{function_arn}:{properties[key]['FunctionName']}": _reference(key, "Arn")
        for key, value in resources.items()
        if value["Type"] == "AWS::Lambda::Function"
    }
    references |= {
        f"{function_arn}:{properties[each['FunctionName'][1:-1]]['FunctionName']}:{each['Name']}": _reference(key)
        for key, each in properties.items()
        if resources[key]["Type"] == "AWS::Lambda::Alias"
    }

    def replace(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: replace(value) for key, value in node.items()}
        if isinstance(node, list):
            return [replace(item) for item in node]
        return references.get(node, node) if isinstance(node, str) else node

    return {key: replace(resource) for key, resource in resources.items()}


def _deployed_function(properties: dict[str, Any]) -> Function:
    return Function(
        name=properties["FunctionName"],
        handler=properties.get("Handler") or properties["ImageConfig"]["Command"][0],
        runtime=properties.get("Runtime"),
        packaging=properties["PackageType"],
        architectures=properties["Architectures"],
        tracing=properties["TracingConfig"]["Mode"],
        snap_start=properties.get("SnapStart", {}).get("ApplyOn"),
        memory_mb=properties["MemorySize"],
        timeout_s=properties["Timeout"],
        storage_mb=properties.get("EphemeralStorage", {}).get("Size"),
        layers=properties.get("Layers", []),
        role=properties["Role"],
        environment=properties["Environment"]["Variables"],
    )


def _written_function(function: dict[str, Any], provider: dict[str, Any], extension: dict[str, Any]) -> Function:
    image = function.get("image")
    return Function(
        name=function["name"],
        handler=image["command"][0] if image else function["handler"],
        runtime=None if image else provider["runtime"],
        packaging="Image" if image else "Zip",
        architectures=[function.get("architecture", provider["architecture"])],
        tracing=provider["tracing"]["lambda"],
        snap_start=extension.get("SnapStart", {}).get("ApplyOn"),
        memory_mb=function["memorySize"],
        timeout_s=function["timeout"],
        storage_mb=function.get("ephemeralStorageSize"),
        layers=_evaluate(function.get("layers", []), {}),
        role=f"<{function['role']}.Arn>",
        environment=_as_text(_evaluate(provider["environment"] | function["environment"], {})),
    )


def _as_text(variables: dict[str, Any]) -> dict[str, str]:
    """Return environment variables as osls writes them, which converts numbers to text."""
    return {name: str(value) for name, value in variables.items()}


def _deployed_trigger(properties: dict[str, Any]) -> Trigger:
    return Trigger(
        properties["EventSourceArn"],
        properties["FunctionName"].removeprefix("<").removesuffix(".Arn>"),
        properties["BatchSize"],
        properties["FunctionResponseTypes"],
        properties["ScalingConfig"]["MaximumConcurrency"],
    )


def _written_trigger(event: dict[str, Any], function: str) -> Trigger:
    return Trigger(
        _evaluate(event["arn"], {}),
        function,
        event["batchSize"],
        [event["functionResponseType"]],
        event["maximumConcurrency"],
    )


def _function_of(target: str, integrations: Mapping[str, Any], aliases: Mapping[str, Any]) -> str:
    """Return the function of the alias that the integration invokes."""
    alias = integrations[target.removeprefix("integrations/<").removesuffix(">")]["IntegrationUri"][1:-1]
    function: str = aliases[alias]["FunctionName"][1:-1]
    return function


def _plain(resources: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    kept = ("Type", "Properties", "UpdatePolicy")
    return {key: {name: value[name] for name in kept if name in value} for key, value in resources.items()}


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


# -- CloudFormation's intrinsic functions


def _conditions(template: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, bool]:
    """Return the value of each condition of the template."""
    return {name: bool(_evaluate(node, parameters)) for name, node in template.get("Conditions", {}).items()}


def _evaluate(node: Any, parameters: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - one return per intrinsic function
    """Evaluate intrinsic functions; references to anything but `parameters` become `<LogicalId>`."""
    if isinstance(node, list):
        return [item for item in (_evaluate(item, parameters) for item in node) if item != _NO_VALUE]
    if not isinstance(node, dict) or not node:
        return node
    (function, argument), *others = node.items()
    match "" if others else function:
        case "Ref":
            return parameters.get(argument, _reference(argument))
        case "Fn::GetAtt":
            return _reference(*argument)
        case "Fn::If":
            return _evaluate(argument[1] if parameters[argument[0]] else argument[2], parameters)
        case "Fn::Equals":
            first, second = (_evaluate(each, parameters) for each in argument)
            return first == second
        case "Fn::Not":
            return not _evaluate(argument[0], parameters)
        case "Fn::Join":
            return argument[0].join(_evaluate(argument[1], parameters))
        case "Fn::Sub":
            return re.sub(r"\$\{([^}]+)\}", lambda match: str(parameters.get(match[1], _reference(match[1]))), argument)
        case _:
            evaluated = {key: _evaluate(value, parameters) for key, value in node.items()}
            return {key: value for key, value in evaluated.items() if value != _NO_VALUE}


_NO_VALUE: Final = "<AWS::NoValue>"


def _reference(name: str, *attribute: str) -> str:
    return f"<{'.'.join((_sam_id(name), *attribute))}>"


def _sam_id(logical_id: str) -> str:
    """Return the logical id in template.yaml of a resource of serverless.yml."""
    return _SERVERLESS_IDS.get(logical_id) or _SERVERLESS_VERSION.sub(r"\1FunctionVersion", logical_id)
