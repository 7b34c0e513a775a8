"""What a deployed stack consists of, as the services of AWS describe it, in a form that can be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any, Final

from botocore.exceptions import ClientError

from local_aws.emulator import Emulator

_GENERATED: Final = frozenset(
    {
        *("CodeSha256", "CodeSize", "CreateDate", "CreatedDate", "CreatedTimestamp", "CreationDateTime", "Id"),
        *("IntegrationId", "LastModified", "LastModifiedTimestamp", "LastUpdatedDate", "ResponseMetadata"),
        *("RevisionId", "RoleId", "AlarmConfigurationUpdatedTimestamp", "StateUpdatedTimestamp", "creationTime"),
        # The function dispatch may already have processed the test event of S3.
        *("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"),
        *("LastProcessingResult", "storedBytes"),
    }
)
"""Members whose values AWS generates, or that depend on the time."""
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_ADDRESS: Final = re.compile(r"127\.0\.0\.1:\d+")
FUNCTIONS: Final = ("api", "dispatch", "gc", "recommend", "train")


def described(emulator: Emulator, stage: str) -> dict[str, Any]:
    """Return every resource of a stage, by service and name."""
    prefix = f"recsys-{stage}"
    parts = {
        "functions": dict(_functions(emulator.client("lambda"), prefix)),
        "roles": dict(_roles(emulator, prefix)),
        "routes": dict(_routes(emulator.client("apigatewayv2"))),
        "queues": dict(_queues(emulator.client("sqs"), prefix)),
        "bucket": dict(_bucket(emulator.client("s3"), prefix)),
        "table": _table(emulator.client("dynamodb"), f"{prefix}-registry"),
        "monitoring": dict(_monitoring(emulator, prefix)),
    }
    (api,) = emulator.client("apigatewayv2").get_apis()["Items"]
    text = json.dumps(parts, default=str).replace(api["ApiId"], "<api>")
    comparable: dict[str, Any] = _comparable(json.loads(_ADDRESS.sub("<emulator>", _UUID.sub("<uuid>", text))))
    return comparable


def _functions(client: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for name in FUNCTIONS:
        function = {"FunctionName": f"{prefix}-{name}"}
        configuration = client.get_function_configuration(**function)
        yield (
            name,
            {
                "configuration": {key: value for key, value in configuration.items() if key not in ("Layers", "Role")},
                "concurrency": client.get_function_concurrency(**function).get("ReservedConcurrentExecutions"),
                "aliases": [alias["Name"] for alias in client.list_aliases(**function)["Aliases"]],
                "sources": client.list_event_source_mappings(**function)["EventSourceMappings"],
            },
        )


def _roles(emulator: Emulator, prefix: str) -> Iterator[tuple[str, Any]]:
    iam, functions = emulator.client("iam"), emulator.client("lambda")
    for name in FUNCTIONS:
        arn = functions.get_function_configuration(FunctionName=f"{prefix}-{name}")["Role"]
        role = {"RoleName": arn.rpartition("/")[2]}
        policies = iam.list_role_policies(**role)["PolicyNames"]
        yield (
            name,
            {
                "trust": iam.get_role(**role)["Role"]["AssumeRolePolicyDocument"],
                "inline": {each: iam.get_role_policy(**role, PolicyName=each)["PolicyDocument"] for each in policies},
                "managed": iam.list_attached_role_policies(**role)["AttachedPolicies"],
            },
        )


def _routes(client: Any) -> Iterator[tuple[str, Any]]:
    (api,) = client.get_apis()["Items"]
    key = {"ApiId": api["ApiId"]}
    integrations = {each["IntegrationId"]: each for each in client.get_integrations(**key, MaxResults="100")["Items"]}
    for route in client.get_routes(**key, MaxResults="100")["Items"]:
        integration = integrations[route["Target"].removeprefix("integrations/")]
        yield route["RouteKey"], {name: value for name, value in integration.items() if name != "Description"}
    yield "stages", client.get_stages(**key)["Items"]
    yield "cors", api.get("CorsConfiguration")


def _queues(client: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    for url in client.list_queues(QueueNamePrefix=prefix)["QueueUrls"]:
        yield url.rpartition("/")[2], client.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]


def _bucket(client: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    (name,) = [
        each["Name"] for each in client.list_buckets()["Buckets"] if each["Name"].startswith(f"{prefix}-objects-")
    ]
    yield "name", name
    for read in (
        client.get_bucket_versioning,
        client.get_bucket_encryption,
        client.get_bucket_lifecycle_configuration,
        client.get_bucket_notification_configuration,
        client.get_public_access_block,
        client.get_bucket_ownership_controls,
        client.get_bucket_cors,
    ):
        try:
            yield read.__name__, read(Bucket=name)
        except ClientError as error:  # the emulator does not create every setting of the template
            yield read.__name__, error.response["Error"]["Code"]


def _table(client: Any, name: str) -> dict[str, Any]:
    return {
        "table": client.describe_table(TableName=name)["Table"],
        "expiry": client.describe_time_to_live(TableName=name)["TimeToLiveDescription"],
        "backups": client.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"],
    }


def _monitoring(emulator: Emulator, prefix: str) -> Iterator[tuple[str, Any]]:
    events, logs, cloudwatch = (emulator.client(name) for name in ("events", "logs", "cloudwatch"))
    rules = events.list_rules(NamePrefix=prefix)["Rules"]
    yield "rules", {rule["Name"]: [rule, events.list_targets_by_rule(Rule=rule["Name"])["Targets"]] for rule in rules}
    yield "logs", logs.describe_log_groups(logGroupNamePrefix=f"/aws/lambda/{prefix}")["logGroups"]
    alarms = cloudwatch.describe_alarms(AlarmNamePrefix=prefix)["MetricAlarms"]
    yield "alarms", {alarm["AlarmName"]: alarm for alarm in alarms}


def _comparable(node: Any) -> Any:
    """Return the node without generated values and with the elements of each list in a fixed order."""
    if isinstance(node, list):
        return sorted(map(_comparable, node), key=lambda each: json.dumps(each, sort_keys=True))
    if not isinstance(node, dict):
        return node
    return {name: _comparable(value) for name, value in node.items() if name not in _GENERATED}
