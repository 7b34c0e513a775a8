"""The stack of each template, deployed to MiniStack through CloudFormation and used over HTTP.

The tests run the code of `make local-aws DOCKER=no`: the emulator runs the functions, serves HTTP through its API
Gateway and delivers messages to `train`. IAM is enforced (`AUTH=true`), so that a call of a function fails unless its
role allows it; the gateways of `tests.permissions` enforce the roles as well, and record the calls.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
from tests.infra.stack import ROOT, names
from tests.infra.stack_flows import (
    EXPECTED,
    invalid_drop,
    send_items,
    statuses,
)
from tests.integration.browser import chromium, opened
from tests.integration.console_steps import DESKTOP, check_page, drop_file, open_page, sign_in
from tests.permissions.calls import StackNames
from tests.permissions.gateway import Gateway
from tests.permissions.roles import FUNCTIONS
from verify_aws.checks import excess_permissions, missing_alarms
from verify_aws.flows import (
    Bucket,
    Service,
    drop_and_claim,
    orders_csv,
    presigned_upload,
    until,
    upload_and_recommend,
)
from verify_aws.stacks import Deployed
from verify_aws.verification import Sizes, verify

PER_MINUTE: Final = 400  # `recommend` books requests in chunks of a twentieth
LONG_AGO: Final = Timestamp("2026-01-01T00:00:00.000000Z")
NAMES: Final = StackNames("recsys-dev-objects-000000000000-eu-central-1", "recsys-dev-registry", "recsys-dev-training")
OPENAPI: Final = ROOT / "layers/recsys/python/recsys/openapi.json"
pytestmark = [pytest.mark.slow, pytest.mark.ministack, pytest.mark.xdist_group("ministack")]


@pytest.fixture(scope="module", params=["template.yaml", pytest.param("serverless.yml", marks=pytest.mark.node)])
def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    is_sam = request.param == "template.yaml"
    template = load() if is_sam else load(request.getfixturevalue("compiled_stages")["dev"])
    folder = tmp_path_factory.mktemp("local-aws")
    port = free_port()
    with (
        ExitStack() as gateways,
        running_without_docker(
            folder,
            emulator_port=port,
            template=template,
            endpoint_urls={
                name: gateways.enter_context(Gateway(name, f"http://127.0.0.1:{port}", NAMES)).url for name in FUNCTIONS
            },
            # A failed message is redelivered after two leases, then with growing delays.
            environment={
                "RECSYS_LEASE_S": "1",
                "RECSYS_RECOMMENDATIONS_PER_MINUTE": str(PER_MINUTE),
                "RECSYS_VERSIONS_KEPT": "1",
            },
            enforce_iam=True,
        ) as running,
    ):
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


def test_console_works_on_the_stack(stack: LocalStack, shop: dict[str, Any]) -> None:
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
    stack: LocalStack, service: Service, bucket: Bucket, shop: dict[str, Any]
) -> None:
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


def test_every_route_returns_the_expected_status(service: Service, bucket: Bucket, shop: dict[str, Any]) -> None:
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


def test_failed_messages_are_redriven_after_the_cause_is_fixed(stack: LocalStack, service: Service) -> None:
    api_key = service.request("POST", "/v1/uploads", json={}).json()["api_key"]
    sqs, failed_url = stack.emulator.client("sqs"), f"{stack.queue_url}-failed"
    _discard_waiting_files(stack)  # other tests have sent them
    until(lambda: _waiting(stack), lambda n: n == 0)
    # One delivery instead of five, because the delays before the others add up to a minute.
    _set_deliveries(sqs, stack.queue_url, 1)
    with _without_registry(stack):
        sent = service.request("PUT", "/v1/items", content=b"item_id\ni1\n", headers=_csv(api_key))
        sqs.send_message(QueueUrl=stack.queue_url, MessageBody="no JSON")
        until(lambda: (_messages(sqs, stack.queue_url), _messages(sqs, failed_url)), lambda n: n == (0, 2))
    _redrive(sqs, failed_url, stack.queue_url)
    job = service.finished_job({"api_key": api_key, "job_id": sent.json()["job_id"]})
    assert job["status"] == "succeeded"
    # A message whose cause remains fails again.
    until(lambda: (_messages(sqs, stack.queue_url), _messages(sqs, failed_url)), lambda n: n == (0, 1))
    (poison,) = sqs.receive_message(QueueUrl=failed_url, WaitTimeSeconds=5)["Messages"]
    assert poison["Body"] == "no JSON"
    sqs.delete_message(QueueUrl=failed_url, ReceiptHandle=poison["ReceiptHandle"])
    _set_deliveries(sqs, stack.queue_url, names()["queue"]["max_receive_count"])


def _set_deliveries(sqs: Any, queue_url: str, count: int) -> None:
    """Set the number of deliveries after which a message moves to the failed queue."""
    policy = json.loads(
        sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    )
    changed = json.dumps(policy | {"maxReceiveCount": count})
    sqs.set_queue_attributes(QueueUrl=queue_url, Attributes={"RedrivePolicy": changed})


@contextmanager
def _without_registry(stack: LocalStack) -> Iterator[None]:
    """Withdraw the permission of `train` for the registry until the end of the context."""
    iam, configuration = stack.emulator.client("iam"), _configuration(stack, "train")
    policy = {"RoleName": configuration["Role"].rpartition("/")[2], "PolicyName": "train"}
    document = iam.get_role_policy(**policy)["PolicyDocument"]
    kept = [statement for statement in document["Statement"] if statement.get("Sid") != "Registry"]
    iam.put_role_policy(**policy, PolicyDocument=json.dumps(document | {"Statement": kept}))
    yield
    iam.put_role_policy(**policy, PolicyDocument=json.dumps(document))


def _redrive(sqs: Any, failed_url: str, queue_url: str) -> None:
    """Move every message of the failed queue back. On AWS StartMessageMoveTask does it, which the emulator lacks."""
    while messages := sqs.receive_message(QueueUrl=failed_url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            sqs.send_message(QueueUrl=queue_url, MessageBody=message["Body"])
            sqs.delete_message(QueueUrl=failed_url, ReceiptHandle=message["ReceiptHandle"])


@contextmanager
def wider_role(iam: Any, role_arn: str) -> Iterator[None]:
    """Allow a role to write every object while the context lasts."""
    name = role_arn.rpartition("/")[2]
    statement = {"Effect": "Allow", "Action": "s3:PutObject", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    iam.put_role_policy(RoleName=name, PolicyName="wide", PolicyDocument=document)
    yield
    iam.delete_role_policy(RoleName=name, PolicyName="wide")


class RunningStack:
    """A `Deployer` of `make verify-aws` whose stack runs already."""

    def __init__(self, stack: LocalStack) -> None:
        self._stack = stack

    def deploy(self) -> Deployed:
        return Deployed(self._stack.url, self._stack.bucket, self._stack.table)

    def delete(self) -> None:
        cloudformation = self._stack.emulator.client("cloudformation")
        cloudformation.delete_stack(StackName="recsys-dev")
        cloudformation.get_waiter("stack_delete_complete").wait(StackName="recsys-dev", WaiterConfig={"Delay": 1})


def test_verification_uses_checks_and_deletes_the_stack(stack: LocalStack, request: pytest.FixtureRequest) -> None:
    """The last test, because nothing of the stack is left."""
    if request.node.callspec.params["stack"] == "serverless.yml":
        pytest.skip("make verify-aws deploys template.yaml")
    lines: list[str] = []
    client = stack.emulator.client
    assert missing_alarms(client, load(), "other")
    with wider_role(client("iam"), client("lambda").get_function_configuration(FunctionName="recsys-dev-api")["Role"]):
        excess = list(excess_permissions(client, "dev", stack.bucket, stack.table))
    assert f"api may call s3:PutObject on arn:aws:s3:::{stack.bucket}/models/x" in excess
    assert verify(RunningStack(stack), client, "dev", lines.append, Sizes(cold=2, warm=5)), lines
    text = "\n".join(lines)
    assert "Alarms: all exist.\nPermissions: 0 in excess, 0 missing." in text
    assert "cold (2 requests): p50" in text
    assert "Cost of the run: about $0." in text
    assert stack.bucket not in [bucket["Name"] for bucket in client("s3").list_buckets()["Buckets"]]
    assert stack.table not in client("dynamodb").list_tables()["TableNames"]
    assert "recsys-dev-api" not in [each["FunctionName"] for each in client("lambda").list_functions()["Functions"]]


def _csv(api_key: str) -> dict[str, str]:
    return {"content-type": "text/csv", "x-api-key": api_key}


def _configuration(stack: LocalStack, name: str) -> dict[str, Any]:
    """Return the configuration of a function, for `api` and `recommend` of the version that serves requests."""
    qualifier = {} if name == "train" else {"Qualifier": "live"}
    client = stack.emulator.client("lambda")
    found: dict[str, Any] = client.get_function(FunctionName=f"recsys-dev-{name}", **qualifier)["Configuration"]
    return found


def _discard_waiting_files(stack: LocalStack) -> None:
    """Delete the files that wait for a turn, so that no test waits for their trainings. Running trainings go on."""
    until(lambda: _messages(stack.emulator.client("sqs"), _arrivals_url(stack)), lambda n: n == 0)
    dynamodb = stack.emulator.client("dynamodb")
    for page in dynamodb.get_paginator("scan").paginate(TableName=stack.table, ConsistentRead=True):
        for row in page["Items"]:
            if row["pk"]["S"].startswith("WAITING#"):
                dynamodb.delete_item(TableName=stack.table, Key={name: row[name] for name in ("pk", "sk")})


def _arrivals_url(stack: LocalStack) -> str:
    url: str = stack.queue_url.replace("training", names()["arrivals"]["name"])
    return url


def _waiting(stack: LocalStack) -> int:
    """Return the number of messages in the queues, including those in flight, and of turns that have not ended."""
    sqs = stack.emulator.client("sqs")
    turns = DynamoTable(stack.emulator.client("dynamodb"), stack.table).list("TURNS", "GROUP#")
    return len(turns) + sum(_messages(sqs, url) for url in (stack.queue_url, _arrivals_url(stack)))


def _messages(sqs: Any, queue_url: str) -> int:
    """Return the number of messages in the queue, including those in flight."""
    names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
    attributes = sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=names)["Attributes"]
    return sum(int(attributes[name]) for name in names)
