"""Adapt the project's templates so that an emulator can deploy them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from cfnlint.decode import cfn_yaml

Template = dict[str, Any]

ROOT: Final = Path(__file__).parents[2]
_DATA_TYPES: Final = frozenset(
    {
        "AWS::DynamoDB::Table",
        "AWS::S3::Bucket",
        "AWS::SQS::Queue",
        "AWS::SQS::QueuePolicy",
    }
)
_FUNCTION_TYPES: Final = ("AWS::Serverless::Function", "AWS::Lambda::Function")
_LAYER_TYPES: Final = ("AWS::Serverless::LayerVersion", "AWS::Lambda::LayerVersion")


def load(path: Path = ROOT / "template.yaml") -> Template:
    """Read a template and expand short forms such as `!Ref` to their long forms."""
    loaded: Template = json.loads(json.dumps(cfn_yaml.load(str(path))))
    return loaded


def data_stack(template: Template) -> Template:
    """Return a template with only the bucket, table and queues, for functions that run outside the emulator."""
    resources = {key: value for key, value in template["Resources"].items() if value["Type"] in _DATA_TYPES}
    outputs = {key: value for key, value in template["Outputs"].items() if value["Value"].get("Ref") in resources}
    return {"Parameters": template["Parameters"], "Resources": resources, "Outputs": outputs}


def retained_stack(template: Template) -> Template:
    """Return a template with only the bucket and the table, in the form that a change set of type IMPORT accepts."""
    names = ("Bucket", "Table")
    resources = {name: {**template["Resources"][name], "DeletionPolicy": "Retain"} for name in names}
    # The queue that receives the bucket's notifications does not exist at the time of the import.
    resources["Bucket"].pop("DependsOn")
    resources["Bucket"]["Properties"] = {
        name: value for name, value in resources["Bucket"]["Properties"].items() if name != "NotificationConfiguration"
    }
    return {"Parameters": {"Stage": template["Parameters"]["Stage"]}, "Resources": resources}


def function_stack(
    template: Template, code: Mapping[str, Mapping[str, str]], *, environment: Mapping[str, Mapping[str, str]]
) -> Template:
    """Return the template with the code of every function and layer replaced by a zip, to run without Docker.

    Parameters
    ----------
    template
        template.yaml as loaded, or serverless.yml as compiled by osls.
    code
        `{"Bucket": …, "Key": …}` of each zip, by the name of its function or `shared` for the layer.
    environment
        Additional environment variables of each function, by its name.
    """
    stack = _with_numbers(template)
    # The emulator has no CodeDeploy. SAM's transform gets the default, because the emulator passes it no parameters.
    stack["Parameters"]["CanaryDeployment"]["Default"] = "false"
    # The bucket policy denies requests without TLS, which the emulator does not support.
    stack["Resources"].pop("BucketPolicy")
    for logical_id, resource in stack["Resources"].items():
        if resource["Type"] in (*_FUNCTION_TYPES, *_LAYER_TYPES):
            _set_code(resource, code[_name_of(logical_id)])
        if resource["Type"] in _FUNCTION_TYPES:
            variables = resource["Properties"].setdefault("Environment", {}).setdefault("Variables", {})
            variables.update(environment[_name_of(logical_id)])
    return stack


def _with_numbers(template: Template) -> Template:
    """Replace references to numeric parameters with their defaults, because MiniStack passes parameters as strings."""
    numbers = {
        name: parameter["Default"]
        for name, parameter in template.get("Parameters", {}).items()
        if parameter["Type"] == "Number"
    }

    def replace(node: Any) -> Any:
        if isinstance(node, list):
            return [replace(item) for item in node]
        if not isinstance(node, dict):
            return node
        if list(node) == ["Ref"] and node["Ref"] in numbers:
            return numbers[node["Ref"]]
        return {key: replace(value) for key, value in node.items()}

    return {key: replace(value) for key, value in template.items()}


def _name_of(logical_id: str) -> str:
    """Return `api` for `ApiFunction` (SAM) and `ApiLambdaFunction` (osls), and `shared` for the layer."""
    return re.sub(r"(Lambda)?(Function|Layer)$", "", logical_id).lower()


def _set_code(resource: dict[str, Any], zip_object: Mapping[str, str]) -> None:
    properties = resource["Properties"]
    resource.pop("Metadata", None)
    if "ImageConfig" in properties:
        # An image needs Docker, so the function is deployed as a zip with the same handler.
        properties["Handler"] = properties.pop("ImageConfig")["Command"][0]
        properties["Runtime"] = "python3.13"
        properties["PackageType"] = "Zip"
    bucket, key = zip_object["Bucket"], zip_object["Key"]
    if resource["Type"].startswith("AWS::Serverless::"):
        name = "ContentUri" if resource["Type"] in _LAYER_TYPES else "CodeUri"
        properties[name] = {"Bucket": bucket, "Key": key}
    else:
        name = "Content" if resource["Type"] in _LAYER_TYPES else "Code"
        properties[name] = {"S3Bucket": bucket, "S3Key": key}
