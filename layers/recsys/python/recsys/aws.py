"""The AWS clients, made once a process, and what their failures mean.

Region, credentials and `AWS_ENDPOINT_URL` (for an emulator) are read by boto3 itself.
"""

from __future__ import annotations

from collections.abc import Iterator
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

# A call inside a region connects in milliseconds: one that takes seconds is better tried again.
_CONFIG: Final = Config(
    connect_timeout=2, read_timeout=10, retries={"mode": "standard", "total_max_attempts": 4}, tcp_keepalive=True
)
# Both by name, since boto3's defaults would sign forms with version 2, and send them to the global host: that redirects
# to the bucket's region, and the file is lost on the way.
_S3_CONFIG: Final = _CONFIG.merge(Config(read_timeout=60, signature_version="s3v4", s3={"addressing_style": "virtual"}))
# An emulator's host name has no subdomain for each bucket.
_S3_EMULATOR_CONFIG: Final = _S3_CONFIG.merge(Config(s3={"addressing_style": "path"}))


@cache
def s3_client() -> S3Client:
    """The process's S3 client; safe to share between threads."""
    client = Session().client("s3", config=_S3_CONFIG)
    if "amazonaws" in (urlsplit(client.meta.endpoint_url).hostname or ""):
        return client
    return Session().client("s3", config=_S3_EMULATOR_CONFIG)


@cache
def dynamodb_client() -> DynamoDBClient:
    """The process's DynamoDB client; safe to share between threads."""
    return Session().client("dynamodb", config=_CONFIG)


@cache
def sqs_client() -> SQSClient:
    """The process's SQS client; safe to share between threads."""
    return Session().client("sqs", config=_CONFIG)


def error_code(error: ClientError) -> str:
    """What AWS calls the error, `NoSuchKey` for one; for a reply without a body, its HTTP status."""
    return str(error.response.get("Error", {}).get("Code", "Unknown"))


@contextmanager
def translating_errors(operation: str) -> Iterator[None]:
    """Turn what botocore raises within into `Unavailable`.

    botocore has tried again by then where that helps. The message names `operation` and the error's code; what the
    error says is left to its cause, since it can quote the request.
    """
    try:
        yield
    except ClientError as error:
        raise Unavailable(f"AWS refused {operation}: {error_code(error)}.") from error
    except BotoCoreError as error:
        raise Unavailable(f"AWS did not answer {operation}: {type(error).__name__}.") from error
