"""Read AWS credentials from environment variables or from the container credentials endpoint.

Lambda sets environment variables with the credentials. With SnapStart, Lambda sets variables with the address of the
endpoint instead, as ECS and EKS do, because the credentials in a snapshot would have expired by the time the snapshot
is restored. For the same reason, credentials are read at the first request and not at import.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from recsys.errors import Unavailable

if TYPE_CHECKING:
    from botocore.credentials import ContainerProvider
    from botocore.credentials import Credentials as BotocoreCredentials

_ENDPOINT_VARIABLES: Final = ("AWS_CONTAINER_CREDENTIALS_FULL_URI", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")


@dataclass(frozen=True, slots=True)
class Credentials:
    """An AWS access key, with a session token if the access key is temporary."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)


class CredentialProvider:
    """A source of the credentials for each request. Instances are thread-safe.

    As in botocore, environment variables take precedence over the container credentials endpoint. The endpoint is read
    with botocore, which refreshes the credentials 15 minutes before they expire. botocore sends the token from
    `AWS_CONTAINER_AUTHORIZATION_TOKEN[_FILE]` only to this machine, to the addresses of ECS and EKS, or over TLS.
    botocore is imported only if the endpoint is configured, because the import takes 100 ms.

    Parameters
    ----------
    environment
        The environment variables. They are read again with every request for credentials.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._lock = threading.Lock()
        self._refreshable: BotocoreCredentials | None = None
        # Created here and not at the first request, so that a SnapStart snapshot contains the imported modules.
        self._endpoint = self._new_endpoint() if self._is_endpoint_configured() else None

    def get(self) -> Credentials:
        """Return valid credentials.

        Raises
        ------
        Unavailable
            No credentials are configured, or the container credentials endpoint returned none.
        """
        access_key_id = self._environment.get("AWS_ACCESS_KEY_ID", "")
        secret_access_key = self._environment.get("AWS_SECRET_ACCESS_KEY", "")
        if access_key_id and secret_access_key:
            return Credentials(access_key_id, secret_access_key, self._environment.get("AWS_SESSION_TOKEN", ""))
        if not self._is_endpoint_configured():
            raise Unavailable(
                "No AWS credentials found. Expected AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
                f"or either {' or '.join(_ENDPOINT_VARIABLES)}."
            )
        try:
            return self._from_endpoint()
        # botocore does not validate the response. Missing members and wrong types therefore raise various errors.
        except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
            raise Unavailable(f"The container credentials endpoint cannot be used: {error}.") from error

    def _is_endpoint_configured(self) -> bool:
        return any(self._environment.get(name) for name in _ENDPOINT_VARIABLES)

    def _from_endpoint(self) -> Credentials:
        from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - see the class

        with self._lock:
            self._endpoint = self._endpoint or self._new_endpoint()
            try:
                self._refreshable = self._refreshable or self._endpoint.load()
                assert self._refreshable is not None, "load() returns None only if no endpoint is configured"
                frozen = self._refreshable.get_frozen_credentials()
            except BotoCoreError as error:
                # The text of the error can quote the response.
                raise Unavailable(f"The container credentials endpoint failed: {type(error).__name__}.") from error
        return Credentials(str(frozen.access_key), str(frozen.secret_key), frozen.token or "")

    def _new_endpoint(self) -> ContainerProvider:
        from botocore.credentials import ContainerProvider  # noqa: PLC0415 - see the class

        return ContainerProvider(environ=self._environment)
