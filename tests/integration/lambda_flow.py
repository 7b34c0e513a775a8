"""Run the deployed service without AWS: the functions in Lambda's runtime client, on an emulator's services.

Each function is a process (`lambda_function.py`). Buckets, queues and notifications belong to the emulator. What AWS
does between them is done here: creating API Gateway's events, and polling SQS for messages to a function.
"""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote_plus

import boto3
import yaml

from tests.emulators import Emulator
from tests.integration.lambda_function import Function, Invocable
from tests.permissions.calls import StackNames
from tests.permissions.gateway import Gateway

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

ROOT: Final = Path(__file__).parents[2]
EVENTS: Final = ROOT / "tests" / "fixtures" / "events"
NAMES: Final[dict[str, Any]] = yaml.safe_load((ROOT / "infra" / "names.yaml").read_text())

RECOMMEND_PATHS: Final = ("/v1/recommendations", "/v1/items/", "/v1/popular")
"""Prefixes of the paths that API Gateway routes to the function `recommend`."""
MAX_UPLOAD_BYTES: Final = 100_000
LEASE_S: Final = 2
"""Lease of a job; a failed message becomes visible again after twice as long."""
_CONDITION_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 10
_POLL_PAUSE_S: Final = 0.1
_NOTIFICATION_WAIT_S: Final = 3
"""How long to wait for a notification: S3 sends it to the queue asynchronously, as on AWS."""


@dataclass(frozen=True)
class HttpResponse:
    """An HTTP response, as API Gateway would send it."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Delivery:
    """One message delivered to the function `train`; `failed` if the function listed it in `batchItemFailures`."""

    body: dict[str, Any]
    failed: bool
    receive_count: int


@dataclass
class Deployment:
    """One deployed stage of the service."""

    emulator: Emulator
    folder: Path
    bucket: str
    table: str
    queue_url: str
    failed_queue_url: str
    arrivals_url: str = ""
    functions: dict[str, Function] = field(default_factory=dict)
    gateways: dict[str, Gateway] = field(default_factory=dict)
    """One per function; they enforce the roles of the templates."""
    resources: ExitStack = field(default_factory=ExitStack)
    secrets: set[str] = field(default_factory=set)
    """Every key and claim token that the service returned."""

    # -- functions

    def start(self, name: str, **environment: str) -> Function:
        """Start another instance of a function, with changes to its environment."""
        function = NAMES["functions"][name]
        if name not in self.gateways:
            names = StackNames(self.bucket, self.table, self.queue_url.rpartition("/")[2])
            gateway = Gateway(name, self.emulator.endpoint_url, names)
            self.gateways[name] = self.resources.enter_context(gateway)
        return Function(
            function["handler"],
            self.environment(name) | {"AWS_ENDPOINT_URL": self.gateways[name].url} | environment,
            self.folder / f"{name}.log",
            timeout_s=function["timeout_s"],
        )

    def environment(self, name: str) -> dict[str, str]:
        """Return the environment variables of a function that calls the emulator directly."""
        return {
            **self.emulator.environment,
            "RECSYS_BACKEND": "aws",
            "RECSYS_BUCKET": self.bucket,
            "RECSYS_TABLE": self.table,
            "RECSYS_QUEUE_URL": self.queue_url,
            "RECSYS_KEY_CACHE_S": "0",
            "RECSYS_LEASE_S": str(LEASE_S),
            "RECSYS_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
            "POWERTOOLS_SERVICE_NAME": name,
            "POWERTOOLS_METRICS_NAMESPACE": "recsys",
            "LOG_LEVEL": "DEBUG",
            "TF_NUM_INTRAOP_THREADS": "2",
        }

    def close(self) -> None:
        """Kill the functions and close their gateways."""
        for function in self.functions.values():
            function.kill()
        self.resources.close()

    # -- HTTP

    def request(
        self,
        method: str,
        path: str,
        *,
        api_key: str | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        route: str | None = None,
    ) -> HttpResponse:
        """Invoke a function with a request, as API Gateway does; `route` is the path with its parameter names."""
        event = http_event(method, path, body=body, headers=headers or {}, api_key=api_key, route=route or path)
        reply = self.functions["recommend" if path.startswith(RECOMMEND_PATHS) else "api"].invoke(event)
        text = reply["body"]
        if reply.get("isBase64Encoded"):
            text = base64.b64decode(text).decode()
        response = HttpResponse(
            reply["statusCode"], {name.lower(): value for name, value in reply["headers"].items()}, text
        )
        self._note_secrets(response)
        return response

    def send_json(self, path: str, document: Any, *, api_key: str | None = None) -> HttpResponse:
        return self.request(
            "POST",
            path,
            api_key=api_key,
            body=json.dumps(document).encode(),
            headers={"content-type": "application/json"},
        )

    def send_csv(self, content: bytes, *, api_key: str | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """Send a file as `curl -F file=@orders.csv` does, and return the accepted job."""
        boundary = "------------------------9f1c3b7a5d2e4f60"
        body = (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="file"; filename="orders.csv"\r\n'
            "Content-Type: text/csv\r\n\r\n"
        ).encode()
        response = self.request(
            "POST",
            "/v1/train",
            api_key=api_key,
            body=body + content + f"\r\n--{boundary}--\r\n".encode(),
            headers={"content-type": f"multipart/form-data; boundary={boundary}", **(headers or {})},
        )
        assert response.status == 202, response.text
        return response.json

    def job(self, job_id: str, api_key: str) -> Any:
        response = self.request("GET", f"/v1/jobs/{job_id}", api_key=api_key, route="/v1/jobs/{job_id}")
        assert response.status == 200, response.text
        return response.json

    def recommend(self, api_key: str, user_id: str, **members: Any) -> Any:
        response = self.send_json("/v1/recommendations", {"user_id": user_id, **members}, api_key=api_key)
        assert response.status == 200, response.text
        return response.json

    def _note_secrets(self, response: HttpResponse) -> None:
        if response.status < 300 and response.text:
            key = response.json.get("api_key")
            if key:
                self.secrets |= {key, key.rpartition("_")[2]}

    # -- objects

    def drop(self, name: str, content: bytes) -> None:
        self.emulator.s3.put_object(Bucket=self.bucket, Key=name, Body=content)

    def read(self, name: str) -> bytes:
        content: bytes = self.emulator.s3.get_object(Bucket=self.bucket, Key=name)["Body"].read()
        return content

    def receipt(self, name: str) -> Any:
        document = json.loads(self.read(name))
        if "claim_token" in document:
            self.secrets.add(document["claim_token"])
        return document

    def claim(self, receipt: Any) -> str:
        """Exchange a receipt's claim token for its API key."""
        response = self.send_json("/v1/key/claim", {"claim_token": receipt["claim_token"]})
        assert response.status == 201, response.text
        api_key: str = response.json["api_key"]
        return api_key

    def object_names(self, prefix: str = "") -> list[str]:
        """Return the names of the current objects, without deleted ones."""
        pages = self.emulator.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def rows(self) -> list[dict[str, Any]]:
        """Return every item of the table."""
        pages = self.emulator.dynamodb.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def row(self, pk: str, sk: str) -> dict[str, Any]:
        """Return the attributes of one item, as text."""
        item = self.emulator.dynamodb.get_item(
            TableName=self.table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
        ).get("Item", {})
        return {name: next(iter(value.values())) for name, value in item.items()}

    # -- messages

    @cached_property
    def sqs(self) -> SQSClient:
        with self.emulator.in_environment():
            return boto3.client("sqs")

    def receive(self, *, wait_s: int = _NOTIFICATION_WAIT_S, queue_url: str | None = None) -> MessageTypeDef | None:
        """Return the next message, which stays in the queue but is hidden from other receivers.

        Notifications that arrive meanwhile are delivered to `dispatch`, which sends the messages of the queue of
        trainings.
        """
        deadline = time.monotonic() + wait_s
        while True:
            self.dispatch_arrivals()
            messages = self._received(queue_url or self.queue_url)
            if messages or time.monotonic() >= deadline:
                return next(iter(messages), None)
            time.sleep(_POLL_PAUSE_S)

    def _received(self, queue_url: str, *, most: int = 1) -> list[MessageTypeDef]:
        reply = self.sqs.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=most, AttributeNames=["All"])
        return reply.get("Messages", [])

    def dispatch_arrivals(self) -> int:
        """Deliver the notifications of the bucket to the function `dispatch`, and return their number."""
        messages = self._received(self.arrivals_url, most=NAMES["functions"]["dispatch"]["batch_size"])
        if messages:
            events = [self.sqs_event(message, self.arrivals_url) for message in messages]
            event = {"Records": [record for each in events for record in each["Records"]]}
            assert self.functions["dispatch"].invoke(event) == {"batchItemFailures": []}
        for message in messages:
            self.sqs.delete_message(QueueUrl=self.arrivals_url, ReceiptHandle=message["ReceiptHandle"])
        return len(messages)

    def forget_turns(self) -> None:
        """Delete the waiting files and the turns, for example of messages that a test discarded."""
        for row in self.rows():
            if row["pk"]["S"].partition("#")[0] in ("TURNS", "WAITING"):
                self.emulator.dynamodb.delete_item(TableName=self.table, Key={name: row[name] for name in ("pk", "sk")})

    def discard(self, message: MessageTypeDef) -> None:
        """Delete a message from the queue."""
        self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])

    def next_message(self) -> MessageTypeDef:
        """Wait for a message and return it. It stays in the queue but is hidden from other receivers."""
        message = self.receive(wait_s=_POLL_S)
        assert message is not None, "No message became visible."
        return message

    def deliver(self, message: MessageTypeDef, function: Invocable | None = None) -> Delivery:
        """Deliver one message to the function `train`, and delete it from the queue unless it failed."""
        reply = (function or self.functions["train"]).invoke(self.sqs_event(message))
        failed_ids = [item["itemIdentifier"] for item in reply["batchItemFailures"]]
        assert failed_ids in ([], [message["MessageId"]])
        if not failed_ids:
            self.discard(message)
        count = int(message["Attributes"]["ApproximateReceiveCount"])
        return Delivery(_parsed(message["Body"]), bool(failed_ids), count)

    def deliver_all(self) -> list[Delivery]:
        """Deliver messages until none is visible."""
        deliveries = []
        message = self.receive()
        while message is not None:
            deliveries.append(self.deliver(message))
            message = self.receive(wait_s=0)
        return deliveries

    def deliver_when_visible(self) -> list[Delivery]:
        """Deliver messages until one that is hidden now was processed successfully."""
        deliveries: list[Delivery] = []
        while not deliveries or deliveries[-1].failed:
            deliveries.append(self.deliver(self.next_message()))
        return deliveries

    def sqs_event(self, message: MessageTypeDef, queue_url: str | None = None) -> dict[str, Any]:
        """Return the event with which Lambda delivers `message`."""
        event: dict[str, Any] = json.loads((EVENTS / "sqs_message.json").read_text())
        event["Records"][0] |= {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": self._with_version_ids(message["Body"]),
            "attributes": message["Attributes"],
            "eventSourceARN": _queue_arn(self.sqs, queue_url or self.queue_url),
        }
        return event

    def _with_version_ids(self, body: str) -> str:
        """Return the S3 event as AWS sends it for a versioned bucket, because moto omits `versionId`."""
        event = _parsed(body)
        for created in (record["s3"]["object"] for record in event.get("Records", [])):
            if "versionId" not in created:
                name = unquote_plus(created["key"])
                versions = self.emulator.s3.list_object_versions(Bucket=self.bucket, Prefix=name).get("Versions", [])
                for version in versions:
                    if (version["Key"], version["ETag"].strip('"')) == (name, created["eTag"]):
                        created["versionId"] = version["VersionId"]
                        break
        return json.dumps(event) if event else body

    def messages_left(self) -> int:
        """Return the number of messages in both queues, hidden ones included."""
        names: Any = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        replies = [
            self.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)
            for url in (self.arrivals_url, self.queue_url)
        ]
        return sum(int(reply["Attributes"][name]) for reply in replies for name in names)


@contextmanager
def deployed(emulator: Emulator, folder: Path) -> Iterator[Deployment]:
    """Deploy a new stage and start its functions; kill them at the end."""
    with emulator.in_environment():
        sqs = boto3.client("sqs")
    stage = secrets.token_hex(4)
    failed_queue_url = sqs.create_queue(QueueName=f"recsys-{stage}-{NAMES['queue']['failed_name']}")["QueueUrl"]
    failed_arn = _queue_arn(sqs, failed_queue_url)
    arrivals_url, queue_url = (
        sqs.create_queue(
            QueueName=f"recsys-{stage}-{queue['name']}",
            Attributes={
                "VisibilityTimeout": str(queue["visibility_timeout_s"]),
                "RedrivePolicy": json.dumps(
                    {"deadLetterTargetArn": failed_arn, "maxReceiveCount": queue["max_receive_count"]}
                ),
            },
        )["QueueUrl"]
        for queue in (NAMES["arrivals"], NAMES["queue"])
    )
    bucket = emulator.new_bucket(versioned=True)
    emulator.s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [
                {
                    "QueueArn": _queue_arn(sqs, arrivals_url),
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
                }
                for prefix in ("uploads/", "inbox/")
            ]
        },
    )
    deployment = Deployment(emulator, folder, bucket, emulator.new_table(), queue_url, failed_queue_url, arrivals_url)
    try:
        for name in ("train", "dispatch", "api", "recommend"):
            deployment.functions[name] = deployment.start(name)
        yield deployment
    finally:
        deployment.close()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until `condition` returns true."""
    deadline = time.monotonic() + _CONDITION_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"The condition was not met within {_CONDITION_TIMEOUT_S:.0f} s."
        time.sleep(0.02)


def http_event(
    method: str, path: str, *, route: str, api_key: str | None, headers: Mapping[str, str], body: bytes | None
) -> dict[str, Any]:
    """Return an event of API Gateway's HTTP API, payload version 2.0, based on a recorded one."""
    event: dict[str, Any] = json.loads((EVENTS / "api_gateway_v2_unknown_path.json").read_text())
    route_key = f"{method} {route}"
    event |= {"routeKey": route_key, "rawPath": path}
    event["requestContext"] |= {"routeKey": route_key, "requestId": secrets.token_hex(8)}
    event["requestContext"]["http"] |= {"method": method, "path": path}
    event["headers"] |= {"content-length": str(len(body or b"")), **headers}
    if api_key is not None:
        event["headers"]["x-api-key"] = api_key
    if body is not None:
        # API Gateway encodes bodies in base64 unless their content type is text or JSON.
        is_text = headers.get("content-type", "").startswith(("text/", "application/json"))
        event |= {
            "body": body.decode() if is_text else base64.b64encode(body).decode(),
            "isBase64Encoded": not is_text,
        }
    return event


def two_tastes_csv(*, n_users: int = 60, n_items: int = 40, n_each: int = 8, shift: int = 0) -> bytes:
    """Return a CSV in which even users bought even items, and odd users odd ones; `n_each` items per user."""
    lines = ["user_id,item_id,timestamp"]
    for user in range(n_users):
        stride = (1, 3, 7)[user % 3]
        for step in range(n_each):
            position = (user // 2 + shift + step * stride) % (n_items // 2)
            lines.append(f"u{user},i{2 * position + user % 2},{1_700_000_000 + 3600 * step + user}")
    return "\n".join([*lines, ""]).encode()


def items_of(content: bytes, user_id: str) -> set[str]:
    """Return the items of a user in such a CSV."""
    rows = [line.split(",") for line in content.decode().splitlines()[1:]]
    return {row[1] for row in rows if row[0] == user_id}


def _queue_arn(sqs: SQSClient, queue_url: str) -> str:
    return sqs.get_queue_attributes(QueueUrl=queue_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]


def _parsed(body: str) -> dict[str, Any]:
    try:
        document: dict[str, Any] = json.loads(body)
    except ValueError:
        return {}
    return document
