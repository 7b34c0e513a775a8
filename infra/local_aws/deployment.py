"""Deploy a stack through the emulator's CloudFormation."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from botocore.exceptions import WaiterError

from deployment import package
from local_aws.emulator import REGION, Emulator
from local_aws.templates import ROOT, Template

CODE_BUCKET: Final = "recsys-local-code"
_SHARED: Final = ROOT / "layers" / "recsys" / "python" / "recsys"
_API: Final = ROOT / "functions" / "api" / "recsys_api"
_PACKAGES: Final = {
    "api": {"recsys_api": _API},
    "dispatch": {"recsys_api": _API},
    "gc": {"recsys_api": _API},
    "recommend": {"recsys_recommend": ROOT / "functions" / "recommend" / "recsys_recommend"},
    # The image of train contains the shared package; the other functions get it from the layer.
    "train": {"recsys_train": ROOT / "functions" / "train" / "recsys_train", "recsys": _SHARED},
    "shared": {"python/recsys": _SHARED},
}
"""The project's packages in each zip: path in the zip → source folder."""


def deploy(emulator: Emulator, stack_name: str, template: Template, parameters: Mapping[str, str]) -> dict[str, str]:
    """Create the stack and return its outputs.

    Raises
    ------
    RuntimeError
        A resource could not be created; the message names each failed resource and the reason.
    """
    client = emulator.client("cloudformation")
    client.create_stack(
        StackName=stack_name,
        TemplateURL=_upload_template(emulator, stack_name, template),
        Parameters=[{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()],
        Capabilities=["CAPABILITY_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    try:
        client.get_waiter("stack_create_complete").wait(
            StackName=stack_name, WaiterConfig={"Delay": 1, "MaxAttempts": 120}
        )
    except WaiterError as error:
        events = client.describe_stack_events(StackName=stack_name)["StackEvents"]
        failures = [
            f"{event['LogicalResourceId']}: {event.get('ResourceStatusReason')}"
            for event in events
            if "FAILED" in event["ResourceStatus"]
        ]
        raise RuntimeError(
            f"The stack {stack_name} was not created. Failed resources: {'; '.join(failures)}"
        ) from error
    (stack,) = client.describe_stacks(StackName=stack_name)["Stacks"]
    return {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}


def _upload_template(emulator: Emulator, stack_name: str, template: Template) -> str:
    """Store the template in the bucket of the code, and return its URL. A request can contain only 51,200 bytes."""
    key = f"{stack_name}.json"
    _client_of_code_bucket(emulator).put_object(Bucket=CODE_BUCKET, Key=key, Body=json.dumps(template))
    return f"{emulator.endpoint_url}/{CODE_BUCKET}/{key}"


def _client_of_code_bucket(emulator: Emulator) -> Any:
    """Create the bucket of the code if it does not exist, and return a client of S3."""
    s3 = emulator.client("s3")
    with contextlib.suppress(s3.exceptions.BucketAlreadyOwnedByYou):
        s3.create_bucket(Bucket=CODE_BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
    return s3


def upload_code(emulator: Emulator) -> dict[str, dict[str, str]]:
    """Upload the project's code as zips to a bucket of the emulator.

    Returns
    -------
    dict
        `{"Bucket": …, "Key": …}` of each zip, by the name of its function or `shared` for the layer.
    """
    s3 = _client_of_code_bucket(emulator)
    with TemporaryDirectory() as folder:
        for name, packages in _PACKAGES.items():
            tree, archive = Path(folder) / name, Path(folder) / f"{name}.zip"
            for path, source in packages.items():
                shutil.copytree(source, tree / path, ignore=shutil.ignore_patterns("__pycache__"))
            package.build_zip(tree, archive)
            s3.upload_file(str(archive), CODE_BUCKET, archive.name)
    return {name: {"Bucket": CODE_BUCKET, "Key": f"{name}.zip"} for name in _PACKAGES}
