"""The deployed service without AWS: the three functions in Lambda's own runtime client, on an emulator's services.

Each function is a process of its own that runs `awslambdaric`, as on Lambda, against a stand-in for the Runtime API.
Buckets, queues and notifications are the emulator's. What AWS does between them is done here: API Gateway's events and
the poller that takes messages from SQS to a function.
"""

from __future__ import annotations

import base64
import json
import os
import queue
import secrets
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import unquote_plus

import boto3
import yaml

from tests.emulators import Emulator

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

ROOT: Final = Path(__file__).parents[2]
EVENTS: Final = ROOT / "tests" / "fixtures" / "events"
NAMES: Final[dict[str, Any]] = yaml.safe_load((ROOT / "infra" / "names.yaml").read_text())

RECOMMEND_PATHS: Final = ("/v1/recommendations", "/v1/items/", "/v1/popular")
"""What API Gateway sends to the function `recommend`."""
MAX_UPLOAD_BYTES: Final = 100_000
LEASE_S: Final = 2
"""A message that failed comes back after twice as long."""
_START_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 10
_NOTICED_S: Final = 3
"""S3 tells the queue of a new object in its own time, as AWS does."""


class FunctionDied(Exception):
    """The function's process ended, or raised out of its handler."""


class Function:
    """One Lambda function, warm: a process that runs one handler, one invocation at a time."""

    def __init__(
        self,
        handler: str,
        environment: Mapping[str, str],
        log: Path,
        *,
        timeout_s: float,
        python: Sequence[str] = (sys.executable,),
    ) -> None:
        self._handler = handler
        self._timeout_s = timeout_s
        self._api = _RuntimeApi()
        self.log = log
        self.started_s = time.perf_counter()
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [*python, "-m", "awslambdaric", handler],
                cwd=log.parent,
                env={
                    **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RECSYS_"))},
                    **environment,
                    "AWS_LAMBDA_RUNTIME_API": self._api.address,
                    "AWS_LAMBDA_FUNCTION_NAME": handler.partition(".")[0],
                    "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "1024",
                },
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def invoke(self, event: Mapping[str, Any]) -> dict[str, Any]:
        """What the handler returns. Raises `FunctionDied`."""
        self.start(event)
        return self.result()

    def start(self, event: Mapping[str, Any]) -> None:
        """Invoke without waiting."""
        self._api.events.put(_Invocation(json.dumps(event).encode(), time.time() + self._timeout_s))

    def result(self) -> dict[str, Any]:
        """What the invocation that was started returns. Raises `FunctionDied`."""
        deadline = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                kind, answer = self._api.answers.get(timeout=0.2)
            except queue.Empty:
                if self._process.poll() is not None:
                    break
                continue
            if kind != "response":
                raise FunctionDied(f"{self._handler}: {answer}")
            result: dict[str, Any] = json.loads(answer)
            return result
        raise FunctionDied(f"{self._handler} did not answer. Its last words: {self.log.read_text()[-3000:]}")

    @property
    def process_id(self) -> int:
        """The process that runs the handler."""
        return self._process.pid

    @property
    def init_s(self) -> float:
        """From the start of the process until it asked for its first event."""
        assert self._api.first_asked_s is not None
        return self._api.first_asked_s - self.started_s

    def kill(self) -> None:
        """End the process as Lambda does: without a word."""
        self._process.kill()
        self._process.wait()
        self._api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc_info: object) -> None:
        self.kill()


@dataclass(frozen=True)
class _Invocation:
    event: bytes
    deadline: float
    request_id: str = field(default_factory=lambda: secrets.token_hex(16))


class _QuietServer(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A function that was killed hangs up in the middle."""


class _RuntimeApi:
    """https://docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html, as much as a runtime client needs."""

    def __init__(self) -> None:
        self.events: queue.Queue[_Invocation | None] = queue.Queue()
        self.answers: queue.Queue[tuple[str, str]] = queue.Queue()
        self.first_asked_s: float | None = None
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                api.first_asked_s = api.first_asked_s or time.perf_counter()
                invocation = api.events.get()
                if invocation is None:
                    self.close_connection = True
                    return
                headers = {  # without one of them the runtime client ends with a segmentation fault
                    "Content-Type": "application/json",
                    "Lambda-Runtime-Trace-Id": "Root=1-69a42f1c-3f1c2a5e0b7d4c6f1a2b3c4d",
                    "Lambda-Runtime-Aws-Request-Id": invocation.request_id,
                    "Lambda-Runtime-Deadline-Ms": str(int(invocation.deadline * 1000)),
                    "Lambda-Runtime-Invoked-Function-Arn": "arn:aws:lambda:eu-west-1:123456789012:function:recsys-test",
                }
                self._answer(200, invocation.event, headers)

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"] or 0)).decode()
                api.answers.put((self.path.rpartition("/")[2], body))
                self._answer(202, b"{}", {})

            def _answer(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = _QuietServer(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.events.put(None)
        self._server.shutdown()
        self._server.server_close()


@dataclass(frozen=True)
class Answer:
    """An HTTP answer, as API Gateway would send it."""

    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


@dataclass(frozen=True)
class Delivery:
    """One message taken to the train function: `came_back` when the function named it in `batchItemFailures`."""

    body: dict[str, Any]
    came_back: bool
    receive_count: int


@dataclass
class Deployment:
    """One stage of the service."""

    emulator: Emulator
    folder: Path
    bucket: str
    table: str
    queue_url: str
    failed_queue_url: str
    functions: dict[str, Function] = field(default_factory=dict)
    secrets: set[str] = field(default_factory=set)
    """Every key and claim token that the service gave away."""

    # -- functions

    def start(self, name: str, **environment: str) -> Function:
        """Another instance of a function, with changes to its environment."""
        function = NAMES["functions"][name]
        return Function(
            function["handler"],
            {
                **self.emulator.environment,
                "RECSYS_BACKEND": "aws",
                "RECSYS_BUCKET": self.bucket,
                "RECSYS_TABLE": self.table,
                "RECSYS_KEY_CACHE_S": "0",
                "RECSYS_LEASE_S": str(LEASE_S),
                "RECSYS_MAX_UPLOAD_BYTES": str(MAX_UPLOAD_BYTES),
                "POWERTOOLS_SERVICE_NAME": name,
                "POWERTOOLS_METRICS_NAMESPACE": "recsys",
                "LOG_LEVEL": "DEBUG",
                "TF_NUM_INTRAOP_THREADS": "2",
                **environment,
            },
            self.folder / f"{name}.log",
            timeout_s=function["timeout_s"],
        )

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
    ) -> Answer:
        """Send a request as API Gateway would: `route` is the path with its parameters' names."""
        event = http_event(method, path, body=body, headers=headers or {}, api_key=api_key, route=route or path)
        reply = self.functions["recommend" if path.startswith(RECOMMEND_PATHS) else "api"].invoke(event)
        text = reply["body"]
        if reply.get("isBase64Encoded"):
            text = base64.b64decode(text).decode()
        answer = Answer(reply["statusCode"], {name.lower(): value for name, value in reply["headers"].items()}, text)
        self._note_secrets(answer)
        return answer

    def send_json(self, path: str, document: Any, *, api_key: str | None = None) -> Answer:
        return self.request(
            "POST",
            path,
            api_key=api_key,
            body=json.dumps(document).encode(),
            headers={"content-type": "application/json"},
        )

    def send_csv(self, content: bytes, *, api_key: str | None = None, headers: Mapping[str, str] | None = None) -> Any:
        """`curl -F file=@orders.csv`; what the service accepted."""
        boundary = "------------------------9f1c3b7a5d2e4f60"
        body = (
            f"--{boundary}\r\n"
            'Content-Disposition: form-data; name="file"; filename="orders.csv"\r\n'
            "Content-Type: text/csv\r\n\r\n"
        ).encode()
        answer = self.request(
            "POST",
            "/v1/train",
            api_key=api_key,
            body=body + content + f"\r\n--{boundary}--\r\n".encode(),
            headers={"content-type": f"multipart/form-data; boundary={boundary}", **(headers or {})},
        )
        assert answer.status == 202, answer.text
        return answer.json

    def job(self, job_id: str, api_key: str) -> Any:
        answer = self.request("GET", f"/v1/jobs/{job_id}", api_key=api_key, route="/v1/jobs/{job_id}")
        assert answer.status == 200, answer.text
        return answer.json

    def recommend(self, api_key: str, user_id: str, **members: Any) -> Any:
        answer = self.send_json("/v1/recommendations", {"user_id": user_id, **members}, api_key=api_key)
        assert answer.status == 200, answer.text
        return answer.json

    def _note_secrets(self, answer: Answer) -> None:
        if answer.status < 300 and answer.text:
            key = answer.json.get("api_key")
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
        """The API key for a receipt's token."""
        answer = self.send_json("/v1/key/claim", {"claim_token": receipt["claim_token"]})
        assert answer.status == 201, answer.text
        api_key: str = answer.json["api_key"]
        return api_key

    def object_names(self, prefix: str = "") -> list[str]:
        """Names of what is there, whatever became of it before."""
        pages = self.emulator.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def rows(self) -> list[dict[str, Any]]:
        """Every item of the table."""
        pages = self.emulator.dynamodb.get_paginator("scan").paginate(TableName=self.table, ConsistentRead=True)
        return [item for page in pages for item in page["Items"]]

    def row(self, pk: str, sk: str) -> dict[str, Any]:
        """The attributes of one item, as text."""
        item = self.emulator.dynamodb.get_item(
            TableName=self.table, Key={"pk": {"S": pk}, "sk": {"S": sk}}, ConsistentRead=True
        ).get("Item", {})
        return {name: next(iter(value.values())) for name, value in item.items()}

    # -- messages

    @cached_property
    def sqs(self) -> SQSClient:
        with self.emulator.in_environment():
            return boto3.client("sqs")

    def receive(self, *, wait_s: int = _NOTICED_S, queue_url: str | None = None) -> MessageTypeDef | None:
        """The next message, left in the queue and hidden."""
        reply = self.sqs.receive_message(
            QueueUrl=queue_url or self.queue_url,
            MaxNumberOfMessages=1,
            WaitTimeSeconds=wait_s,
            AttributeNames=["All"],
        )
        return next(iter(reply.get("Messages", [])), None)

    def discard(self, message: MessageTypeDef) -> None:
        """Take a message out of the queue for good."""
        self.sqs.delete_message(QueueUrl=self.queue_url, ReceiptHandle=message["ReceiptHandle"])

    def deliver(self, message: MessageTypeDef, function: Function | None = None) -> Delivery:
        """Take one message to the train function, and out of the queue unless it must come back."""
        reply = (function or self.functions["train"]).invoke(self.sqs_event(message))
        failed = [item["itemIdentifier"] for item in reply["batchItemFailures"]]
        assert failed in ([], [message["MessageId"]])
        if not failed:
            self.discard(message)
        count = int(message["Attributes"]["ApproximateReceiveCount"])
        return Delivery(_parsed(message["Body"]), bool(failed), count)

    def deliver_all(self) -> list[Delivery]:
        """Deliver until no message is visible."""
        deliveries = []
        message = self.receive()
        while message is not None:
            deliveries.append(self.deliver(message))
            message = self.receive(wait_s=0)
        return deliveries

    def deliver_when_back(self) -> list[Delivery]:
        """Deliver until a message that is hidden now was worked on."""
        deliveries: list[Delivery] = []
        while not deliveries or deliveries[-1].came_back:
            message = self.receive(wait_s=_POLL_S)
            assert message is not None, "No message came back."
            deliveries.append(self.deliver(message))
        return deliveries

    def sqs_event(self, message: MessageTypeDef) -> dict[str, Any]:
        """The event in which Lambda hands over `message`."""
        event: dict[str, Any] = json.loads((EVENTS / "sqs_message.json").read_text())
        event["Records"][0] |= {
            "messageId": message["MessageId"],
            "receiptHandle": message["ReceiptHandle"],
            "body": self._with_version_ids(message["Body"]),
            "attributes": message["Attributes"],
            "eventSourceARN": _queue_arn(self.sqs, self.queue_url),
        }
        return event

    def _with_version_ids(self, body: str) -> str:
        """The S3 event as AWS sends it for a bucket with versions; moto leaves `versionId` out."""
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
        """How many messages are in the queue, hidden ones too."""
        names: Any = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        reply = self.sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=names)
        return sum(int(reply["Attributes"][name]) for name in names)


@contextmanager
def deployed(emulator: Emulator, folder: Path) -> Iterator[Deployment]:
    """A new stage, its functions warm."""
    with emulator.in_environment():
        sqs = boto3.client("sqs")
    stage = secrets.token_hex(4)
    failed_queue_url = sqs.create_queue(QueueName=f"recsys-{stage}-{NAMES['queue']['failed_name']}")["QueueUrl"]
    redrive = {
        "deadLetterTargetArn": _queue_arn(sqs, failed_queue_url),
        "maxReceiveCount": NAMES["queue"]["max_receive_count"],
    }
    queue_url = sqs.create_queue(
        QueueName=f"recsys-{stage}-{NAMES['queue']['name']}",
        Attributes={
            "VisibilityTimeout": str(NAMES["queue"]["visibility_timeout_s"]),
            "RedrivePolicy": json.dumps(redrive),
        },
    )["QueueUrl"]
    bucket = emulator.new_bucket(versioned=True)
    emulator.s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={
            "QueueConfigurations": [
                {
                    "QueueArn": _queue_arn(sqs, queue_url),
                    "Events": ["s3:ObjectCreated:*"],
                    "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": prefix}]}},
                }
                for prefix in ("uploads/", "inbox/")
            ]
        },
    )
    deployment = Deployment(emulator, folder, bucket, emulator.new_table(), queue_url, failed_queue_url)
    try:
        for name in ("train", "api", "recommend"):
            deployment.functions[name] = deployment.start(name)
        yield deployment
    finally:
        for function in deployment.functions.values():
            function.kill()


def eventually(condition: Callable[[], bool]) -> None:
    """Wait for a function to do something."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, "It never happened."
        time.sleep(0.02)


def http_event(
    method: str, path: str, *, route: str, api_key: str | None, headers: Mapping[str, str], body: bytes | None
) -> dict[str, Any]:
    """An event of API Gateway's HTTP API, payload version 2.0, after one that is stored."""
    event: dict[str, Any] = json.loads((EVENTS / "api_gateway_v2_unknown_path.json").read_text())
    route_key = f"{method} {route}"
    event |= {"routeKey": route_key, "rawPath": path}
    event["requestContext"] |= {"routeKey": route_key, "requestId": secrets.token_hex(8)}
    event["requestContext"]["http"] |= {"method": method, "path": path}
    event["headers"] |= {"content-length": str(len(body or b"")), **headers}
    if api_key is not None:
        event["headers"]["x-api-key"] = api_key
    if body is not None:
        # API Gateway encodes what is not text by its type.
        is_text = headers.get("content-type", "").startswith(("text/", "application/json"))
        event |= {
            "body": body.decode() if is_text else base64.b64encode(body).decode(),
            "isBase64Encoded": not is_text,
        }
    return event


def two_tastes_csv(*, n_users: int = 60, n_items: int = 40, n_each: int = 8, shift: int = 0) -> bytes:
    """Interactions of users with two tastes: even users have even items, odd users odd ones, `n_each` of them each."""
    lines = ["user_id,item_id,timestamp"]
    for user in range(n_users):
        stride = (1, 3, 7)[user % 3]
        for step in range(n_each):
            place = (user // 2 + shift + step * stride) % (n_items // 2)
            lines.append(f"u{user},i{2 * place + user % 2},{1_700_000_000 + 3600 * step + user}")
    return "\n".join([*lines, ""]).encode()


def items_of(content: bytes, user_id: str) -> set[str]:
    """The items of a user in such a CSV."""
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
