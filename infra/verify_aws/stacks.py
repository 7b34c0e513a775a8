"""Deploy a stage with the AWS SAM CLI, and delete it with the data that CloudFormation retains."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol

from botocore.exceptions import ClientError

from local_aws.templates import ROOT
from verify_aws.checks import Client

SAM: Final = ROOT / ".venv-sam" / "bin" / "sam"
Run = Callable[[Sequence[str]], object]
_DELETE_BATCH: Final = 1000
"""The most objects that one request deletes."""


class StageExists(Exception):
    """Raised if the account already has something of the stage, so that a run would change or delete foreign data."""


@dataclass(frozen=True, slots=True)
class Deployed:
    """Base URL and resources of a deployed stack."""

    url: str
    bucket: str
    table: str


class Deployer(Protocol):
    """Creates and deletes a stack."""

    def deploy(self) -> Deployed:
        """Create the stack."""

    def delete(self) -> None:
        """Delete the stack. Its bucket and table are retained."""


class SamDeployer:
    """A `Deployer` that calls the AWS SAM CLI.

    Parameters
    ----------
    client
        Returns the clients of the account.
    stage, region
        Stage to deploy, and region.
    parameters
        Parameters of the template, as `Name=value`.
    run
        Runs a command in the root of the repository; raises if it fails.
    """

    def __init__(self, client: Client, stage: str, region: str, parameters: Sequence[str], run: Run) -> None:
        self._client = client
        self._stack = f"recsys-{stage}"
        self._region = region
        self._parameters = [f"Stage={stage}", *parameters]
        self._run = run

    def deploy(self) -> Deployed:
        """Build and deploy the stack."""
        self._run([str(SAM), "build"])
        options = [
            "--no-confirm-changeset",
            "--resolve-s3",
            "--resolve-image-repos",
            "--capabilities",
            "CAPABILITY_IAM",
        ]
        self._run([*self._sam("deploy"), *options, "--parameter-overrides", *self._parameters])
        (stack,) = self._client("cloudformation").describe_stacks(StackName=self._stack)["Stacks"]
        outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
        return Deployed(outputs["ApiUrl"], outputs["BucketName"], outputs["TableName"])

    def delete(self) -> None:
        """Delete the stack, its packages in S3 and its image in ECR."""
        self._run([*self._sam("delete"), "--no-prompts"])

    def _sam(self, command: str) -> list[str]:
        return [str(SAM), command, "--stack-name", self._stack, "--region", self._region]


def run_command(command: Sequence[str]) -> None:
    """Run a command in the root of the repository. Raises `subprocess.CalledProcessError`."""
    subprocess.run(list(command), cwd=ROOT, check=True)  # noqa: S603 - fixed commands of this project


def require_new_stage(client: Client, stage: str, bucket: str, table: str) -> None:
    """Raise `StageExists` if the stack, the bucket or the table of the stage exists."""
    found = [
        what
        for what, exists in (
            (f"stack recsys-{stage}", lambda: client("cloudformation").describe_stacks(StackName=f"recsys-{stage}")),
            (f"bucket {bucket}", lambda: client("s3").head_bucket(Bucket=bucket)),
            (f"table {table}", lambda: client("dynamodb").describe_table(TableName=table)),
        )
        if _exists(exists)
    ]
    if found:
        raise StageExists(
            f"Choose another stage: the {' and the '.join(found)} exists. This command deletes its stage."
        )


def delete_data(client: Client, bucket: str, table: str) -> None:
    """Delete the bucket with all versions of its objects, and the table with its items.

    Raises
    ------
    RuntimeError
        An object could not be deleted.
    """
    s3 = client("s3")
    while objects := _some_versions(s3, bucket):
        failed = s3.delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True}).get("Errors")
        if failed:
            raise RuntimeError(
                f"S3 did not delete {failed[0]['Key']}: {failed[0]['Code']}. Delete {bucket} and {table}."
            )
    s3.delete_bucket(Bucket=bucket)
    dynamodb = client("dynamodb")
    dynamodb.delete_table(TableName=table)
    dynamodb.get_waiter("table_not_exists").wait(TableName=table, WaiterConfig={"Delay": 2, "MaxAttempts": 60})


def _some_versions(s3: Any, bucket: str) -> list[dict[str, str]]:
    """Return the first versions and delete markers of the bucket."""
    page = s3.list_object_versions(Bucket=bucket, MaxKeys=_DELETE_BATCH)
    entries = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
    return [{"Key": entry["Key"], "VersionId": entry["VersionId"]} for entry in entries]


def _exists(describe: Callable[[], object]) -> bool:
    try:
        describe()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code in ("404", "NoSuchBucket", "ResourceNotFoundException", "ValidationError"):
            return False
        raise
    return True
