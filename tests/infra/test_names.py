"""template.yaml repeats the names and numbers of infra/names.yaml, and the default settings fit them."""

from __future__ import annotations

from typing import Any

import pytest

from recsys.registry.turns import SENDING_S
from recsys.settings import Settings
from tests.infra.stack import Stack, names, read_sam


@pytest.fixture(scope="module")
def stack() -> Stack:
    return read_sam("prod")


def properties(stack: Stack, logical_id: str) -> dict[str, Any]:
    found: dict[str, Any] = stack.resources[logical_id]["Properties"]
    return found


@pytest.mark.parametrize("function", ["api", "dispatch", "recommend", "train"])
def test_functions_match_names_yaml(stack: Stack, function: str) -> None:
    expected, found = names()["functions"][function], stack.functions[f"{function.title()}Function"]
    assert found.name == f"recsys-prod-{expected['name']}"
    assert found.handler == expected["handler"]
    assert found.memory_mb == expected["memory_mb"]
    assert found.timeout_s == expected["timeout_s"]
    assert found.storage_mb == expected.get("ephemeral_storage_mb")
    assert found.architectures == [names()["architecture"]]
    assert found.runtime == (None if function == "train" else names()["runtime"])
    assert found.environment == {
        "RECSYS_BACKEND": "aws",
        "RECSYS_BUCKET": "<Bucket>",
        "RECSYS_TABLE": "<Table>",
        "RECSYS_CORS_ORIGINS": "",
        "RECSYS_ALLOW_ANONYMOUS_TRAINING": "true",
        **{f"RECSYS_{name.upper()}": str(value) for name, value in names()["limits"].items()},
        "RECSYS_PER_ROUTE_METRICS": "false",
        "RECSYS_DETAILED_METRICS": "false",
        "POWERTOOLS_SERVICE_NAME": expected["name"],
        "POWERTOOLS_METRICS_NAMESPACE": "recsys-prod",
        "LOG_LEVEL": "INFO",
        "AWS_ENDPOINT_URL": "",
    } | {
        "dispatch": {"RECSYS_QUEUE_URL": "<Queue>"},
        "gc": {"RECSYS_VERSIONS_KEPT": names()["functions"]["gc"]["versions_kept"]},
        "recommend": {
            "RECSYS_EXPLORATION": names()["functions"]["recommend"]["exploration"],
            "OPENBLAS_NUM_THREADS": "1",
        },
    }.get(function, {})


def test_log_groups_belong_to_the_functions_and_expire(stack: Stack) -> None:
    groups = stack.of_type("AWS::Logs::LogGroup").values()
    functions = {f"/aws/lambda/{function.name}" for function in stack.functions.values()}
    assert {group["LogGroupName"] for group in groups} == functions | {"/aws/http-api/recsys-prod"}
    assert {group["RetentionInDays"] for group in groups} == {names()["logs"]["retention_days"]}


def test_bucket_matches_names_yaml(stack: Stack) -> None:
    wanted, found = names()["bucket"], properties(stack, "Bucket")
    assert found["BucketName"] == f"recsys-prod-{wanted['name']}-<AWS::AccountId>-<AWS::Region>"
    rules = {
        rule["Prefix"] if "ExpirationInDays" in rule else rule["Id"]: rule
        for rule in found["LifecycleConfiguration"]["Rules"]
    }
    assert rules["uploads/"]["ExpirationInDays"] == wanted["upload_days"]
    assert rules["inbox/"]["ExpirationInDays"] == wanted["upload_days"]
    assert rules["receipts/"]["ExpirationInDays"] == wanted["receipt_days"]
    for folder in ("models", "uploads"):
        rule = rules[f"deleted-{folder}-expire"]
        assert rule["Prefix"] == f"{folder}/"
        assert rule["NoncurrentVersionExpiration"] == {"NoncurrentDays": wanted["deleted_data_days"]}
    assert rules["old-versions-expire"]["NoncurrentVersionExpiration"] == {"NoncurrentDays": wanted["noncurrent_days"]}
    assert rules["unfinished-uploads-expire"]["AbortIncompleteMultipartUpload"] == {
        "DaysAfterInitiation": wanted["abort_multipart_days"]
    }


def test_models_never_expire(stack: Stack) -> None:
    rules = properties(stack, "Bucket")["LifecycleConfiguration"]["Rules"]
    assert {rule.get("Prefix") for rule in rules if "ExpirationInDays" in rule} == {"uploads/", "inbox/", "receipts/"}


def test_table_matches_names_yaml(stack: Stack) -> None:
    found = properties(stack, "Table")
    assert found["TableName"] == f"recsys-prod-{names()['table']['name']}"
    assert found["TimeToLiveSpecification"] == {"AttributeName": names()["table"]["ttl_attribute"], "Enabled": True}


def test_queues_match_names_yaml(stack: Stack) -> None:
    wanted, queue, failed = names()["queue"], properties(stack, "Queue"), properties(stack, "FailedQueue")
    assert queue["QueueName"] == f"recsys-prod-{wanted['name']}"
    assert queue["VisibilityTimeout"] == wanted["visibility_timeout_s"]
    assert queue["MessageRetentionPeriod"] == wanted["retention_s"]
    assert queue["RedrivePolicy"] == {
        "deadLetterTargetArn": "<FailedQueue.Arn>",
        "maxReceiveCount": wanted["max_receive_count"],
    }
    wanted_of_arrivals, arrivals = names()["arrivals"], properties(stack, "ArrivalQueue")
    assert arrivals["QueueName"] == f"recsys-prod-{wanted_of_arrivals['name']}"
    assert arrivals["VisibilityTimeout"] == wanted_of_arrivals["visibility_timeout_s"]
    assert arrivals["MessageRetentionPeriod"] == wanted["retention_s"]
    assert arrivals["RedrivePolicy"] == {
        "deadLetterTargetArn": "<FailedQueue.Arn>",
        "maxReceiveCount": wanted_of_arrivals["max_receive_count"],
    }
    assert failed["QueueName"] == f"recsys-prod-{wanted['failed_name']}"
    assert failed["MessageRetentionPeriod"] == wanted["failed_retention_s"]


def test_training_concurrency_matches_names_yaml(stack: Stack) -> None:
    functions = names()["functions"]
    assert {trigger.function: trigger.max_concurrency for trigger in stack.triggers} == {
        "DispatchFunction": functions["dispatch"]["max_concurrency"],
        "TrainFunction": functions["train"]["max_concurrency"],
    }
    assert {trigger.batch_size for trigger in stack.triggers} == {1, functions["dispatch"]["batch_size"]}


def test_settings_fit_the_stack() -> None:
    settings = Settings.from_environment({"RECSYS_BACKEND": "aws"})
    queue, functions = names()["queue"], names()["functions"]
    # A killed worker cannot fail its job, so one more delivery after the last attempt must remain to do it.
    assert queue["max_receive_count"] == settings.max_attempts + 1
    assert names()["bucket"]["upload_days"] == settings.upload_days
    assert {name: getattr(settings, name) for name in names()["limits"]} == names()["limits"]
    assert functions["gc"]["versions_kept"] == str(settings.versions_kept)
    assert functions["recommend"]["exploration"] == str(settings.exploration)
    # A killed dispatch leaves a turn whose message was not sent; the next delivery must find that it has expired.
    assert names()["arrivals"]["visibility_timeout_s"] >= 6 * functions["dispatch"]["timeout_s"]
    assert names()["arrivals"]["visibility_timeout_s"] > SENDING_S
    # Otherwise Lambda rejects the event source mapping.
    assert queue["visibility_timeout_s"] >= functions["train"]["timeout_s"]
    assert settings.train_budget_s < functions["train"]["timeout_s"]
    assert settings.max_wait_s < functions["api"]["timeout_s"] < 30
    # The queue retains a message long enough for every attempt.
    assert queue["retention_s"] > queue["max_receive_count"] * queue["visibility_timeout_s"]


def test_throttling_matches_names_yaml(stack: Stack) -> None:
    wanted, stage = names()["http"], properties(stack, "HttpApiStage")
    assert stage["DefaultRouteSettings"] == {
        "DetailedMetricsEnabled": False,
        "ThrottlingRateLimit": wanted["requests_per_s"],
        "ThrottlingBurstLimit": wanted["request_burst"],
    }
    training = {
        "ThrottlingRateLimit": wanted["trainings_per_s"],
        "ThrottlingBurstLimit": wanted["training_burst"],
    }
    routes = ("POST /v1/train", "POST /v1/validate", "POST /v1/uploads")
    assert stage["RouteSettings"] == dict.fromkeys(routes, training)


def test_alarm_thresholds_match_names_yaml(stack: Stack) -> None:
    wanted = names()["alarms"]
    assert properties(stack, "QueueAgeAlarm")["Threshold"] == wanted["queue_age_s"]
    assert properties(stack, "ArrivalAgeAlarm")["Threshold"] == wanted["arrival_age_s"]
    assert properties(stack, "ServerErrorsAlarm")["Threshold"] == wanted["server_errors"]
    assert properties(stack, "SlowRecommendAlarm")["Threshold"] == wanted["slow_ms"]


def test_failed_queue_retains_messages_longer_than_the_queue() -> None:
    """The retention in the failed queue also counts from the time at which a message was first sent."""
    assert names()["queue"]["failed_retention_s"] > names()["queue"]["retention_s"]
