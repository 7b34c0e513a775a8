"""The whole stack of each template, deployed to MiniStack by its CloudFormation and used over HTTP.

This is `make local-aws DOCKER=no`: the emulator runs the functions, its API Gateway serves HTTP, its event source
mapping takes messages to `train`, and every call of a function needs a statement of its role (`AUTH=true`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from local_aws.__main__ import LocalStack, running_without_docker
from local_aws.processes import free_port
from local_aws.templates import load
from tests.infra.stack_flows import Bucket, Service, drop_and_claim, presigned_upload, until, upload_and_recommend

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


def test_upload_becomes_recommendations(service: Service) -> None:
    upload_and_recommend(service)


def test_presigned_upload_becomes_recommendations(service: Service) -> None:
    presigned_upload(service)


def test_drop_becomes_a_key_through_its_receipt(service: Service, bucket: Bucket) -> None:
    drop_and_claim(service, bucket)


def test_poison_message_goes_to_the_failed_queue_and_can_be_redriven(stack: LocalStack) -> None:
    sqs = stack.emulator.client("sqs")
    failed_url = f"{stack.queue_url}-failed"
    sqs.send_message(QueueUrl=stack.queue_url, MessageBody="no JSON")
    until(lambda: _messages(sqs, failed_url), lambda count: count == 1)
    assert _messages(sqs, stack.queue_url) == 0
    # The emulator has no StartMessageMoveTask, which does this on AWS.
    (message,) = sqs.receive_message(QueueUrl=failed_url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "no JSON"
    sqs.send_message(QueueUrl=stack.queue_url, MessageBody=json.dumps({"Records": []}))
    sqs.delete_message(QueueUrl=failed_url, ReceiptHandle=message["ReceiptHandle"])
    until(lambda: (_messages(sqs, failed_url), _messages(sqs, stack.queue_url)), lambda counts: counts == (0, 0))


def _messages(sqs: Any, queue_url: str) -> int:
    """How many messages are in the queue, hidden ones too."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)
