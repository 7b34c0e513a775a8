"""Print what AWS SAM makes of a template, as JSON. Runs with the Python of .venv-sam.

It calls the parser that `sam local start-api` and `sam local invoke` use, but starts no containers, and the translator
that CloudFormation uses.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from boto3.session import Session
from samcli.lib.providers.api_provider import ApiProvider
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider
from samcli.yamlhelper import yaml_parse
from samtranslator.parser.parser import Parser
from samtranslator.translator.translator import Translator


def read(template: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return routes as `[method, path, function]`, binary media types, and variable names per function."""
    stacks, _ = SamLocalStackProvider.get_stacks(template, parameter_overrides=dict(parameters))
    api = ApiProvider(stacks).api
    return {
        "routes": sorted([method, route.path, route.function_name] for route in api.routes for method in route.methods),
        "binary": sorted(api.binary_media_types),
        "environments": {
            function.functionname: sorted(function.environment["Variables"])
            for function in SamFunctionProvider(stacks).get_all()
        },
    }


def translated(template: str, parameters: Mapping[str, str]) -> dict[str, Any]:
    """Return the resources that CloudFormation gets after the transform."""
    document = yaml_parse(Path(template).read_text("utf-8"))
    for resource in document["Resources"].values():
        if resource["Type"].startswith("AWS::Serverless::"):
            # Locations that `sam deploy` would fill in.
            location = {"CodeUri": "s3://bucket/key", "ContentUri": "s3://bucket/key", "ImageUri": "registry/image:tag"}
            is_image = resource["Properties"].get("PackageType") == "Image"
            is_layer = resource["Type"].endswith("LayerVersion")
            name = "ContentUri" if is_layer else "ImageUri" if is_image else "CodeUri"
            resource["Properties"][name] = location[name]
    values = {name: str(each["Default"]) for name, each in document["Parameters"].items()} | parameters
    session = Session(region_name="eu-central-1")
    resources: dict[str, Any] = Translator({}, Parser(), boto_session=session).translate(document, values)["Resources"]
    return resources


if __name__ == "__main__":
    stage = {"Stage": sys.argv[2]}
    json.dump(read(sys.argv[1], stage) | {"resources": translated(sys.argv[1], stage)}, sys.stdout)
