"""Create each boto3 client once per process, and translate the errors of botocore.

boto3 itself reads the region, the credentials and `AWS_ENDPOINT_URL` (for an emulator).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from boto3.session import Session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from recsys.errors import Unavailable

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient

# A call within a region connects in milliseconds, so a connection that takes seconds is better retried.
_CONFIG: Final = Config(
    connect_timeout=2, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4}, tcp_keepalive=True
)
# Both options are explicit because boto3's defaults sign upload forms with version 2 and address the global host. The
# global host redirects to the bucket's region, and the redirect loses the uploaded file.
_S3_CONFIG: Final = _CONFIG.merge(Config(read_timeout=60, signature_version="s3v4", s3={"addressing_style": "virtual"}))
# An emulator's host name has no subdomain per bucket.
_S3_EMULATOR_CONFIG: Final = _S3_CONFIG.merge(Config(s3={"addressing_style": "path"}))

_AWS_DOMAINS: Final = (".amazonaws.com", ".amazonaws.com.cn", ".amazonaws.eu", ".api.aws")
"""DNS suffixes of the public AWS partitions, from botocore's `partitions.json`."""


@cache
def s3_client() -> S3Client:
    """Return the S3 client of the process. Threads can share the client.

    The client addresses a bucket by subdomain at AWS and its VPC endpoints, and by path at any other endpoint. The host
    name of the endpoint decides, because `AWS_ENDPOINT_URL` can name an endpoint of either kind.
    """
    client = Session().client("s3", config=_S3_CONFIG)
    if _is_aws_host(client.meta.endpoint_url):
        return client
    return Session().client("s3", config=_S3_EMULATOR_CONFIG)


@cache
def dynamodb_client() -> DynamoDBClient:
    """Return the DynamoDB client of the process. Threads can share the client."""
    return Session().client("dynamodb", config=_CONFIG)


@cache
def sqs_client() -> SQSClient:
    """Return the SQS client of the process. Threads can share the client."""
    return Session().client("sqs", config=_CONFIG)


def message_sender(queue_url: str) -> Callable[[str], None]:
    """Return a function that sends a message to a queue.

    The function raises `Unavailable` if SQS does not accept the message.
    """

    def send(message: str) -> None:
        with translating_errors("SendMessage"):
            sqs_client().send_message(QueueUrl=queue_url, MessageBody=message)

    return send


def _is_aws_host(endpoint_url: str) -> bool:
    hostname = urlsplit(endpoint_url).hostname or ""
    return hostname.endswith(_AWS_DOMAINS)


def error_code(error: ClientError) -> str:
    """Return the AWS error code, such as `NoSuchKey`, or the HTTP status if the response has no body."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


@contextmanager
def translating_errors(operation: str) -> Iterator[None]:
    """Translate botocore errors raised in the context into `Unavailable`.

    botocore has already retried the operation if a retry could help. The message contains only `operation` and the
    error code, because the text of the botocore error can quote the request. The botocore error is the `__cause__` of
    the new error.

    Raises
    ------
    Unavailable
        AWS rejected the operation or did not respond.
    """
    try:
        yield
    except ClientError as error:
        raise Unavailable(f"AWS rejected {operation}: {error_code(error)}.") from error
    except BotoCoreError as error:
        raise Unavailable(f"AWS did not respond to {operation}: {type(error).__name__}.") from error
