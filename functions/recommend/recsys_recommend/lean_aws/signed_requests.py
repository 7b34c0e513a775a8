"""Send signed HTTP requests to AWS with the standard library.

The function `recommend` needs one `GetItem` and a few `GetObject` requests. For these requests, boto3 would be too
slow, because its import and the creation of two clients take longer than the import of FastAPI. The decision record
"AWS client of the hot path" compares the alternatives. All other modules of recsys that call AWS use boto3; see
`recsys.aws`.

Requests, including their bodies, are signed with AWS Signature Version 4, as described at
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html. Tests compare the signatures
with those of botocore.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from recsys.backoff import backoff_s
from recsys.errors import Unavailable
from recsys_recommend.lean_aws.credentials import CredentialProvider, Credentials

_CONNECT_TIMEOUT_S: Final = 2.0  # as in recsys.aws
_ATTEMPTS: Final = 4  # as in recsys.aws
_BACKOFF_BASE_S: Final = 0.05  # not tuned: with 4 attempts, the pauses add up to at most 0.7 s
_RETRYABLE_STATUS: Final = frozenset({429, 500, 502, 503, 504})
# DynamoDB reports throttling with status 400.
_THROTTLING_CODE: Final = re.compile(rb"Throttl|ProvisionedThroughputExceeded|RequestLimitExceeded")
_ALGORITHM: Final = "AWS4-HMAC-SHA256"


class Response(NamedTuple):
    """A complete HTTP response."""

    status: int
    body: bytes

    @property
    def is_retryable(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in _RETRYABLE_STATUS or (
            self.status == 400 and _THROTTLING_CODE.search(self.body) is not None
        )


class SignedService:
    """A client of one AWS service, which keeps connections open for reuse. Instances are thread-safe.

    Parameters
    ----------
    name
        Name of the service in signatures, such as `s3`.
    base_url
        `https://host[:port]`, or `http://…` for an emulator.
    region
        The AWS region of the service.
    credentials
        Source of the credentials of each request.
    read_timeout_s
        Longest time without data from the service, in seconds.
    pause
        Function that sleeps for the given number of seconds before a retry.
    """

    def __init__(
        self,
        name: str,
        base_url: str,
        *,
        region: str,
        credentials: CredentialProvider,
        read_timeout_s: float,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        parts = urlsplit(base_url)
        self._name = name
        self._host = parts.netloc
        # Created here and not at the first request, because Lambda imports the handler with more CPU.
        self._tls = _tls_context() if parts.scheme == "https" else None
        self._region = region
        self._credentials = credentials
        self._read_timeout_s = read_timeout_s
        self._pause = pause
        self._idle: list[HTTPConnection] = []

    def send(self, method: str, path: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"") -> Response:
        """Send a signed request, with retries after connection errors, throttling and server errors.

        Parameters
        ----------
        method
            The HTTP method.
        path
            The path, percent-encoded, without a query.
        headers
            Additional headers, with names in lower case.
        body
            The request body.

        Returns
        -------
        Response
            A response with any status that is not retryable, such as 200 or 404.

        Raises
        ------
        Unavailable
            There are no credentials, or all attempts failed.
        """
        failure: Exception | str = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._pause(backoff_s(attempt, base_s=_BACKOFF_BASE_S))
            try:
                response = self._send_once(method, path, dict(headers or {}), body)
            except (OSError, HTTPException) as error:
                failure = error
                continue
            if not response.is_retryable:
                return response
            failure = f"status {response.status}"
        cause = failure if isinstance(failure, Exception) else None
        reason = type(failure).__name__ if cause else failure
        raise Unavailable(f"{self._name} did not respond to {method} in {_ATTEMPTS} attempts: {reason}.") from cause

    def close(self) -> None:
        """Close the idle connections."""
        while self._idle:
            self._idle.pop().close()

    def _send_once(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Response:
        signed = sign(
            method,
            path,
            {**headers, "host": self._host},
            body,
            service=self._name,
            region=self._region,
            credentials=self._credentials.get(),
            now=datetime.now(UTC),
        )
        # The service may have closed a connection while Lambda had frozen the process. Then this attempt fails, and the
        # next one uses another connection.
        try:
            connection = self._idle.pop()
        except IndexError:  # not checked before, because another thread can take the last connection after a check
            connection = self._connect()
        try:
            connection.request(method, path, body, signed)
            reply = connection.getresponse()
            response = Response(reply.status, reply.read())
        except BaseException:
            connection.close()
            raise
        self._idle.append(connection)
        return response

    def _connect(self) -> HTTPConnection:
        if self._tls is None:
            connection = HTTPConnection(self._host, timeout=_CONNECT_TIMEOUT_S)
        else:
            connection = HTTPSConnection(self._host, timeout=_CONNECT_TIMEOUT_S, context=self._tls)
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
    region: str,
    credentials: Credentials,
    now: datetime,
) -> dict[str, str]:
    """Sign a request with AWS Signature Version 4.

    Parameters
    ----------
    method
        The HTTP method.
    path
        The path, percent-encoded once, without a query. For services other than S3, the path must consist of characters
        that need no encoding.
    headers
        All headers to sign, with names in lower case. `host` must be among them.
    body
        The request body.
    service
        Name of the service, such as `s3`.
    region
        The AWS region of the service.
    credentials
        The credentials to sign with.
    now
        Time of the signature, in UTC.

    Returns
    -------
    dict[str, str]
        The given headers and, in addition, headers with the time, the digest of the body, the session token and the
        signature.
    """
    moment = now.strftime("%Y%m%dT%H%M%SZ")
    body_sha256 = hashlib.sha256(body).hexdigest()
    signed = {**headers, "x-amz-content-sha256": body_sha256, "x-amz-date": moment}
    if credentials.session_token:
        signed["x-amz-security-token"] = credentials.session_token
    names = sorted(signed)
    lines = "".join(f"{name}:{signed[name].strip()}\n" for name in names)
    canonical = f"{method}\n{path}\n\n{lines}\n{';'.join(names)}\n{body_sha256}"
    scope = f"{moment[:8]}/{region}/{service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{moment}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = _signing_key(credentials.secret_access_key, moment[:8], region, service)
    signature = hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest()
    signed["authorization"] = (
        f"{_ALGORITHM} Credential={credentials.access_key_id}/{scope}, "
        f"SignedHeaders={';'.join(names)}, Signature={signature}"
    )
    return signed


@lru_cache(maxsize=1)
def _tls_context() -> ssl.SSLContext:
    """Return the TLS settings that all connections share, because loading the root certificates takes 22 ms."""
    return ssl.create_default_context()


@lru_cache(maxsize=8)
def _signing_key(secret: str, day: str, region: str, service: str) -> bytes:
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key
