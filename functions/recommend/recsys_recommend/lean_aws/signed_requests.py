"""Signed requests to AWS with the standard library alone: what a cold start needs of an SDK.

Importing boto3 and making two clients takes as long as importing FastAPI, for one `GetItem` and a few `GetObject`. The
signature is AWS Signature Version 4, all of the body signed:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. Tests compare it with
botocore's. What writes, or needs more of AWS than this, uses `recsys.aws`.
"""

from __future__ import annotations

import hashlib
import hmac
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final
from urllib.parse import urlsplit

from recsys.errors import Unavailable
from recsys.settings import AwsConfig

_CONNECT_TIMEOUT_S: Final = 2.0
_ATTEMPTS: Final = 4
_FIRST_PAUSE_S: Final = 0.05
_TRY_AGAIN: Final = frozenset({429, 500, 502, 503, 504})
# DynamoDB says so with a 400.
_THROTTLED: Final = re.compile(rb"Throttl|ProvisionedThroughputExceeded|RequestLimitExceeded")
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


@dataclass(frozen=True, slots=True)
class Response:
    """What a service answered, whole."""

    status: int
    body: bytes

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed a little later."""
        return self.status in _TRY_AGAIN or (self.status == 400 and _THROTTLED.search(self.body) is not None)


class SignedService:
    """One AWS service at one address; safe to share between threads. Connections are kept and used again.

    Parameters
    ----------
    name
        The service as its signature names it, `s3`.
    base_url
        `https://host[:port]`, or with `http` for an emulator.
    read_timeout_s
        How long an answer may stay silent.
    pause
        Waits so many seconds, before another attempt.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        access: AwsConfig,
        *,
        read_timeout_s: float,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(base_url)
        self._name = name
        self._host = parts.netloc
        self._connection_class = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        self._access = access
        self._read_timeout_s = read_timeout_s
        self._pause = pause
        self._idle: list[HTTPConnection] = []

    def send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Response:
        """Send a request; `path` is percent-encoded. Tried again where that may help.

        Raises
        ------
        Unavailable
            There are no credentials, or the service did not answer, or with an error of its own.
        """
        cause: Exception | None
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._pause(random.uniform(0.5, 1.0) * _FIRST_PAUSE_S * 2**attempt)  # noqa: S311 - no secret
            try:
                answer = self._send_once(method, path, dict(headers or {}), body)
            except (OSError, HTTPException) as error:
                failure, cause = f"{type(error).__name__}", error
                continue
            if not answer.is_retryable:
                return answer
            failure, cause = f"status {answer.status}", None
        raise Unavailable(f"{self._name} did not answer {method} in {_ATTEMPTS} attempts: {failure}.") from cause

    def close(self) -> None:
        """Close the connections that are kept."""
        while self._idle:
            self._idle.pop().close()

    def _send_once(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        signed = sign(
            method, path, {**headers, "host": self._host}, body, service=self._name, access=self._access, now=_utc_now()
        )
        # What a frozen Lambda left open may be closed at the other end: the next attempt takes another.
        connection = self._idle.pop() if self._idle else self._connect()
        try:
            connection.request(method, path, body, signed)
            response = connection.getresponse()
            answer = Response(response.status, response.read())
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return answer

    def _connect(self) -> HTTPConnection:
        connection = self._connection_class(self._host, timeout=_CONNECT_TIMEOUT_S)
        connection.connect()
        connection.sock.settimeout(self._read_timeout_s)
        return connection


def sign(
    method: str,
    path: str,
    headers: Mapping[str, str],
    body: bytes,
    *,
    service: str,
    access: AwsConfig,
    now: datetime,
) -> dict[str, str]:
    """`headers` (names in lower case, `host` among them) with what signs them.

    `path` is percent-encoded once, has no query and, but for S3, only characters that need no encoding.

    Raises
    ------
    Unavailable
        There are no credentials.
    """
    if not access.access_key_id or not access.secret_access_key:
        raise Unavailable("The environment holds no AWS credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.")
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    body_sha256 = hashlib.sha256(body).hexdigest()
    signed = {**headers, "x-amz-content-sha256": body_sha256, "x-amz-date": moment}
    if access.session_token:
        signed["x-amz-security-token"] = access.session_token
    names = sorted(signed)
    listed = "".join(f"{name}:{signed[name].strip()}\n" for name in names)
    canonical = f"{method}\n{path}\n\n{listed}\n{';'.join(names)}\n{body_sha256}"
    scope = f"{moment[:8]}/{access.region}/{service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = _signing_key(access.secret_access_key, moment[:8], access.region, service)
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={access.access_key_id}/{scope}, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return signed


@lru_cache(maxsize=8)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key


def _utc_now() -> datetime:
    return datetime.now(UTC)
