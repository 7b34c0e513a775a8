"""The IAM actions that an HTTP request to S3, DynamoDB or SQS requires, derived from the request itself.

Requests are read as they are sent, so that boto3 and the client of the function `recommend` are treated alike.
Resources have the form in which `tests.infra.stack` reads the templates, such as `<Table.Arn>`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

BUCKET_ARN: Final = "arn:<AWS::Partition>:s3:::<Bucket>"
_SERVICE: Final = re.compile(r"Credential=[^/]+/\d+/[\w-]+/(\w+)/aws4_request")
_FORM_KEY: Final = re.compile(rb'name="key"\r\n(?:[^\r\n]+\r\n)*\r\n([^\r\n]*)\r\n')
_PARTITION: Final = re.compile(r"\bpk = (:\w+)")
_ITEM_ACTIONS: Final = {
    "Put": "PutItem",
    "Delete": "DeleteItem",
    "Update": "UpdateItem",
    "ConditionCheck": "ConditionCheckItem",
}


@dataclass(frozen=True)
class StackNames:
    """Names of a deployed stack's resources."""

    bucket: str
    table: str
    queue: str


@dataclass(frozen=True)
class Request:
    """An HTTP request of a function. `headers` have names in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Call:
    """An action on a resource. `context` are the condition keys of IAM, each with its values."""

    action: str
    resource: str
    context: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def calls_of(request: Request, names: StackNames) -> list[Call]:
    """Return the calls for which AWS checks the permissions of the sender of `request`.

    A request that this module does not know requires an action that no role allows.
    """
    # A form that was presigned has its signature in the body. Only S3 has such forms.
    signed = _SERVICE.search(request.headers.get("authorization", ""))
    match signed[1] if signed else "s3":
        case "s3":
            return list(_s3_calls(request, names))
        case "dynamodb":
            return list(_dynamodb_calls(request, names))
        case service:
            operation = request.headers.get("x-amz-target", "").rpartition(".")[2]
            queue_url = str(json.loads(request.body).get("QueueUrl", ""))
            is_own = queue_url.rpartition("/")[2] == names.queue
            return [Call(f"{service}:{operation}", "<Queue.Arn>" if is_own else queue_url)]


def listing_of_missing_object(request: Request, names: StackNames) -> Call | None:
    """Return the listing that S3 checks if the requested object is missing. Without it, the status is 403."""
    (call,) = calls_of(request, names)
    if call.action == "s3:GetObject":
        return Call("s3:ListBucket", BUCKET_ARN)
    return Call("s3:ListBucketVersions", BUCKET_ARN) if call.action == "s3:GetObjectVersion" else None


def _s3_calls(request: Request, names: StackNames) -> Iterator[Call]:
    address = urlsplit(request.target)
    query = parse_qs(address.query, keep_blank_values=True)
    bucket, _, key = unquote(address.path).lstrip("/").partition("/")
    bucket_arn = BUCKET_ARN if bucket == names.bucket else f"arn:<AWS::Partition>:s3:::{bucket}"
    version = "Version" if "versionId" in query else ""
    match request.method, bool(key):
        case "GET" | "HEAD", True:
            yield Call(f"s3:GetObject{version}", f"{bucket_arn}/{key}")
        case "PUT", True if "x-amz-copy-source" not in request.headers and "uploadId" not in query:
            yield Call("s3:PutObject", f"{bucket_arn}/{key}")
        case "DELETE", True if "uploadId" not in query:
            yield Call(f"s3:DeleteObject{version}", f"{bucket_arn}/{key}")
        case "POST", False if form := _FORM_KEY.search(request.body):
            yield Call("s3:PutObject", f"{bucket_arn}/{form[1].decode()}")
        case "GET", False:
            action = "s3:ListBucketVersions" if "versions" in query else "s3:ListBucket"
            yield Call(action, bucket_arn, {"s3:prefix": tuple(query.get("prefix", [""]))})
        case method, _:
            yield Call(f"s3:unknown {method} {address.query}", f"{bucket_arn}/{key}")


def _dynamodb_calls(request: Request, names: StackNames) -> Iterator[Call]:
    operation = request.headers["x-amz-target"].rpartition(".")[2]
    document = json.loads(request.body)
    if operation == "TransactWriteItems":
        for item in document["TransactItems"]:
            ((kind, action),) = item.items()
            yield _item_call(_ITEM_ACTIONS[kind], action, names)
    else:
        yield _item_call(operation, document, names)


def _item_call(operation: str, document: Mapping[str, Any], names: StackNames) -> Call:
    table = document["TableName"]
    item = document.get("Key") or document.get("Item") or {}
    partition = item.get("pk")
    if found := _PARTITION.search(document.get("KeyConditionExpression", "")):
        partition = document["ExpressionAttributeValues"][found[1]]
    context = {"dynamodb:LeadingKeys": (str(partition["S"]),)} if partition else {}
    return Call(f"dynamodb:{operation}", "<Table.Arn>" if table == names.table else table, context)
