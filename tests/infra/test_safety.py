"""Security and durability of the stack: permissions, encryption, retention, throttling and alarms."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from recsys.settings import Settings
from tests.infra.stack import ROOT, Stack, names, read_sam

ADAPTERS: Final = (
    ROOT / "layers/recsys/python/recsys/objects/s3.py",
    ROOT / "layers/recsys/python/recsys/registry/dynamodb.py",
)
# Client method → the IAM actions that it requires. HeadObject requires s3:GetObject. A transaction requires the actions
# of its items, which put and delete (`_to_action`). A presigned form acts with the permissions of its signer.
CALLS: Final = {
    "delete_object": {"s3:DeleteObject"},
    "generate_presigned_post": {"s3:PutObject"},
    "get_object": {"s3:GetObject"},
    "head_object": {"s3:GetObject", "s3:GetObjectVersion"},
    "list_object_versions": {"s3:ListBucketVersions"},
    "put_object": {"s3:PutObject"},
    "get_item": {"dynamodb:GetItem"},
    "query": {"dynamodb:Query"},
    "transact_write_items": {"dynamodb:PutItem", "dynamodb:DeleteItem"},
}
OPENAPI: Final = ROOT / "layers/recsys/python/recsys/openapi.json"
BUCKET: Final = "arn:<AWS::Partition>:s3:::<Bucket>"
ONLY_RATE_LIMITS: Final = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["LIMIT#recommendations#*"]}}
ONLY_TURNS: Final = {"ForAllValues:StringLike": {"dynamodb:LeadingKeys": ["TURNS", "WAITING#*"]}}
REGISTRY: Final = {("<Table.Arn>", f"dynamodb:{action}") for action in ("GetItem", "PutItem")}


@pytest.fixture(scope="module")
def stack() -> Stack:
    return read_sam()


def allowed(stack: Stack, role: str) -> set[tuple[str, str]]:
    """Return the `(resource, action)` pairs that a role allows without a condition, except logging."""
    statements = stack.statements(role)
    assert {effect for effect, _, _, _ in statements} == {"Allow"}
    return {
        (resource, action)
        for _, action, resource, condition in statements
        if not action.startswith("logs:") and condition == "{}"
    }


def conditional(stack: Stack, role: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the resource, action and condition of what a role allows with a condition."""
    statements = stack.statements(role)
    return [
        (resource, action, json.loads(condition)) for _, action, resource, condition in statements if condition != "{}"
    ]


def test_api_writes_uploads_and_the_registry(stack: Stack) -> None:
    uploads = {(f"{BUCKET}/uploads/*", f"s3:{action}") for action in ("GetObject", "GetObjectVersion", "PutObject")}
    assert allowed(stack, "ApiRole") == uploads | {(BUCKET, "s3:ListBucket")} | REGISTRY | {
        ("<Table.Arn>", "dynamodb:DeleteItem"),
        ("<Table.Arn>", "dynamodb:Query"),
    }


def test_recommend_only_reads_models_and_single_items(stack: Stack) -> None:
    assert allowed(stack, "RecommendRole") == {
        (f"{BUCKET}/models/*", "s3:GetObject"),
        ("<Table.Arn>", "dynamodb:GetItem"),
    }


def test_recommend_writes_only_rows_of_its_rate_limit(stack: Stack) -> None:
    assert conditional(stack, "RecommendRole") == [("<Table.Arn>", "dynamodb:PutItem", ONLY_RATE_LIMITS)]


def test_api_lists_only_models(stack: Stack) -> None:
    only_models = {"StringLike": {"s3:prefix": ["models/*"]}}
    assert conditional(stack, "ApiRole") == [(BUCKET, "s3:ListBucketVersions", only_models)]


def test_train_reads_sources_and_writes_models_and_receipts(stack: Stack) -> None:
    read = ("GetObject", "GetObjectVersion")
    messages = ("ChangeMessageVisibility", "DeleteMessage", "GetQueueAttributes", "ReceiveMessage", "SendMessage")
    assert allowed(stack, "TrainRole") == (
        {(f"{BUCKET}/{folder}/*", "s3:GetObject") for folder in ("uploads", "inbox")}
        | {(f"{BUCKET}/models/*", f"s3:{action}") for action in (*read, "PutObject", "DeleteObject")}
        | {(f"{BUCKET}/receipts/*", f"s3:{action}") for action in (*read, "PutObject")}
        | {(BUCKET, "s3:ListBucket"), (BUCKET, "s3:ListBucketVersions")}
        | {("<Queue.Arn>", f"sqs:{action}") for action in messages}
        | {("<Table.Arn>", "dynamodb:Query")}
        | REGISTRY
    )
    assert conditional(stack, "TrainRole") == [("<Table.Arn>", "dynamodb:DeleteItem", ONLY_TURNS)]


def test_dispatch_reads_the_registry_and_writes_only_turns(stack: Stack) -> None:
    receive = ("DeleteMessage", "GetQueueAttributes", "ReceiveMessage")
    assert allowed(stack, "DispatchRole") == (
        {("<Table.Arn>", f"dynamodb:{action}") for action in ("GetItem", "Query")}
        | {("<ArrivalQueue.Arn>", f"sqs:{action}") for action in receive}
        | {("<Queue.Arn>", "sqs:SendMessage")}
    )
    assert sorted(action for _, action, _ in conditional(stack, "DispatchRole")) == [
        "dynamodb:DeleteItem",
        "dynamodb:PutItem",
    ]
    assert all(condition == ONLY_TURNS for _, _, condition in conditional(stack, "DispatchRole"))


def test_gc_lists_and_deletes_models_and_uploads_and_marks_versions(stack: Stack) -> None:
    assert allowed(stack, "GcRole") == (
        {(f"{BUCKET}/{folder}/*", "s3:DeleteObject") for folder in ("models", "uploads")}
        | {(BUCKET, "s3:ListBucketVersions"), ("<Table.Arn>", "dynamodb:Query")}
        | REGISTRY
    )


def test_only_its_schedule_starts_gc(stack: Stack) -> None:
    rule = stack.resources["GcSchedule"]["Properties"]
    assert rule["Targets"] == [{"Id": "gc", "Arn": "<GcFunction.Arn>"}]
    permission = stack.resources["GcPermission"]["Properties"]
    assert (permission["Principal"], permission["SourceArn"]) == ("events.amazonaws.com", "<GcSchedule.Arn>")


@pytest.mark.parametrize("function", ["Api", "Dispatch", "Gc", "Recommend", "Train"])
def test_each_function_writes_only_its_own_log(stack: Stack, function: str) -> None:
    logs = {(action, resource) for _, action, resource, _ in stack.statements(f"{function}Role") if "logs:" in action}
    assert logs == {
        ("logs:CreateLogStream", f"<{function}LogGroup.Arn>"),
        ("logs:PutLogEvents", f"<{function}LogGroup.Arn>"),
    }
    assert stack.functions[f"{function}Function"].role == f"<{function}Role.Arn>"


def test_roles_allow_every_call_of_the_adapters(stack: Stack) -> None:
    """A new call in an adapter fails this test until it is listed in `CALLS` and the roles allow it."""
    called = {name for adapter in ADAPTERS for name in _client_calls(adapter)}
    assert called == set(CALLS)
    actions = {action for role in ("ApiRole", "TrainRole") for _, action in allowed(stack, role)}
    assert set().union(*(CALLS[name] for name in called)) <= actions


def test_bucket_is_private_encrypted_and_versioned(stack: Stack) -> None:
    bucket = stack.resources["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    (statement,) = stack.resources["BucketPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert (statement["Effect"], statement["Principal"], statement["Action"]) == ("Deny", "*", "s3:*")
    assert statement["Resource"] == [BUCKET, f"{BUCKET}/*"]
    assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_only_the_bucket_of_this_account_may_send_to_the_queues(stack: Stack) -> None:
    (statement,) = stack.resources["QueuePolicy"]["Properties"]["PolicyDocument"]["Statement"]
    assert statement["Principal"] == {"Service": "s3.amazonaws.com"}
    # S3 may notify the queue of trainings for minutes after the update of a stack of an earlier release.
    assert (statement["Action"], statement["Resource"]) == ("sqs:SendMessage", ["<ArrivalQueue.Arn>", "<Queue.Arn>"])
    bucket_name = stack.resources["Bucket"]["Properties"]["BucketName"]
    assert statement["Condition"] == {
        "StringEquals": {"aws:SourceAccount": "<AWS::AccountId>"},
        "ArnEquals": {"aws:SourceArn": f"arn:<AWS::Partition>:s3:::{bucket_name}"},
    }


def test_new_objects_under_uploads_and_inbox_notify_the_queue_of_arrivals(stack: Stack) -> None:
    notifications = stack.resources["Bucket"]["Properties"]["NotificationConfiguration"]["QueueConfigurations"]
    assert [(entry["Event"], entry["Queue"], entry["Filter"]["S3Key"]["Rules"]) for entry in notifications] == [
        ("s3:ObjectCreated:*", "<ArrivalQueue.Arn>", [{"Name": "prefix", "Value": prefix}])
        for prefix in ("uploads/", "inbox/")
    ]


def test_table_can_be_restored_and_is_encrypted(stack: Stack) -> None:
    table = stack.resources["Table"]["Properties"]
    assert table["PointInTimeRecoverySpecification"] == {"PointInTimeRecoveryEnabled": True}
    assert table["SSESpecification"] == {"SSEEnabled": True}
    assert table["BillingMode"] == "PAY_PER_REQUEST"
    assert [(key["AttributeName"], key["KeyType"]) for key in table["KeySchema"]] == [("pk", "HASH"), ("sk", "RANGE")]


@pytest.mark.parametrize("logical_id", ["Bucket", "Table"])
@pytest.mark.parametrize("file", ["template.yaml", "serverless.yml"])
def test_data_outlives_the_stack(file: str, logical_id: str) -> None:
    lines = (ROOT / file).read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip() == f"{logical_id}:" and line[0] == " ")
    head = [line.strip() for line in lines[start : start + 6]]
    assert "DeletionPolicy: RetainExceptOnCreate" in head
    assert "UpdateReplacePolicy: Retain" in head


TOPIC: Final = "arn:aws:sns:eu-central-1:123456789012:operations"
WATCHED: Final = {
    "ApiErrorsAlarm": ("Errors", {"FunctionName": "<ApiFunction>"}),
    "ArrivalAgeAlarm": ("ApproximateAgeOfOldestMessage", {"QueueName": "<ArrivalQueue.QueueName>"}),
    "DispatchErrorsAlarm": ("Errors", {"FunctionName": "<DispatchFunction>"}),
    "GcErrorsAlarm": ("Errors", {"FunctionName": "<GcFunction>"}),
    "FailedTrainingAlarm": ("ApproximateNumberOfMessagesVisible", {"QueueName": "<FailedQueue.QueueName>"}),
    "ModelFailedAlarm": ("ModelFailed", {"service": "recommend"}),
    "QueueAgeAlarm": ("ApproximateAgeOfOldestMessage", {"QueueName": "<Queue.QueueName>"}),
    "RecommendErrorsAlarm": ("Errors", {"FunctionName": "<RecommendFunction>"}),
    "ServerErrorsAlarm": ("5xx", {"ApiId": "<HttpApi>"}),
    "SlowRecommendAlarm": ("Latency", {"service": "recommend"}),
    "TrainErrorsAlarm": ("Errors", {"FunctionName": "<TrainFunction>"}),
}


def test_alarms_watch_errors_latency_and_the_queues(stack: Stack) -> None:
    alarms = stack.of_type("AWS::CloudWatch::Alarm")
    assert {
        key: (alarm["MetricName"], {entry["Name"]: entry["Value"] for entry in alarm["Dimensions"]})
        for key, alarm in alarms.items()
    } == WATCHED


def test_alarms_of_a_stage_ignore_the_metrics_of_other_stages() -> None:
    """The functions' own metrics have no dimension for the stage, so each stage has its own namespace."""
    stack = read_sam("prod")
    namespace = stack.functions["RecommendFunction"].environment["POWERTOOLS_METRICS_NAMESPACE"]
    alarms = stack.of_type("AWS::CloudWatch::Alarm")
    assert namespace == "recsys-prod"
    assert {alarms[key]["Namespace"] for key in ("ModelFailedAlarm", "SlowRecommendAlarm")} == {namespace}


def test_every_alarm_notifies_the_topic_if_one_is_configured() -> None:
    for topic, actions in ((TOPIC, [TOPIC]), ("", [])):
        alarms = read_sam(AlarmTopicArn=topic).of_type("AWS::CloudWatch::Alarm").values()
        assert [alarm["AlarmActions"] for alarm in alarms] == [actions] * len(WATCHED)


def test_alarm_on_the_age_of_models_counts_days_without_a_success() -> None:
    alarm = read_sam(ModelAgeDays="3").resources["ModelAgeAlarm"]["Properties"]
    assert (alarm["Namespace"], alarm["MetricName"]) == ("recsys-dev", "JobsSucceeded")
    assert (alarm["Period"], int(alarm["EvaluationPeriods"])) == (86_400, 3)
    # No metric at all is also no success.
    assert (alarm["ComparisonOperator"], alarm["Threshold"]) == ("LessThanThreshold", 1)
    assert alarm["TreatMissingData"] == "breaching"


def test_budget_warns_the_topic() -> None:
    budget = read_sam(MonthlyBudgetUsd="100", AlarmTopicArn=TOPIC).resources["Budget"]["Properties"]
    assert budget["Budget"]["BudgetLimit"] == {"Amount": "100", "Unit": "USD"}
    assert [
        (each["Notification"]["NotificationType"], each["Notification"]["Threshold"], each["Subscribers"])
        for each in budget["NotificationsWithSubscribers"]
    ] == [
        (kind, at, [{"SubscriptionType": "SNS", "Address": TOPIC}])
        for kind, at in (("ACTUAL", 80), ("FORECASTED", 100))
    ]
    without_topic = read_sam(MonthlyBudgetUsd="100").resources["Budget"]["Properties"]
    assert "NotificationsWithSubscribers" not in without_topic


def test_dashboard_shows_documented_metrics_of_this_stage() -> None:
    """A wrong name would show an empty graph without an error."""
    body = json.loads(read_sam("prod").resources["MetricsDashboard"]["Properties"]["DashboardBody"])
    metrics = [metric for widget in body["widgets"] for metric in widget["properties"]["metrics"]]
    own = {(metric[1], metric[3]) for metric in metrics if metric[0] == "recsys-prod"}
    reference = (ROOT / "docs" / "reference" / "operational-metrics.md").read_text("utf-8")
    shown = {name for name, _ in own}
    assert {"Latency", "JobsSucceeded", "JobsFailed", "ModelFailed"} <= shown
    assert {name for name in shown if f"`{name}`" not in reference} == set()
    assert {service for _, service in own} == {"api", "recommend", "train"}
    resources = {(metric[0], metric[2], metric[3]) for metric in metrics if metric[0] != "recsys-prod"}
    assert resources == {
        ("AWS/ApiGateway", "ApiId", "<HttpApi>"),
        *(
            ("AWS/Lambda", "FunctionName", f"<{name}Function>")
            for name in ("Api", "Dispatch", "Gc", "Recommend", "Train")
        ),
        *(("AWS/SQS", "QueueName", f"<{name}.QueueName>") for name in ("ArrivalQueue", "FailedQueue", "Queue")),
    }


@pytest.mark.parametrize("function", ["Api", "Dispatch", "Gc", "Recommend", "Train"])
def test_functions_may_send_traces_only_if_tracing_is_on(function: str) -> None:
    for mode, expected in (("Active", {"xray:PutTelemetryRecords", "xray:PutTraceSegments"}), ("PassThrough", set())):
        stack = read_sam(Tracing=mode)
        assert stack.functions[f"{function}Function"].tracing == mode
        statements = stack.statements(f"{function}Role")
        assert {action for _, action, _, _ in statements if action.startswith("xray:")} == expected


def test_http_api_invokes_published_versions(stack: Stack) -> None:
    for name in ("Api", "Recommend"):
        alias = f"{name}FunctionAliaslive"
        assert stack.resources[f"{name}Integration"]["Properties"]["IntegrationUri"] == f"<{alias}>"
        assert stack.resources[f"{name}Permission"]["Properties"]["FunctionName"] == f"<{alias}>"
        assert stack.resources[alias]["Properties"]["Name"] == names()["deployment"]["alias"]


def test_new_version_is_rolled_back_on_errors(stack: Stack) -> None:
    for name in ("Api", "Recommend"):
        group = stack.resources[f"{name}FunctionDeploymentGroup"]["Properties"]
        assert group["DeploymentConfigName"] == f"CodeDeployDefault.Lambda{names()['deployment']['type']}"
        assert group["AlarmConfiguration"]["Alarms"] == [
            {"Name": f"<{name}ErrorsAlarm>"},
            {"Name": "<ServerErrorsAlarm>"},
        ]
        assert "DEPLOYMENT_STOP_ON_ALARM" in group["AutoRollbackConfiguration"]["Events"]


@pytest.mark.parametrize("architecture", ["x86_64", "arm64"])
def test_only_the_image_has_a_fixed_architecture(architecture: str) -> None:
    functions = read_sam(Architecture=architecture).functions
    zips = {key: function for key, function in functions.items() if function.packaging == "Zip"}
    assert set(zips) == {"ApiFunction", "DispatchFunction", "GcFunction", "RecommendFunction"}
    assert {tuple(function.architectures) for function in zips.values()} == {(architecture,)}
    assert functions["TrainFunction"].architectures == ["x86_64"]


def test_web_pages_of_the_listed_origins_may_call_the_service() -> None:
    environment = read_sam(CorsOrigins="https://shop.example").functions["RecommendFunction"].environment
    assert Settings.from_environment(environment).cors_origins == "https://shop.example"


def test_every_anonymous_post_route_is_throttled(stack: Stack) -> None:
    settings = stack.resources["HttpApiStage"]["Properties"]["RouteSettings"]
    document = json.loads(OPENAPI.read_text("utf-8"))
    anonymous = {
        f"{method.upper()} {path}"
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if {} in operation.get("security", [])
    }
    assert {"POST /v1/train", "POST /v1/validate", "POST /v1/uploads"} <= anonymous
    assert set(settings) == {route for route in anonymous if route.startswith("POST")}


@pytest.mark.parametrize("file", ["template.yaml", "serverless.yml"])
def test_stage_is_created_after_its_throttled_routes(file: str) -> None:
    """Otherwise the deployment fails, because API Gateway does not find the routes."""
    lines = (ROOT / file).read_text("utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.strip() == "HttpApiStage:")
    (depends,) = [line for line in lines[start : start + 4] if "DependsOn:" in line]
    assert re.findall(r"Train|Uploads", depends) == ["Train", "Uploads"]


def test_anonymous_training_can_be_disabled() -> None:
    for value in ("true", "false"):
        environment = read_sam(AllowAnonymousTraining=value).functions["ApiFunction"].environment
        settings = Settings.from_environment(environment)
        assert settings.allow_anonymous_training is (value == "true")


def test_access_log_identifies_requests_and_contains_no_secrets(stack: Stack) -> None:
    log = stack.resources["HttpApiStage"]["Properties"]["AccessLogSettings"]
    assert log["DestinationArn"] == "<HttpApiLogGroup.Arn>"
    assert {"status", "route", "request_id"} <= set(json.loads(log["Format"]))
    assert not re.search(r"header|querystring|\.path\b|authorizer", log["Format"], re.IGNORECASE)


def _client_calls(adapter: Path) -> set[str]:
    """Return the methods called on `self._client`; a paginator counts as the operation that it pages."""
    calls = [node for node in ast.walk(ast.parse(adapter.read_text("utf-8"))) if isinstance(node, ast.Call)]
    found = set()
    for call in calls:
        if isinstance(call.func, ast.Attribute) and ast.unparse(call.func.value) == "self._client":
            name = call.func.attr
            found.add(ast.literal_eval(call.args[0]) if name == "get_paginator" else name)
    return found


def test_every_skipped_checkov_check_has_a_documented_reason() -> None:
    skipped = set(yaml.safe_load((ROOT / "infra" / "checkov.yaml").read_text("utf-8"))["skip-check"])
    review = (ROOT / "docs" / "operations" / "aws-review.md").read_text("utf-8")
    assert set(re.findall(r"^\| (CKV_AWS_\d+) \|", review, re.MULTILINE)) == skipped
