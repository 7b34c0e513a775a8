"""The stack of each template, deployed to MiniStack through CloudFormation and used over HTTP.

The tests run the code of `make local-aws DOCKER=no`: the emulator runs the functions, serves HTTP through its API
Gateway and delivers messages to `train`. IAM is enforced (`AUTH=true`), so that a call of a function fails unless its
role allows it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
from playwright.sync_api import expect

from local_aws.__main__ import LocalStack, running_without_docker
from local_aws.processes import free_port
from local_aws.templates import load
from recsys.clock import Timestamp, after
from recsys.registry.dynamodb import DynamoTable
from recsys.registry.reading import version_address
from recsys.registry.table import Row
from tests.infra.stack import ROOT, read_sam
from tests.infra.stack_flows import (
    EXPECTED,
    Bucket,
    Service,
    drop_and_claim,
    invalid_drop,
    orders_csv,
    presigned_upload,
    send_items,
    statuses,
    until,
    upload_and_recommend,
)
from tests.integration.browser import chromium, opened
from tests.integration.console_steps import DESKTOP, check_page, drop_file, open_page, sign_in

PER_MINUTE: Final = 400  # `recommend` books requests in chunks of a twentieth
LONG_AGO: Final = Timestamp("2026-01-01T00:00:00.000000Z")
OPENAPI: Final = ROOT / "layers/recsys/python/recsys/openapi.json"
pytestmark = [pytest.mark.slow, pytest.mark.ministack, pytest.mark.xdist_group("ministack")]


@pytest.fixture(scope="module", params=["template.yaml", pytest.param("serverless.yml", marks=pytest.mark.node)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    is_sam = request.param == "template.yaml"
    template = load() if is_sam else load(request.getfixturevalue("compiled_stages")["dev"])
    folder = tmp_path_factory.mktemp("local-aws")
    with running_without_docker(
        folder,
        emulator_port=free_port(),
        template=template,
        # A failed message is redelivered after two leases, then with growing delays.
        environment={
            "RECSYS_LEASE_S": "1",
            "RECSYS_RECOMMENDATIONS_PER_MINUTE": str(PER_MINUTE),
            "RECSYS_VERSIONS_KEPT": "1",
        },
        enforce_iam=True,
    ) as running:
        yield running


@pytest.fixture
def service(stack: LocalStack) -> Service:
    return Service(stack.url)


@pytest.fixture
def bucket(stack: LocalStack) -> Bucket:
    return Bucket(stack.emulator.client("s3"), stack.bucket)


def test_invalid_drop_gets_a_receipt_with_the_reason(bucket: Bucket) -> None:
    invalid_drop(bucket)


@pytest.fixture(scope="module")
def shop(stack: LocalStack) -> dict[str, Any]:
    """Return the response to an upload whose model is trained and serves recommendations with titles of items."""
    service = Service(stack.url)
    uploaded = upload_and_recommend(service)
    send_items(service, uploaded)
    return uploaded


def test_uploaded_csv_is_trained_and_serves_recommendations(shop: dict[str, Any]) -> None:
    assert shop["model_version"].startswith(shop["job_id"])


def test_console_works_on_the_stack(stack: LocalStack, shop: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["stack"] == "serverless.yml":
        pytest.skip("test_stacks_agree.py shows that its functions and routes equal those of template.yaml")
    with chromium() as browser, opened(browser, f"{stack.url}/console", viewport=DESKTOP) as tab:
        page = tab.page
        page.set_default_timeout(30_000)  # the emulator starts a process for each function
        sign_in(page, shop["api_key"])
        expect(page.locator("ol.items > li")).not_to_have_count(0)
        page.get_by_text("A user", exact=True).click()
        page.get_by_label("User id").fill("u1")
        page.get_by_role("button", name="Show recommendations").click()
        expect(page.get_by_text("Based on the user's history.")).to_be_visible()
        expect(page.locator("ol.items > li").first).to_contain_text("Because of")
        open_page(page, "Versions")
        page.get_by_text("Quality in detail").first.click()
        expect(page.locator(".plot canvas").first).to_be_visible()
        open_page(page, "Data")
        drop_file(page, "items.csv", b"item_id,title\ni1,Mug\n", onto="Drop a catalogue here")
        expect(page.get_by_text("The catalogue is ready")).to_be_visible()
        open_page(page, "Keys")
        expect(page.get_by_role("heading", level=2, name="Usage")).to_be_visible()
        check_page(page)
        assert (tab.foreign_hosts(), tab.complaints) == (set(), [])


def test_presigned_upload_is_trained_and_serves_recommendations(service: Service) -> None:
    presigned_upload(service)


def test_drop_is_trained_and_its_receipt_is_exchanged_for_a_key(service: Service, bucket: Bucket) -> None:
    drop_and_claim(service, bucket)


def test_requests_for_recommendations_are_booked_in_the_registry(
    stack: LocalStack, service: Service, shop: dict[str, Any]
) -> None:
    for _ in range(PER_MINUTE // 20 + 1):
        assert service.recommend(shop["api_key"], user_id="u1").status_code == 200
    row = {"pk": {"S": f"LIMIT#recommendations#{shop['key_id']}"}, "sk": {"S": "LIMIT"}}
    assert "Item" in stack.emulator.client("dynamodb").get_item(TableName=stack.table, Key=row)


def test_collector_deletes_a_version_beyond_the_kept_ones_and_keeps_the_current_one(
    stack: LocalStack, service: Service, bucket: Bucket, shop: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["stack"] == "serverless.yml":
        pytest.skip("test_stacks_agree.py shows that its functions and roles equal those of template.yaml")
    table = DynamoTable(stack.emulator.client("dynamodb"), stack.table)
    current = table.get(version_address(shop["key_id"], shop["model_version"]))
    kept, oldest = (_add_older_version(table, bucket, current, job_id) for job_id in ("kept", "oldest"))

    assert _collect(stack)["retired"] == 1
    assert _listed_versions(service, shop) == [shop["model_version"], kept]
    assert _collect(stack) == {"retired": 0, "deleted": 0, "freed_bytes": 0, "failed": 0}  # the grace period lasts
    retired = table.get(version_address(shop["key_id"], oldest))
    assert table.write([retired.changed_to({**(retired.document or {}), "deleted_at": LONG_AGO})])
    assert _collect(stack)["deleted"] == 1
    stored = bucket.s3.list_objects_v2(Bucket=bucket.name, Prefix=f"models/{shop['key_id']}/")["Contents"]
    folders = {item["Key"].split("/")[2] for item in stored}
    assert {kept, shop["model_version"]} <= folders
    assert oldest not in folders
    assert service.recommend(shop["api_key"], user_id="u1").status_code == 200
    events = service.request("GET", "/v1/audit", headers={"x-api-key": shop["api_key"]}).json()["events"]
    assert (events[0]["event"], events[0]["detail"]) == ("version.deleted", {"version": oldest, "reason": "replaced"})


def _add_older_version(table: DynamoTable, bucket: Bucket, current: Row, job_id: str) -> str:
    """Add a version of the same key that was created before `current`, with one file, and return its name."""
    assert current.document is not None
    version, key_id = f"{job_id}.1", current.document["key_id"]
    created_at = LONG_AGO if job_id == "oldest" else after(LONG_AGO, 60)
    document = {**current.document, "version": version, "job_id": job_id, "created_at": created_at}
    assert table.write([Row(version_address(key_id, version)).changed_to(document)])
    bucket.drop(f"models/{key_id}/{version}/manifest.json", b"{}")
    return version


def _listed_versions(service: Service, shop: dict[str, Any]) -> list[str]:
    models = service.request("GET", "/v1/models", headers={"x-api-key": shop["api_key"]}).json()["models"]
    return [model["version"] for model in models]


def _collect(stack: LocalStack) -> dict[str, int]:
    """Invoke the function `gc` as its schedule does, and return its outcome."""
    response = stack.emulator.client("lambda").invoke(FunctionName="recsys-dev-gc", Payload=b"{}")
    outcome: dict[str, int] = json.loads(response["Payload"].read())
    assert "FunctionError" not in response, outcome
    return outcome


def test_every_route_returns_the_expected_status(
    service: Service, bucket: Bucket, shop: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    if request.node.callspec.params["stack"] == "serverless.yml":
        pytest.skip("test_stacks_agree.py shows that its functions and routes equal those of template.yaml")
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


def test_poison_message_moves_to_the_failed_queue_and_can_be_redriven(stack: LocalStack) -> None:
    sqs = stack.emulator.client("sqs")
    failed_url = f"{stack.queue_url}-failed"
    sqs.send_message(QueueUrl=stack.queue_url, MessageBody="no JSON")
    # The queue may still contain trainings that other tests started.
    until(lambda: (_messages(sqs, failed_url), _messages(sqs, stack.queue_url)), lambda counts: counts == (1, 0))
    # On AWS, StartMessageMoveTask does this; the emulator does not support it.
    (message,) = sqs.receive_message(QueueUrl=failed_url, WaitTimeSeconds=5)["Messages"]
    assert message["Body"] == "no JSON"
    sqs.send_message(QueueUrl=stack.queue_url, MessageBody=json.dumps({"Records": []}))
    sqs.delete_message(QueueUrl=failed_url, ReceiptHandle=message["ReceiptHandle"])
    until(lambda: (_messages(sqs, failed_url), _messages(sqs, stack.queue_url)), lambda counts: counts == (0, 0))


# -- permissions: the emulator enforces IAM, so the tests above pass only if the roles allow every call

CLOUDTRAIL_EVENTS: Final = {
    "s3:GetObject": ("GetObject", "HeadObject"),
    "s3:PutObject": ("PutObject", "PostObject"),
    "s3:ListBucketVersions": ("ListObjects", "ListObjectsV2", "ListBucket"),
    "dynamodb:GetItem": ("GetItem",),
    "dynamodb:PutItem": ("TransactWriteItems",),
    "dynamodb:DeleteItem": ("TransactWriteItems",),
    "dynamodb:Query": ("Query",),
    "sqs:ChangeMessageVisibility": ("ChangeMessageVisibility",),
}
"""Action → the calls that require it, by their names in CloudTrail."""
NOT_CALLED: Final = {
    "logs:CreateLogStream": "called by the Lambda service",
    "logs:PutLogEvents": "called by the Lambda service",
    "sqs:DeleteMessage": "called by the event source mapping",
    "sqs:GetQueueAttributes": "called by the event source mapping",
    "sqs:ReceiveMessage": "called by the event source mapping",
    "s3:ListBucket": "not called; it makes S3 answer 404, not 403, for a missing object",
    "s3:GetObjectVersion": "a GetObject or HeadObject with a version id",
    "s3:DeleteObject": "called only after an attempt was killed during its upload; tested in test_lambda_flow.py",
}


def test_functions_use_every_action_that_their_roles_allow(stack: LocalStack, request: pytest.FixtureRequest) -> None:
    if request.node.callspec.params["stack"] == "serverless.yml":
        pytest.skip("test_stacks_agree.py shows that its roles equal those of template.yaml")
    template = read_sam()
    for role, name in (("ApiRole", "api"), ("RecommendRole", "recommend"), ("TrainRole", "train"), ("GcRole", "gc")):
        allowed = {action for _, action, _, condition in template.statements(role) if condition == "{}"}
        allowed -= set(NOT_CALLED)
        assert {action for action in allowed if not _was_called(stack, name, CLOUDTRAIL_EVENTS[action])} == set(), role


def _was_called(stack: LocalStack, name: str, events: tuple[str, ...]) -> bool:
    """Return whether the function made one of these calls."""
    function = stack.emulator.client("lambda").get_function(FunctionName=f"recsys-dev-{name}")["Configuration"]
    # MiniStack derives the access key of a function's session this way.
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
    """Return the number of messages in the queue, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)
