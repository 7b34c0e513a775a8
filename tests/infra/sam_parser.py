"""Print the routes and functions that the AWS SAM CLI finds in a template, as JSON. Runs with the Python of .venv-sam.

It calls the parser that `sam local start-api` and `sam local invoke` use, but starts no containers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from typing import Any

from samcli.lib.providers.api_provider import ApiProvider
from samcli.lib.providers.sam_function_provider import SamFunctionProvider
from samcli.lib.providers.sam_stack_provider import SamLocalStackProvider


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


if __name__ == "__main__":
    json.dump(read(sys.argv[1], {"Stage": sys.argv[2]}), sys.stdout)
