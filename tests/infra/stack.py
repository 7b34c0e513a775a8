"""Read template.yaml and serverless.yml into one form, `Stack`, so that tests can compare them.

References become `<LogicalId>` or `<LogicalId.Attribute>`, and pseudo parameters become `<AWS::AccountId>` and so on.
Logical ids that the Serverless Framework generates are replaced by those of template.yaml.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from local_aws.templates import load

ROOT: Final = Path(__file__).parents[2]
NAMES_FILE: Final = ROOT / "infra" / "names.yaml"

_SERVERLESS_IDS: Final = {
    "ApiLambdaFunction": "ApiFunction",
    "RecommendLambdaFunction": "RecommendFunction",
    "TrainLambdaFunction": "TrainFunction",
    "GcLambdaFunction": "GcFunction",
    "SharedLambdaLayer": "SharedLayer",
    "HttpApiIntegrationApi": "ApiIntegration",
    "HttpApiIntegrationRecommend": "RecommendIntegration",
    "ApiLambdaPermissionHttpApi": "ApiPermission",
    "RecommendLambdaPermissionHttpApi": "RecommendPermission",
    "TrainEventSourceMappingSQSQueue": "TrainTrigger",
}
_SERVERLESS_OWN: Final = ("ServerlessDeploymentBucket", "ServerlessDeploymentBucketPolicy")


@dataclass(frozen=True)
class Function:
    """Configuration of a Lambda function."""

    name: str
    handler: str
    runtime: str | None
    packaging: str
    architectures: list[str]
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
    template = load(ROOT / "template.yaml")
    defaults = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    shared = template["Globals"]["Function"]
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            own = resource["Properties"]
            variables = shared["Environment"]["Variables"] | own.pop("Environment", {}).get("Variables", {})
            resource["Properties"] = {**shared, "PackageType": "Zip", **own, "Environment": {"Variables": variables}}
            resource["Type"] = "AWS::Lambda::Function"
        elif resource["Type"] == "AWS::Serverless::LayerVersion":
            resource["Type"] = "AWS::Lambda::LayerVersion"
    return _from_cloudformation(template, defaults | {"Stage": stage} | parameters)


def read_compiled(path: Path) -> Stack:
    """Read the template that osls compiled from serverless.yml."""
    template = json.loads(path.read_text("utf-8"))
    defaults = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Lambda::Function":
            resource["Properties"].setdefault("PackageType", "Zip")
    return _from_cloudformation(template, defaults)


def read_serverless(stage: str = "dev") -> Stack:
    """Read serverless.yml without the Serverless Framework."""
    service = _ServerlessVariables(load(ROOT / "serverless.yml"), stage).resolved()
    provider = service["provider"]
    template = service["resources"]
    values = {name: parameter["Default"] for name, parameter in template["Parameters"].items()}
    values |= _conditions(template, values)
    functions, routes, triggers = {}, {}, []
    for key, function in service["functions"].items():
        logical_id = f"{key.title()}Function"
        functions[logical_id] = _written_function(function, provider)
        for event in function["events"]:
            if "httpApi" in event:
                routes["$default" if event["httpApi"] == "*" else event["httpApi"]] = logical_id
            else:
                triggers.append(_written_trigger(event["sqs"], logical_id))
    return Stack(
        functions,
        routes,
        triggers,
        _plain(_evaluate(template["Resources"], values)),
        {key: output["Value"] for key, output in _evaluate(template["Outputs"], values).items()},
    )


def _from_cloudformation(template: dict[str, Any], parameters: Mapping[str, Any]) -> Stack:
    parameters = {**parameters, **_conditions(template, parameters)}
    resources = _with_references(
        {
            _SERVERLESS_IDS.get(key, key): value
            for key, value in _evaluate(template["Resources"], parameters).items()
            if key not in _SERVERLESS_OWN and ("Condition" not in value or parameters[value["Condition"]])
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
            route["RouteKey"]: _function_of(route["Target"], integrations)
            for route in by_type.pop("AWS::ApiGatewayV2::Route").values()
        },
        [_deployed_trigger(properties) for properties in by_type.pop("AWS::Lambda::EventSourceMapping").values()],
        _plain({key: resource for key, resource in resources.items() if resource["Type"] in by_type}),
        {key: value["Value"] for key, value in _evaluate(template["Outputs"], parameters).items()},
    )


def _with_references(resources: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Replace ARNs that name a function of this template with the reference `<LogicalId.Arn>`."""
    function_arn = "arn:<AWS::Partition>:lambda:<AWS::Region>:<AWS::AccountId>:function"
    references = {
        f"{function_arn}:{value['Properties']['FunctionName']}": key
        for key, value in resources.items()
        if value["Type"] == "AWS::Lambda::Function"
    }

    def replace(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: replace(value) for key, value in node.items()}
        if isinstance(node, list):
            return [replace(item) for item in node]
        return _reference(references[node], "Arn") if isinstance(node, str) and node in references else node

    return {key: replace(resource) for key, resource in resources.items()}


def _deployed_function(properties: dict[str, Any]) -> Function:
    return Function(
        name=properties["FunctionName"],
        handler=properties.get("Handler") or properties["ImageConfig"]["Command"][0],
        runtime=properties.get("Runtime"),
        packaging=properties["PackageType"],
        architectures=properties["Architectures"],
        memory_mb=properties["MemorySize"],
        timeout_s=properties["Timeout"],
        storage_mb=properties.get("EphemeralStorage", {}).get("Size"),
        layers=properties.get("Layers", []),
        role=properties["Role"],
        environment=properties["Environment"]["Variables"],
    )


def _written_function(function: dict[str, Any], provider: dict[str, Any]) -> Function:
    image = function.get("image")
    return Function(
        name=function["name"],
        handler=image["command"][0] if image else function["handler"],
        runtime=None if image else provider["runtime"],
        packaging="Image" if image else "Zip",
        architectures=[provider["architecture"]],
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


def _function_of(target: str, integrations: Mapping[str, dict[str, Any]]) -> str:
    uri: str = integrations[target.removeprefix("integrations/<").removesuffix(">")]["IntegrationUri"]
    return uri.removeprefix("<").removesuffix(".Arn>")


def _plain(resources: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {key: {"Type": value["Type"], "Properties": value["Properties"]} for key, value in resources.items()}


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


# -- CloudFormation's intrinsic functions


def _conditions(template: dict[str, Any], parameters: Mapping[str, Any]) -> dict[str, bool]:
    """Return the value of each condition of the template."""
    return {name: bool(_evaluate(node, parameters)) for name, node in template.get("Conditions", {}).items()}


def _evaluate(node: Any, parameters: Mapping[str, Any]) -> Any:  # noqa: PLR0911 - one return per intrinsic function
    """Evaluate intrinsic functions; references to anything but `parameters` become `<LogicalId>`."""
    if isinstance(node, list):
        return [_evaluate(item, parameters) for item in node]
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
            return {key: _evaluate(value, parameters) for key, value in node.items()}


def _reference(name: str, *attribute: str) -> str:
    return f"<{'.'.join((_SERVERLESS_IDS.get(name, name), *attribute))}>"


# -- the Serverless Framework's variables


class _ServerlessVariables:
    """Resolves the variables that serverless.yml uses: `file(…)`, `self:`, `sls:`, `opt:`, `param:` and `env:`."""

    _INNERMOST = re.compile(r"\$\{((?:file\([^)]*\)|self|sls|opt|param|env)[^${}]*)\}")

    def __init__(self, service: dict[str, Any], stage: str) -> None:
        self._service = service
        self._stage = stage

    def resolved(self) -> dict[str, Any]:
        result = self._resolve(self._service)
        assert isinstance(result, dict)
        return result

    def _resolve(self, node: Any) -> Any:
        if isinstance(node, dict):
            return {key: self._resolve(value) for key, value in node.items()}
        if isinstance(node, list):
            return [self._resolve(item) for item in node]
        while isinstance(node, str) and (variable := self._INNERMOST.search(node)):
            value = self._first_known(variable[1].split(","))
            node = value if variable[0] == node else node.replace(variable[0], str(value))
        return node

    def _first_known(self, choices: Iterable[str]) -> Any:
        for choice in choices:
            source, _, address = choice.strip().partition(":")
            if source.startswith(("'", '"')):
                return choice.strip()[1:-1]
            if source == "self":
                return self._at(address)
            if source == "sls":
                return self._stage
            if source.startswith("file("):
                assert not address, "only whole files are supported; use self: to select a part"
                return yaml.safe_load((ROOT / source[5:-1]).read_text("utf-8"))
        raise AssertionError(f"no known source of a variable in {choices}")

    def _at(self, address: str) -> Any:
        node: Any = self._service
        for part in address.split("."):
            node = self._resolve(node[part]) if isinstance(node[part], str) else node[part]
        return self._resolve(node)
