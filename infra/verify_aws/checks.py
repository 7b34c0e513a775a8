"""Checks of a deployed stack: its alarms exist, and the roles of its functions allow what they need and no more."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from local_aws.templates import Template

Client = Callable[[str], Any]
"""Returns the boto3 client of a service, such as `s3`."""

FUNCTIONS: Final = ("api", "recommend", "dispatch", "train", "gc")
_OBJECTS: Final = {
    "api": {"inbox/x", "models/x", "receipts/x"},
    "recommend": {"inbox/x", "receipts/x", "uploads/x"},
    "dispatch": {"inbox/x", "models/x", "receipts/x", "uploads/x"},
    "train": set[str](),
    "gc": {"inbox/x", "receipts/x"},
}
"""Objects that a function may not read."""
_WRITES: Final = {
    "api": {"models/x", "inbox/x", "receipts/x"},
    "recommend": {"models/x", "uploads/x", "inbox/x", "receipts/x"},
    "dispatch": {"models/x", "uploads/x", "inbox/x", "receipts/x"},
    "train": {"uploads/x", "inbox/x"},
    "gc": {"models/x", "uploads/x", "inbox/x", "receipts/x"},
}
"""Objects that a function may not write."""
_BUCKET_ACTIONS: Final = ("s3:DeleteBucket", "s3:PutBucketPolicy", "s3:PutLifecycleConfiguration")
_TABLE_ACTIONS: Final = ("dynamodb:DeleteTable", "dynamodb:Scan", "dynamodb:UpdateTable")
_ACCOUNT_ACTIONS: Final = ("iam:PassRole", "lambda:UpdateFunctionCode", "sts:AssumeRole")


def missing_alarms(client: Client, template: Template, stage: str) -> list[str]:
    """Return the names of the template's unconditional alarms that the account does not have, or has disabled."""
    declared = {
        _name(resource["Properties"]["AlarmName"], stage)
        for resource in template["Resources"].values()
        if resource["Type"] == "AWS::CloudWatch::Alarm" and "Condition" not in resource
    }
    pages = client("cloudwatch").get_paginator("describe_alarms").paginate(AlarmNamePrefix=f"recsys-{stage}-")
    found = {alarm["AlarmName"] for page in pages for alarm in page["MetricAlarms"] if alarm["ActionsEnabled"]}
    return sorted(declared - found)


def excess_permissions(client: Client, stage: str, bucket: str, table: str) -> Iterator[str]:
    """Yield a line for each action that a role should not allow and that the policy simulator says it allows."""
    for function in FUNCTIONS:
        role_arn = _role_arn(client, stage, function)
        for action, resource in forbidden(function, bucket, _table_arn(client, table)):
            if _is_allowed(client, role_arn, action, resource):
                yield f"{function} may call {action} on {resource}"


def missing_permissions(client: Client, stage: str) -> Iterator[str]:
    """Yield a line for each action of the roles' policies that the account denies, as a permissions boundary can.

    Statements with a condition are left out, because whether they allow an action depends on the request.
    """
    iam = client("iam")
    for function in FUNCTIONS:
        role_arn = _role_arn(client, stage, function)
        role_name = role_arn.rpartition("/")[2]
        for policy_name in iam.list_role_policies(RoleName=role_name)["PolicyNames"]:
            document = iam.get_role_policy(RoleName=role_name, PolicyName=policy_name)["PolicyDocument"]
            for action, resource in _granted(document):
                if not _is_allowed(client, role_arn, action, resource):
                    yield f"{function} may not call {action} on {resource}"


def forbidden(function: str, bucket: str, table_arn: str) -> Iterator[tuple[str, str]]:
    """Yield actions and resources that the role of the function must not allow."""
    bucket_arn = f"arn:{table_arn.split(':')[1]}:s3:::{bucket}"
    for name in sorted(_OBJECTS[function]):
        yield "s3:GetObject", f"{bucket_arn}/{name}"
    for name in sorted(_WRITES[function]):
        yield "s3:PutObject", f"{bucket_arn}/{name}"
    yield "s3:DeleteObjectVersion", f"{bucket_arn}/models/x"
    yield from ((action, bucket_arn) for action in _BUCKET_ACTIONS)
    yield from ((action, table_arn) for action in _TABLE_ACTIONS)
    yield from ((action, "*") for action in _ACCOUNT_ACTIONS)
    if function in ("recommend", "gc"):  # dispatch and train may delete some rows only, which the simulator ignores
        yield "dynamodb:DeleteItem", table_arn


def _granted(document: Mapping[str, Any] | str) -> Iterator[tuple[str, str]]:
    policy: Mapping[str, Any] = json.loads(document) if isinstance(document, str) else document
    for statement in policy["Statement"]:
        if "Condition" not in statement:
            for action in _as_list(statement["Action"]):
                for resource in _as_list(statement["Resource"]):
                    yield action, resource


def _is_allowed(client: Client, role_arn: str, action: str, resource: str) -> bool:
    (result,) = client("iam").simulate_principal_policy(
        PolicySourceArn=role_arn, ActionNames=[action], ResourceArns=[resource]
    )["EvaluationResults"]
    is_allowed: bool = result["EvalDecision"] == "allowed"
    return is_allowed


def _role_arn(client: Client, stage: str, function: str) -> str:
    configuration = client("lambda").get_function_configuration(FunctionName=f"recsys-{stage}-{function}")
    role_arn: str = configuration["Role"]
    return role_arn


def _table_arn(client: Client, table: str) -> str:
    table_arn: str = client("dynamodb").describe_table(TableName=table)["Table"]["TableArn"]
    return table_arn


def _name(value: Any, stage: str) -> str:
    text: str = value["Fn::Sub"] if isinstance(value, dict) else value
    return text.replace("${Stage}", stage)


def _as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
