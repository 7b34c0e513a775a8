"""AWS credentials from environment variables or from the container credentials endpoint.

Lambda sets the variables. With SnapStart it sets the endpoint instead, as ECS and EKS do, because the credentials of a
snapshot would be expired when it is restored. For the same reason credentials are resolved at the first request and not
at import. The protocol: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from recsys.backoff import backoff_s
from recsys.errors import Unavailable

_RELATIVE_URI: Final = "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
_FULL_URI: Final = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_TOKEN: Final = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - the name of a variable
_TOKEN_FILE: Final = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"  # noqa: S105 - the name of a variable
_ECS_HOST: Final = "169.254.170.2"
_PLAIN_HTTP_HOSTS: Final = frozenset({_ECS_HOST, "169.254.170.23", "fd00:ec2::23", "localhost", "127.0.0.1", "::1"})
"""Hosts to which the authorization token may be sent without TLS: those of ECS and EKS, and this machine."""
_TIMEOUT_S: Final = 2.0  # botocore's
_ATTEMPTS: Final = 3  # botocore's
_BACKOFF_BASE_S: Final = 0.05
_REFRESH_BEFORE_EXPIRY: Final = timedelta(minutes=15)  # botocore's advisory refresh
_RETRY_REFRESH_AFTER: Final = timedelta(seconds=30)  # not tuned: a failed refresh must not slow down every request

_logger: Final = logging.getLogger("recsys.aws")


@dataclass(frozen=True, slots=True)
class Credentials:
    """An access key, with the session token of a temporary one. Credentials without `expires_at` do not expire."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    expires_at: datetime | None = None


class CredentialProvider:
    """Resolves credentials when they are needed, and refreshes them before they expire. It is thread-safe.

    As in botocore, environment variables take precedence over the container credentials endpoint.

    Parameters
    ----------
    environment
        The environment variables. They are read again with every request for credentials.
    now
        Returns the current time.
    pause
        Sleeps for the given number of seconds before a retry.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._environment = environment
        self._now = now
        self._pause = pause
        self._lock = threading.Lock()
        self._cached: Credentials | None = None
        self._refresh_at = datetime.min.replace(tzinfo=UTC)

    def get(self) -> Credentials:
        """Return valid credentials.

        Raises
        ------
        Unavailable
            If no credentials are configured, or the container credentials endpoint does not return any.
        """
        access_key_id = self._environment.get("AWS_ACCESS_KEY_ID", "")
        secret_access_key = self._environment.get("AWS_SECRET_ACCESS_KEY", "")
        if access_key_id and secret_access_key:
            return Credentials(access_key_id, secret_access_key, self._environment.get("AWS_SESSION_TOKEN", ""))
        if not (self._environment.get(_RELATIVE_URI) or self._environment.get(_FULL_URI)):
            raise Unavailable(
                "No AWS credentials found. Expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                f"or one of {_FULL_URI} and {_RELATIVE_URI}."
            )
        return self._container_credentials()

    def _container_credentials(self) -> Credentials:
        with self._lock:
            if self._cached is None or self._now() >= self._refresh_at:
                self._cached = self._refreshed(self._cached)
            return self._cached

    def _refreshed(self, previous: Credentials | None) -> Credentials:
        """Return new credentials, or the previous ones if they are still valid and the endpoint fails."""
        try:
            credentials = self._fetch()
        except Unavailable as error:
            if previous is None or previous.expires_at is None or self._now() >= previous.expires_at:
                raise
            _logger.warning("AWS credentials could not be refreshed: %s", error.detail)
            self._refresh_at = self._now() + _RETRY_REFRESH_AFTER
            return previous
        expires_at = credentials.expires_at or datetime.max.replace(tzinfo=UTC)
        self._refresh_at = max(expires_at - _REFRESH_BEFORE_EXPIRY, self._now() + _RETRY_REFRESH_AFTER)
        return credentials

    def _fetch(self) -> Credentials:
        url = self._container_url()
        headers = {"accept": "application/json", **self._authorization()}
        failure: Exception | str = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                self._pause(backoff_s(attempt, base_s=_BACKOFF_BASE_S))
            try:
                status, body = _get(url, headers)
            except (OSError, HTTPException) as error:
                failure = type(error).__name__
                continue
            if status == 200:
                return _parse(body)
            failure = f"status {status}"
        raise Unavailable(f"The container credentials endpoint failed {_ATTEMPTS} times: {failure}.")

    def _container_url(self) -> str:
        relative = self._environment.get(_RELATIVE_URI)
        url = f"http://{_ECS_HOST}{relative}" if relative else self._environment[_FULL_URI]
        parts = urlsplit(url)
        if parts.scheme != "https" and (parts.scheme != "http" or parts.hostname not in _PLAIN_HTTP_HOSTS):
            raise Unavailable(
                f"{_FULL_URI} must use https, or http to this machine. Received host: {parts.hostname!r}."
            )
        return url

    def _authorization(self) -> dict[str, str]:
        """Return the header with the authorization token, which is read again each time because it may rotate."""
        token = self._environment.get(_TOKEN, "")
        if path := self._environment.get(_TOKEN_FILE):
            try:
                token = Path(path).read_text()
            except OSError as error:
                raise Unavailable(f"The file named by {_TOKEN_FILE} cannot be read: {error.strerror}.") from error
        if "\r" in token or "\n" in token:
            raise Unavailable("The authorization token of the container credentials endpoint contains a line break.")
        return {"authorization": token} if token else {}


def _get(url: str, headers: Mapping[str, str]) -> tuple[int, bytes]:
    """Send a GET request. Return the status and the body of the response."""
    parts = urlsplit(url)
    connection_class = HTTPSConnection if parts.scheme == "https" else HTTPConnection
    connection = connection_class(parts.netloc, timeout=_TIMEOUT_S)
    try:
        target = f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"
        connection.request("GET", target, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _parse(body: bytes) -> Credentials:
    """Parse the response of the container credentials endpoint."""
    try:
        document = json.loads(body)
        expiration = document.get("Expiration")
        return Credentials(
            str(document["AccessKeyId"]),
            str(document["SecretAccessKey"]),
            str(document.get("Token") or ""),
            datetime.fromisoformat(expiration).astimezone(UTC) if expiration else None,
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        # The text of the error may contain a part of the credentials.
        raise Unavailable("The container credentials endpoint sent an invalid response.") from error
