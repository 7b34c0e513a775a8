"""The whole stack of each template, deployed to MiniStack by its CloudFormation and used over HTTP.

This is `make local-aws DOCKER=no`: the emulator runs the functions, its API Gateway serves HTTP, its event source
mapping takes messages to `train`, and every call of a function needs a statement of its role (`AUTH=true`).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from local_aws.__main__ import LocalStack, running_without_docker
from local_aws.processes import free_port
from local_aws.templates import load
from tests.infra.stack import ROOT, read_sam
from tests.infra.stack_flows import (
    EXPECTED,
    Bucket,
    Service,
    bad_drop,
    drop_and_claim,
    orders_csv,
    presigned_upload,
    statuses,
    until,
    upload_and_recommend,
)

OPENAPI = ROOT / "layers/recsys/python/recsys/openapi.json"
pytestmark = [pytest.mark.slow, pytest.mark.ministack, pytest.mark.xdist_group("ministack")]


@pytest.fixture(scope="module", params=["template.yaml", pytest.param("serverless.yml", marks=pytest.mark.node)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    written = request.param == "template.yaml"
    template = load() if written else load(request.getfixturevalue("compiled_stages")["dev"])
    folder = tmp_path_factory.mktemp("local-aws")
    with running_without_docker(
        folder,
        emulator_port=free_port(),
        template=template,
        environment={"RECSYS_LEASE_S": "1"},  # A failed message comes back after twice the lease, then later each time.
        enforce_iam=True,
    ) as running:
        yield running


@pytest.fixture
def service(stack: LocalStack) -> Service:
    return Service(stack.url)


@pytest.fixture
def bucket(stack: LocalStack) -> Bucket:
    return Bucket(stack.emulator.client("s3"), stack.bucket)


def test_bad_drop_gets_a_receipt_that_says_why(bucket: Bucket) -> None:
    bad_drop(bucket)


@pytest.fixture(scope="module")
def shop(stack: LocalStack) -> dict[str, Any]:
    """What was accepted of an upload that was trained and answers."""
    return upload_and_recommend(Service(stack.url))


def test_upload_becomes_recommendations(shop: dict[str, Any]) -> None:
    assert shop["model_version"].startswith(shop["job_id"])


def test_presigned_upload_becomes_recommendations(service: Service) -> None:
    presigned_upload(service)


def test_drop_becomes_a_key_through_its_receipt(service: Service, bucket: Bucket) -> None:
    drop_and_claim(service, bucket)


def test_every_route_answers_with_its_status(
    service: Service, bucket: Bucket, shop: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["stack"] == "serverless.yml":
        pytest.skip("Its functions and routes are those of template.yaml, which test_stacks_agree.py compares.")
    bucket.drop("inbox/table.csv", orders_csv())
    token = bucket.receipt("receipts/table.json")["claim_token"]
    documented = {
        f"{method.upper()} {path}"
        for path, operations in json.loads(OPENAPI.read_text("utf-8"))["paths"].items()
        for method in operations
    }
    found = statuses(service, shop, token)
    assert found == EXPECTED
    assert documented <= set(found)


def test_poison_message_goes_to_the_failed_queue_and_can_be_redriven(stack: LocalStack) -> None:
    sqs = stack.emulator.client("sqs")
    failed_url = f"{stack.queue_url}-failed"
    sqs.send_message(QueueUrl=stack.queue_url, MessageBody="no JSON")
    # Trainings that other tests asked for may still be in the queue.
    until(lambda: (_messages(sqs, failed_url), _messages(sqs, stack.queue_url)), lambda counts: counts == (1, 0))
    # The emulator has no StartMessageMoveTask, which does this on AWS.
    (message,) = sqs.receive_message(QueueUrl=failed_url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "no JSON"
    sqs.send_message(QueueUrl=stack.queue_url, MessageBody=json.dumps({"Records": []}))
    sqs.delete_message(QueueUrl=failed_url, ReceiptHandle=message["ReceiptHandle"])
    until(lambda: (_messages(sqs, failed_url), _messages(sqs, stack.queue_url)), lambda counts: counts == (0, 0))


# -- permissions: every call above was allowed by the role of its function, because the emulator enforces IAM

EVENTS_OF = {
    "s3:GetObject": ("GetObject", "HeadObject"),
    "s3:PutObject": ("PutObject", "PostObject"),
    "s3:ListBucketVersions": ("ListObjects", "ListObjectsV2", "ListBucket"),
    "dynamodb:GetItem": ("GetItem",),
    "dynamodb:PutItem": ("TransactWriteItems",),
    "dynamodb:DeleteItem": ("TransactWriteItems",),
    "dynamodb:Query": ("Query",),
    "sqs:ChangeMessageVisibility": ("ChangeMessageVisibility",),
}
"""The calls, as CloudTrail names them, that need an action."""
NOT_CALLED = {
    "logs:CreateLogStream": "called by Lambda itself",
    "logs:PutLogEvents": "called by Lambda itself",
    "sqs:DeleteMessage": "called by the event source mapping",
    "sqs:GetQueueAttributes": "called by the event source mapping",
    "sqs:ReceiveMessage": "called by the event source mapping",
    "s3:ListBucket": "not called: with it S3 answers 404, not 403, for a missing object",
    "s3:GetObjectVersion": "a GetObject or HeadObject with a version id",
    "s3:DeleteObject": "called after an attempt that was killed during its upload; see test_lambda_flow.py",
}


def test_each_action_that_a_role_allows_is_used(stack: LocalStack, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["stack"] == "serverless.yml":
        pytest.skip("Its roles are those of template.yaml, which test_stacks_agree.py compares.")
    template = read_sam()
    for role, name in (("ApiRole", "api"), ("RecommendRole", "recommend"), ("TrainRole", "train")):
        allowed = {action for _, action, _, _ in template.statements(role)} - set(NOT_CALLED)
        assert {action for action in allowed if not _was_called(stack, name, EVENTS_OF[action])} == set(), role


def _was_called(stack: LocalStack, name: str, events: tuple[str, ...]) -> bool:
    """Whether the function made one of these calls."""
    function = stack.emulator.client("lambda").get_function(FunctionName=f"recsys-dev-{name}")["Configuration"]
    # How MiniStack derives the access key of a function's session.
    digest = hashlib.sha256(f"{function['FunctionArn']}:{function['Role']}".encode()).hexdigest()
    attributes = {"AccessKeyId": f"ASIA{digest[:16].upper()}"}
    trail = stack.emulator.client("cloudtrail")
    return any(
        trail.lookup_events(
            LookupAttributes=[
                {"AttributeKey": key, "AttributeValue": value}
                for key, value in (attributes | {"EventName": event}).items()
            ]
        )["Events"]
        for event in events
    )


def _messages(sqs: Any, queue_url: str) -> int:
    """How many messages are in the queue, hidden ones too."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)
